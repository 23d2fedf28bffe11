"""The engine on llama.cpp, through the low-level bindings of llama-cpp-python.

The base file stays mapped: `Llama(lora_path=...)` of the high-level class
would switch that off, so adapters are attached and detached here, from memory.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_client.data.tokens import TokenExample
from edge_client.engines.candidates import build_levels
from edge_client.engines.engine import Engine, Scores, check_prompt
from edge_client.engines.errors import EngineError, EngineUnavailableError
from edge_client.engines.memory_file import memory_file
from edge_client.engines.prompt_cache import PromptCache
from edge_client.engines.sampling import Sampler, SamplingSettings, log_softmax
from edge_client.engines.sessions import RuntimeSettings, adapter_feeds
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors
from nightshift.protocol.adapters.gguf_adapter import to_gguf
from nightshift.protocol.manifest import FileRole

_BATCH_TOKENS = 512


def load_library() -> ModuleType:
    """Imports llama-cpp-python.

    Raises:
        EngineUnavailableError: it is not installed, or built for another processor.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise EngineUnavailableError(
            "the llama.cpp engine needs llama-cpp-python: pip install 'nightshift[llama]', "
            "or choose the ONNX engine, which needs nothing more"
        ) from error
    except (OSError, RuntimeError) as error:
        raise EngineUnavailableError(
            f"llama-cpp-python is installed but does not load ({error}); "
            "build it on this machine: pip install --force-reinstall --no-binary :all: llama-cpp-python"
        ) from error
    library: ModuleType = llama_cpp
    _prepare(library)
    return library


@functools.cache
def _prepare(library: ModuleType) -> object:
    """Once in a process. The result, a C function that llama.cpp keeps calling, is held for ever by the cache."""
    callback = library.llama_log_callback(_drop_log)
    library.llama_log_set(callback, ctypes.c_void_p(0))
    library.llama_backend_init()
    return callback


def _drop_log(level: int, text: bytes, data: object) -> None:
    """Keeps llama.cpp's chatter, which may quote file names, out of the logs."""


