"""What an inference engine does, whichever runtime is behind it.

Engines speak tokens; text, templates and tokenizers are the caller's. An engine
serves one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edge_client.data.tokens import TokenExample
from edge_client.engines.errors import PromptError
from edge_client.engines.sampling import SamplingSettings
from nightshift.protocol.adapters import AdapterLayout, Tensors


class EngineKind(StrEnum):
    """The runtimes that an engine can be built on."""

    LLAMA = "llama"
    ONNX = "onnx"

    @property
    def label(self) -> str:
        """The runtime's own name."""
        return {"llama": "llama.cpp", "onnx": "ONNX Runtime"}[self.value]


class Engine(Protocol):
    """A loaded base model, with or without an adapter; `with` closes it."""

    context_tokens: int
    """Longest sequence, prompt and answer together."""

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings) -> Iterator[int]:
        """Yields tokens that continue a prompt, until end of sequence or a limit.

        The end-of-sequence token is not yielded. Closing the iterator stops the work.

        Args:
            prompt: at least one token, beginning-of-sequence included.
            sampling: how tokens are chosen, and how many at most.

        Raises:
            PromptError: the prompt is empty, fills the context, or has unknown tokens.
        """

    def token_losses(self, examples: Sequence[TokenExample]) -> list[NDArray[np.float32]]:
        """Negative log-likelihood of every token after the first, float32 [length - 1] for each example.

        Tokens outside the answer have loss 0.
        """

    def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Scores:
        """Total log-likelihood of every candidate after every prompt, float64 [prompts, candidates]."""

    def set_adapter(self, tensors: Tensors | None, layout: AdapterLayout | None) -> None:
        """Swaps the adapter without reloading the base; None restores the base exactly.

        Raises:
            EngineUnavailableError: the adapter does not fit the model.
        """

    def close(self) -> None:
        """Releases the model; safe to call twice."""

    def __enter__(self) -> Self:
        """Returns the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the engine."""
        self.close()


Scores = NDArray[np.float64]


def check_prompt(prompt: Sequence[int], vocabulary: int, context_tokens: int) -> None:
    """Checks that a prompt can be continued.

    Raises:
        PromptError: it is empty, too long, or has a token outside the vocabulary.
    """
    if not 1 <= len(prompt) < context_tokens:
        raise PromptError(f"the prompt has {len(prompt)} tokens; the model takes 1 to {context_tokens - 1}. Shorten it")
    if not all(0 <= token < vocabulary for token in prompt):
        raise PromptError(f"the prompt has a token outside the vocabulary of {vocabulary}")
