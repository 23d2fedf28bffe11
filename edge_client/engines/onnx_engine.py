"""The engine on ONNX Runtime: wheels only, weights mapped from the package.

The decode graph keeps no state: it takes the keys and values of the past and
returns them extended, so a sequence can be branched by repeating its arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from edge_client.data.batches import by_length, collate
from edge_client.data.tokens import TokenExample
from edge_client.engines.candidates import Level, build_levels
from edge_client.engines.engine import Scores, check_prompt
from edge_client.engines.errors import EngineError
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


class OnnxEngine:
    """A model package in ONNX Runtime; see `Engine`.

    Sessions open on first use: a device that only evaluates never loads the decode graph.

    Args:
        package: the model.
        runtime: threads.
    """

    def __init__(self, package: ModelPackage, runtime: RuntimeSettings | None = None) -> None:
        self._package = package
        self._runtime = runtime or RuntimeSettings()
        self._sessions: dict[FileRole, onnxruntime.InferenceSession] = {}
        self._feeds = adapter_feeds(package.manifest, None, None)
        self._dimensions = package.manifest.dimensions
        sides = ("key", "value")
        layers = range(self._dimensions.layers)
        self._past_names = [f"past.{layer}.{side}" for layer in layers for side in sides]
        self._decode_outputs = ["logits", *(f"present.{layer}.{side}" for layer in layers for side in sides)]

    @property
    def context_tokens(self) -> int:
        """Longest sequence, prompt and answer together."""
        return self._dimensions.context

    def set_adapter(self, tensors: Tensors | None, layout: AdapterLayout | None) -> None:
        """Swaps the adapter; see `Engine.set_adapter`. The arrays are used, not copied."""
        self._feeds = adapter_feeds(self._package.manifest, layout, tensors)

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings) -> Iterator[int]:
        """Yields tokens that continue a prompt; see `Engine.generate`."""
        check_prompt(prompt, self._dimensions.vocabulary, self.context_tokens)
        return self._generate(list(prompt), sampling)

    def _generate(self, prompt: list[int], sampling: SamplingSettings) -> Iterator[int]:
        feeds, sampler = self._feeds, Sampler(sampling)
        eos = self._package.manifest.tokenizer.eos
        tokens, cache = prompt, self._empty_cache(1)
        room = min(sampling.max_tokens, self.context_tokens - len(prompt))
        for _ in range(room):
            logits, cache = self._decode(feeds, np.array([tokens], dtype=np.int64), cache)
            token = sampler.pick(logits[0])
            if token == eos:
                return
            yield token
            tokens = [token]

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
        rows = len(tokens)
        scores = np.zeros((rows, candidates))
        cache, width = self._empty_cache(rows), 1
        for depth, level in enumerate(levels):
            nodes = len(level.tokens)
            if depth > 0:
                # Node n of row r continues node parents[n] of row r in the level above.
                sources = (np.arange(rows)[:, None] * width + np.array(level.parents)[None]).ravel()
                cache = [array[sources] for array in cache]
                tokens = np.tile(np.array(level.tokens, dtype=np.int64), rows)[:, None]
            logits, cache = self._decode(self._feeds, tokens, cache)
            logp = log_softmax(logits).reshape(rows, nodes, -1)
            for position, token, reached in level.scored:
                scores[:, reached] += logp[:, position, token][:, None]
            width = nodes
        return scores

    def close(self) -> None:
        """Releases the sessions; the next use opens them again."""
        self._sessions.clear()

    def __enter__(self) -> Self:
        """Returns the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the engine."""
        self.close()

    def _empty_cache(self, rows: int) -> Cache:
        shape = (rows, self._dimensions.kv_heads, 0, self._dimensions.head_dim)
        return [np.zeros(shape, dtype=np.float32) for _ in self._past_names]

    def _decode(self, adapter: Feeds, tokens: NDArray[np.int64], cache: Cache) -> tuple[NDArray[np.float32], Cache]:
        """Runs tokens [B, T] after a cache: logits of the last position [B, vocabulary], and the new cache."""
        feeds: Feeds = {**adapter, **dict(zip(self._past_names, cache, strict=True)), "input_ids": tokens}
        logits, *present = self._run(FileRole.DECODE, self._decode_outputs, feeds)
        return logits[:, -1, :], present

    def _run(self, role: FileRole, outputs: list[str], feeds: Feeds) -> list[NDArray[np.float32]]:
        if role not in self._sessions:
            self._sessions[role] = open_session(self._package, role, self._runtime)
        try:
            results: list[NDArray[np.float32]] = self._sessions[role].run(outputs, feeds)
        except Exception as error:  # the binding raises classes of its own without a common base
            if is_allocation_failure(error):
                raise MemoryError(f"the {role.value} graph could not allocate memory: {error}") from error
            raise EngineError(f"ONNX Runtime failed in the {role.value} graph: {error}") from error
        return results