class LlamaEngine(Engine):
    """A model package in llama.cpp; see `Engine`.

    Args:
        package: the model.
        runtime: threads.
        context_tokens: longest sequence; 0 takes the model's own.

    Raises:
        EngineUnavailableError: the library is missing or refuses the file.
    """

    def __init__(
        self, package: ModelPackage, runtime: RuntimeSettings | None = None, *, context_tokens: int = 0
    ) -> None:
        self._model: Any = None
        self._context: Any = None
        self._adapter: Any = None
        self._batch: Any = None
        self._cache = PromptCache()
        self._package = package
        self._library = load_library()
        self.context_tokens = context_tokens or package.manifest.dimensions.context
        path = package.path(FileRole.GGUF)
        model_settings = self._library.llama_model_default_params()
        model_settings.n_gpu_layers = 0  # the file is mapped: the default of `load_mode`
        self._model = self._library.llama_model_load_from_file(str(path).encode(), model_settings)
        if not self._model:
            raise EngineUnavailableError(f"{path}: llama.cpp refuses this file; verify the package")
        self._context = self._open_context(runtime or RuntimeSettings())
        self._batch = self._library.llama_batch_init(min(_BATCH_TOKENS, self.context_tokens), 0, 1)
        self._logits_type = ctypes.c_float * package.manifest.dimensions.vocabulary

    def _open_context(self, runtime: RuntimeSettings) -> Any:
        settings = self._library.llama_context_default_params()
        settings.n_ctx = self.context_tokens
        settings.n_batch = settings.n_ubatch = min(_BATCH_TOKENS, self.context_tokens)
        settings.n_seq_max = 1
        # Keys and values stay F16, llama.cpp's own choice: F32 would cost a tenth of the speed and gain nothing that
        # the 8-bit activations leave visible (docs/benchmarks/parity.md).
        settings.flash_attn_type = self._library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if runtime.threads:
            settings.n_threads = settings.n_threads_batch = runtime.threads
        context = self._library.llama_init_from_model(self._model, settings)
        if not context:
            self.close()
            raise EngineUnavailableError(
                f"llama.cpp cannot make a context of {self.context_tokens} tokens; choose a shorter one"
            )
        return context

    def set_adapter(self, tensors: Tensors | None, layout: AdapterLayout | None) -> None:
        """Swaps the adapter; see `Engine.set_adapter`."""
        # Refuses what does not fit before llama.cpp, which aborts on some mismatches, sees it.
        adapter_feeds(self._package.manifest, layout, tensors)
        self._forget()
        adapter = None
        if tensors is not None and layout is not None:
            size = self._package.manifest.dimensions
            data = to_gguf(tensors, layout, architecture=size.family, heads=size.heads, kv_heads=size.kv_heads)
            adapter = self._load_adapter(data)
        previous, self._adapter = self._adapter, adapter
        if adapter is None:
            status = self._library.llama_set_adapters_lora(self._context, None, 0, None)
        else:
            adapters = (self._library.llama_adapter_lora_p_ctypes * 1)(adapter)
            status = self._library.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))
        if previous is not None:
            self._library.llama_adapter_lora_free(previous)
        if status != 0:
            raise EngineError(f"llama.cpp does not attach the adapter (status {status})")

    def _load_adapter(self, data: bytes) -> Any:
        with memory_file(data) as file:
            adapter = self._library.llama_adapter_lora_init_from_file_ptr(self._model, file)
        if not adapter:
            raise EngineUnavailableError("llama.cpp refuses the adapter; it was trained for another model")
        return adapter

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings) -> Iterator[int]:
        """Yields tokens that continue a prompt; see `Engine.generate`."""
        check_prompt(prompt, self._package.manifest.dimensions.vocabulary, self.context_tokens)
        return self._generate(list(prompt), sampling)

    def _generate(self, prompt: list[int], sampling: SamplingSettings) -> Iterator[int]:
        sampler = Sampler(sampling)
        eos = self._package.manifest.tokenizer.eos
        if sampling.seed is not None:
            self._forget()  # what was read in other pieces may differ in the last bit, which a seed must not
        known = self._cache.keep(prompt)
        tokens = prompt[known:]
        self._drop_from(known)
        for _ in range(min(sampling.max_tokens, self.context_tokens - len(prompt))):
            token = sampler.pick(self._decode(tokens)[0])
            if token == eos:
                return
            yield token
            tokens = [token]

    def token_losses(self, examples: Sequence[TokenExample]) -> list[NDArray[np.float32]]:
        """Losses of answer tokens; see `Engine.token_losses`."""
        losses = []
        for example in examples:
            self._forget()
            logp = log_softmax(self._decode(example.tokens[:-1].tolist(), every=True))
            picked = np.take_along_axis(logp, example.tokens[1:, None], axis=1)[:, 0]
            losses.append(np.where(example.answer[1:], -picked, 0.0).astype(np.float32))
        return losses

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after every token, float32 [length, vocabulary]: for measuring parity.

        Raises:
            PromptError: as `generate`.
        """
        check_prompt(tokens, self._package.manifest.dimensions.vocabulary, self.context_tokens)
        self._forget()
        return self._decode(tokens, every=True)

    def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Scores:
        """Log-likelihoods of candidates; see `Engine.score`. Each prompt is run once."""
        build_levels(candidates)  # checks them
        scores = np.zeros((len(prompts), len(candidates)))
        longest = max(len(candidate) for candidate in candidates)
        for row, prompt in enumerate(prompts):
            vocabulary = self._package.manifest.dimensions.vocabulary
            check_prompt(prompt, vocabulary, self.context_tokens - longest + 1)
            self._forget()
            first = log_softmax(self._decode(prompt)[0])
            for column, candidate in enumerate(candidates):
                scores[row, column] = first[candidate[0]]
                if len(candidate) > 1:
                    self._drop_from(self._cache.keep([*prompt, candidate[0]]))
                    rest = log_softmax(self._decode(candidate[:-1], every=True))
                    scores[row, column] += rest[np.arange(len(rest)), candidate[1:]].sum()
        return scores

    def _forget(self) -> None:
        """Drops all cached keys and values."""
        self._cache.forget()
        self._drop_from(0)

    def _drop_from(self, position: int) -> None:
        """Drops the cached keys and values from a position on."""
        memory = self._library.llama_get_memory(self._context)
        self._library.llama_memory_seq_rm(memory, 0, position, -1)

    def _decode(self, tokens: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Appends tokens to the sequence: logits after the last, or after every one, float32 [n, vocabulary].

        What is returned for the last one is llama.cpp's own memory, which the next call overwrites.
        """
        limit = min(_BATCH_TOKENS, self.context_tokens)
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(tokens), limit):
            chunk = tokens[start : start + limit]
            self._fill_batch(chunk, every=every, ends=start + limit >= len(tokens))
            status = self._library.llama_decode(self._context, self._batch)
            if status != 0:
                self._forget()
                raise EngineError(f"llama.cpp failed to decode {len(chunk)} tokens (status {status})")
            self._cache.extend(chunk)
            if every:
                parts.append(self._logits(len(chunk)).copy())
        return np.concatenate(parts) if every else self._logits(1)

    def _fill_batch(self, chunk: Sequence[int], *, every: bool, ends: bool) -> None:
        batch, position = self._batch, len(self._cache)
        batch.n_tokens = len(chunk)
        for index, token in enumerate(chunk):
            batch.token[index] = token
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = every or (ends and index == len(chunk) - 1)

    def _logits(self, rows: int) -> NDArray[np.float32]:
        """The logits that the last call asked for, [rows, vocabulary], in llama.cpp's memory."""
        address = ctypes.cast(self._library.llama_get_logits(self._context), ctypes.c_void_p).value
        assert address is not None, "a successful call leaves logits"
        logits: NDArray[np.float32] = np.ctypeslib.as_array((self._logits_type * rows).from_address(address))
        return logits

    def close(self) -> None:
        """Releases the adapter, the context and the model; safe to call twice."""
        if self._batch is not None:
            self._library.llama_batch_free(self._batch)
        if self._context:
            self._library.llama_free(self._context)
        if self._adapter:
            self._library.llama_adapter_lora_free(self._adapter)
        if self._model:
            self._library.llama_model_free(self._model)
        self._context = self._adapter = self._model = self._batch = None
