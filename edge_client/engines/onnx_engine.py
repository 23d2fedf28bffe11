"""The engine on ONNX Runtime: wheels only, weights mapped from the package.

A text is written by an `OnnxDecoder`, which extends its keys and values in place. Candidates are scored with
the same graph and arrays of their own: given keys and values, it returns them extended, so a sequence is
branched by repeating its arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_client.data.batches import by_length, collate
from edge_client.data.tokens import TokenExample
from edge_client.engines.candidates import Level, build_levels
from edge_client.engines.engine import Engine, Scores, check_prompt
from edge_client.engines.errors import EngineError
from edge_client.engines.onnx_decoder import OnnxDecoder
from edge_client.engines.sampling import Sampler, SamplingSettings, log_softmax
from edge_client.engines.sessions import Feeds, RuntimeSettings, adapter_feeds, is_allocation_failure, open_session
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors
from nightshift.protocol.manifest import FileRole

if TYPE_CHECKING:
    import onnxruntime

_BATCH_TOKENS = 2048
_BATCH_SEQUENCES = 512

Cache = list[NDArray[np.float32]]


class OnnxEngine(Engine):
    """A model package in ONNX Runtime; see `Engine`.

    Sessions open on first use: a device that only evaluates never loads the decode graph.

    Args:
        package: the model.
        runtime: threads.
        context_tokens: longest sequence; 0 takes the model's own.

    Attributes:
        context_tokens: longest sequence, prompt and answer together.
    """

    def __init__(
        self, package: ModelPackage, runtime: RuntimeSettings | None = None, *, context_tokens: int = 0
    ) -> None:
        self._package = package
        self._runtime = runtime or RuntimeSettings()
        self._sessions: dict[FileRole, onnxruntime.InferenceSession] = {}
        self._decoder: OnnxDecoder | None = None
        self._attached: Feeds | None = None
        self._adapted = False
        self._feeds = adapter_feeds(package.manifest, None, None)
        self._dimensions = package.manifest.dimensions
        self.context_tokens = context_tokens or self._dimensions.context
        sides = ("key", "value")
        layers = range(self._dimensions.layers)
        self._past_names = [f"past.{layer}.{side}" for layer in layers for side in sides]
        self._decode_outputs = ["logits", *(f"present.{layer}.{side}" for layer in layers for side in sides)]

    def set_adapter(self, tensors: Tensors | None, layout: AdapterLayout | None) -> None:
        """Swaps the adapter; see `Engine.set_adapter`. The arrays are used, not copied."""
        self._feeds = adapter_feeds(self._package.manifest, layout, tensors)
        self._adapted = tensors is not None and layout is not None

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings) -> Iterator[int]:
        """Yields tokens that continue a prompt; see `Engine.generate`."""
        check_prompt(prompt, self._dimensions.vocabulary, self.context_tokens)
        return self._generate(list(prompt), sampling)

    def _generate(self, prompt: list[int], sampling: SamplingSettings) -> Iterator[int]:
        sampler, decoder = Sampler(sampling), self._ready_decoder()
        eos = self._package.manifest.tokenizer.eos
        if sampling.seed is not None:
            decoder.forget()  # what was read in other pieces may differ in the last bit, which a seed must not
        room = min(sampling.max_tokens, self.context_tokens - len(prompt))
        logits = decoder.read(prompt)
        for left in range(room, 0, -1):
            token = sampler.pick(logits)
            if token == eos:
                return
            yield token
            if left > 1:
                logits = decoder.step([token])

    def token_losses(self, examples: Sequence[TokenExample]) -> list[NDArray[np.float32]]:
        """Losses of answer tokens; see `Engine.token_losses`."""
        losses: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(examples)
        for indices in by_length(examples, _BATCH_TOKENS):
            batch = collate([examples[index] for index in indices])
            feeds: Feeds = {
                **self._feeds,
                "input_ids": batch.input_ids,
                "labels": batch.labels,
                "weights": batch.weights,
            }
            (rows,) = self._run(FileRole.EVALUATE, ["token_loss"], feeds)
            for index, row in zip(indices, rows, strict=True):
                losses[index] = row[: examples[index].length - 1]
        return losses

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after every token, float32 [length, vocabulary], as generation sees them: for measuring parity.

        Raises:
            PromptError: as `generate`.
        """
        check_prompt(tokens, self._dimensions.vocabulary, self.context_tokens)
        decoder = self._ready_decoder()
        decoder.forget()
        return np.stack([decoder.step([token]).copy() for token in tokens])

    def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Scores:
        """Log-likelihoods of candidates; see `Engine.score`.

        Prompts of one length are run together once; candidates branch off the
        cached keys and values, sharing their common beginnings.
        """
        levels = build_levels(candidates)
        longest = max(len(candidate) for candidate in candidates)
        scores = np.zeros((len(prompts), len(candidates)))
        by_size: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            check_prompt(prompt, self._dimensions.vocabulary, self.context_tokens - longest + 1)
            by_size.setdefault(len(prompt), []).append(index)
        widest = max(len(level.tokens) for level in levels)
        for size, indices in by_size.items():
            rows = max(1, min(_BATCH_SEQUENCES // widest, _BATCH_TOKENS // size))
            for start in range(0, len(indices), rows):
                chosen = indices[start : start + rows]
                tokens = np.array([prompts[index] for index in chosen], dtype=np.int64)
                scores[chosen] = self._score_rows(tokens, levels, len(candidates))
        return scores

    def _score_rows(self, tokens: NDArray[np.int64], levels: list[Level], candidates: int) -> Scores:
        rows, role = len(tokens), self._decode_role()
        adapter = self._decode_feeds(role)
        scores = np.zeros((rows, candidates))
        cache, width = self._empty_cache(rows), 1
        for depth, level in enumerate(levels):
            nodes = len(level.tokens)
            if depth > 0:
                # Node n of row r continues node parents[n] of row r in the level above.
                sources = (np.arange(rows)[:, None] * width + np.array(level.parents)[None]).ravel()
                cache = [array[sources] for array in cache]
                tokens = np.tile(np.array(level.tokens, dtype=np.int64), rows)[:, None]
            past: Feeds = {"past_length": np.array(cache[0].shape[2], dtype=np.int64)}
            past |= dict(zip(self._past_names, cache, strict=True))
            logits, *cache = self._run(role, self._decode_outputs, {**adapter, **past, "input_ids": tokens})
            logp = log_softmax(logits).reshape(rows, nodes, -1)
            for position, token, reached in level.scored:
                scores[:, reached] += logp[:, position, token][:, None]
            width = nodes
        return scores

    def close(self) -> None:
        """Releases the sessions; the next use opens them again."""
        self._decoder = None
        self._sessions.clear()

    def _empty_cache(self, rows: int) -> Cache:
        shape = (rows, self._dimensions.kv_heads, 0, self._dimensions.head_dim)
        return [np.zeros(shape, dtype=np.float32) for _ in self._past_names]

    def _decode_role(self) -> FileRole:
        """The graph that generates: the one without an adapter's nodes, until there was an adapter.

        From then on the other serves the base model too, fed zeros, which is the same to the bit: swapping adapters
        never opens a graph again.
        """
        if not self._adapted and FileRole.DECODE_ADAPTER not in self._sessions:
            return FileRole.DECODE
        if FileRole.DECODE in self._sessions:
            self._decoder = None
            del self._sessions[FileRole.DECODE]  # each holds the weights in the layout that its kernels read
        return FileRole.DECODE_ADAPTER

    def _decode_feeds(self, role: FileRole) -> Feeds:
        """The adapter as the decode graph takes it: its B tensors times alpha / r."""
        if role is FileRole.DECODE:
            return {}
        feeds = dict(self._feeds)
        scale = feeds.pop("lora_scale")
        return {name: tensor * scale if name.endswith(".lora_b") else tensor for name, tensor in feeds.items()}

    def _ready_decoder(self) -> OnnxDecoder:
        role = self._decode_role()
        if self._decoder is None:
            self._decoder = OnnxDecoder(self._session(role), self._dimensions, self.context_tokens)
            self._attached = None
        if self._attached is not self._feeds:
            self._decoder.attach(self._decode_feeds(role))
            self._attached = self._feeds
        return self._decoder

    def _session(self, role: FileRole) -> onnxruntime.InferenceSession:
        if role not in self._sessions:
            self._sessions[role] = open_session(self._package, role, self._runtime)
        return self._sessions[role]

    def _run(self, role: FileRole, outputs: list[str], feeds: Feeds) -> list[NDArray[np.float32]]:
        session = self._session(role)
        try:
            results: list[NDArray[np.float32]] = session.run(outputs, feeds)
        except Exception as error:  # the binding raises classes of its own without a common base
            if is_allocation_failure(error):
                raise MemoryError(f"the {role.value} graph could not allocate memory: {error}") from error
            raise EngineError(f"ONNX Runtime failed in the {role.value} graph: {error}") from error
        return results
