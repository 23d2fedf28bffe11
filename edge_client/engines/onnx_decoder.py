"""The decode graph and one sequence's keys and values, extended in place.

The graph writes new keys and values into the buffers that it reads the old ones from: each is bound to it
once, as input and as output. A step then copies nothing, however long the sequence is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_client.engines.errors import EngineError
from edge_client.engines.prompt_cache import PromptCache
from edge_client.engines.sessions import Feeds, is_allocation_failure
from nightshift.protocol.manifest import ModelDimensions

if TYPE_CHECKING:
    import onnxruntime

_CHUNK_TOKENS = 512  # bounds the memory of a long prompt's activations


class OnnxDecoder:
    """One sequence in one session of a decode graph.

    Args:
        session: of the decode graph, with or without an adapter.
        dimensions: of the model.
        capacity_tokens: longest sequence. Memory is taken as the sequence grows: the system gives out pages
            when they are first written.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, dimensions: ModelDimensions, capacity_tokens: int
    ) -> None:
        import onnxruntime

        self._session = session
        self._cache = PromptCache()
        self._binding = session.io_binding()
        self._logits = np.empty((1, dimensions.vocabulary), dtype=np.float32)
        # An OrtValue shares its array's memory; not every version of the binding keeps the array alive.
        self._buffers: list[NDArray[np.float32]] = [self._logits]
        shape = (1, dimensions.kv_heads, capacity_tokens, dimensions.head_dim)
        for layer in range(dimensions.layers):
            for part in ("key", "value"):
                buffer = np.empty(shape, dtype=np.float32)
                value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
                self._binding.bind_ortvalue_input(f"past.{layer}.{part}", value)
                self._binding.bind_ortvalue_output(f"present.{layer}.{part}", value)
                self._buffers.append(buffer)
        self._binding.bind_ortvalue_output("logits", onnxruntime.OrtValue.ortvalue_from_numpy(self._logits))

    def attach(self, adapter: Feeds) -> None:
        """Uses this adapter's tensors from now on; what was read under another one is forgotten.

        Raises:
            EngineError: ONNX Runtime refuses them.
        """
        self.forget()
        for name, tensor in adapter.items():
            self._binding.bind_cpu_input(name, tensor)

    def forget(self) -> None:
        """Forgets the sequence."""
        self._cache.forget()

    def read(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        """Runs a prompt, except what the last sequence began with as well.

        Returns:
            Logits after its last token, float32 [vocabulary]; the next run overwrites them.

        Raises:
            EngineError: ONNX Runtime failed.
            MemoryError: it could not allocate memory.
        """
        for start in range(self._cache.keep(prompt), len(prompt), _CHUNK_TOKENS):
            self.step(prompt[start : start + _CHUNK_TOKENS])
        return self._logits.reshape(-1)

    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Appends tokens to the sequence; returns and raises as `read`."""
        self._binding.bind_cpu_input("input_ids", np.array([tokens], dtype=np.int64))
        self._binding.bind_cpu_input("past_length", np.array(len(self._cache), dtype=np.int64))
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # the binding raises classes of its own without a common base
            self.forget()
            if is_allocation_failure(error):
                raise MemoryError(f"the decode graph could not allocate memory: {error}") from error
            raise EngineError(f"ONNX Runtime failed in the decode graph: {error}") from error
        self._cache.extend(tokens)
        return self._logits.reshape(-1)
