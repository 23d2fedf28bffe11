"""Examples as tokens with a mask of what is learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Example, Message
from edge_client.data.quoting import quote
from edge_client.data.templates import Template
from edge_client.data.tokenizer import Tokenizer

TOO_LONG = "answer beyond the sequence length"
NOT_RENDERED = "refused by the chat template"


@dataclass(frozen=True, slots=True, eq=False)
class TokenExample:
    """Tokens of one example.

    Attributes:
        tokens: int64 [length], length at least 2.
        answer: bool [length]; the loss counts the tokens where it is true.
    """

    tokens: NDArray[np.int64]
    answer: NDArray[np.bool_]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def tokenise(
    examples: Iterable[Example], tokenizer: Tokenizer, template: Template, *, max_tokens: int
) -> tuple[list[TokenExample], dict[str, int]]:
    """Turns examples into tokens.

    Segments are encoded one by one, as they are when a prompt is encoded and
    the model then writes its answer. Conversations are cut on the right at `max_tokens`;
    passages are cut into as many windows as they need.

    Returns:
        The token examples, and reason -> number of examples that were skipped.

    Raises:
        DataError: `max_tokens` is below 2.
    """
    if max_tokens < 2:
        raise DataError(f"max_tokens must be at least 2, got {max_tokens}")
    done: list[TokenExample] = []
    skipped: Counter[str] = Counter()
    for example in examples:
        if isinstance(example, Conversation):
            try:
                tokens, answer = _conversation(example, tokenizer, template)
            except DataError:
                skipped[NOT_RENDERED] += 1
                continue
            if not any(answer[1:max_tokens]):
                skipped[TOO_LONG] += 1
                continue
            done.append(_token_example(tokens[:max_tokens], answer[:max_tokens]))
        else:
            done.extend(_windows(example.text, tokenizer, max_tokens))
    return done, dict(skipped)


def encode_messages(messages: Sequence[Message], tokenizer: Tokenizer, template: Template) -> list[int]:
    """Tokens after which the model answers a conversation; no message can hold a control token.

    Raises:
        DataError: the template refuses it.
    """
    quoted = quote(messages, tokenizer.controls)
    return _begun(tokenizer.encode_rendered(template.prompt(quoted.messages), quoted), tokenizer)


def encode_prompt(text: str, tokenizer: Tokenizer) -> list[int]:
    """Tokens of a rendered prompt, with BOS in front unless the template wrote it."""
    return _begun(tokenizer.encode(text), tokenizer)


def _begun(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    return tokens if tokens[:1] == tokenizer.prefix else tokenizer.prefix + tokens


def _conversation(conversation: Conversation, tokenizer: Tokenizer, template: Template) -> tuple[list[int], list[bool]]:
    tokens: list[int] = []
    answer: list[bool] = []
    quoted = quote(conversation.messages, tokenizer.controls)
    for index, segment in enumerate(template.segments(Conversation(quoted.messages))):
        piece = tokenizer.encode_rendered(segment.text, quoted)
        if index == 0:
            piece = _begun(piece, tokenizer)
        if segment.ends_sequence:
            piece += tokenizer.suffix
        tokens += piece
        answer += [segment.is_answer] * len(piece)
    return tokens, answer


def _windows(text: str, tokenizer: Tokenizer, max_tokens: int) -> Iterable[TokenExample]:
    tokens = [*tokenizer.prefix, *tokenizer.encode_plain(text), *tokenizer.suffix]
    # Neighbouring windows share one token, so that every token after the first is predicted once.
    for start in range(0, max(len(tokens) - 1, 1), max_tokens - 1):
        window = tokens[start : start + max_tokens]
        if len(window) >= 2:
            yield _token_example(window, [True] * len(window))


def _token_example(tokens: list[int], answer: list[bool]) -> TokenExample:
    return TokenExample(np.array(tokens, dtype=np.int64), np.array(answer, dtype=np.bool_))
