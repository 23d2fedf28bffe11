"""One answer: from prompt tokens to text, with its end and its count of tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edge_client.data.examples import Message
from edge_client.data.tokens import encode_messages, encode_prompt
from edge_client.serving.stops import StopScanner

if TYPE_CHECKING:
    from edge_client.data.templates import Template
    from edge_client.data.tokenizer import Tokenizer
    from edge_client.engines.isolated import IsolatedEngine
    from edge_client.engines.sampling import SamplingSettings
    from nightshift.packages.package import ModelPackage

FinishReason = Literal["stop", "length"]
_NEIGHBOURS = 4  # tokens before the answer that decide on the space at its beginning


@dataclass(frozen=True, slots=True)
class Language:
    """How a model package reads and writes.

    Attributes:
        tokenizer: text to tokens and back.
        template: conversations to text.
        end_tokens: tokens beside end-of-sequence that end an answer.
    """

    tokenizer: Tokenizer
    template: Template
    end_tokens: frozenset[int]

    @classmethod
    def of(cls, package: ModelPackage) -> Language:
        """Reads tokenizer and template of a package.

        Raises:
            DataError: one of them cannot be used.
        """
        from edge_client.data.prepare import package_template, package_tokenizer

        tokenizer = package_tokenizer(package)
        template = package_template(package, tokenizer)
        return cls(tokenizer, template, end_tokens(tokenizer, template))

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """Tokens after which the model answers a conversation; no message can hold a control token.

        Raises:
            DataError: the template refuses it.
        """
        return encode_messages(messages, self.tokenizer, self.template)

    def text(self, prompt: str | Sequence[int]) -> list[int]:
        """Tokens after which the model continues a text; tokens stay as they are.

        Whoever sends a bare text writes its control tokens too: there is no template to do it.
        """
        return encode_prompt(prompt, self.tokenizer) if isinstance(prompt, str) else list(prompt)


class Answer:
    """The pieces of one answer, made while they are iterated over; once only.

    Attributes:
        finish_reason: after the last piece: "stop" at the model's own end or a stop
            text, "length" at a limit.
        completion_tokens: tokens that the model has written so far.
    """

    def __init__(
        self,
        engine: IsolatedEngine,
        language: Language,
        prompt: Sequence[int],
        sampling: SamplingSettings,
        *,
        stop: Sequence[str] = (),
        continues: bool = False,
    ) -> None:
        self._engine = engine
        self._language = language
        self._prompt = prompt
        self._sampling = sampling
        self._stop = stop
        self._before = prompt[-_NEIGHBOURS:] if continues else ()
        self._ended = False
        self.finish_reason: FinishReason = "stop"
        self.completion_tokens = 0

    def __iter__(self) -> Generator[str, None, None]:
        """Yields the text; closing the iterator stops the model.

        Raises:
            PromptError: the prompt does not fit.
            EngineError: the runtime failed; the text so far is good.
        """
        tokens = self._engine.generate(self._prompt, self._sampling)
        scanner = StopScanner(self._stop)
        try:
            for piece in self._language.tokenizer.decode_stream(self._counted(tokens), after=self._before):
                text = scanner.push(piece)
                if text:
                    yield text
                if scanner.found:
                    return
            text = scanner.flush()
            if text:
                yield text
            room = min(self._sampling.max_tokens, self._engine.context_tokens - len(self._prompt))
            if self.completion_tokens >= room and not self._ended:
                self.finish_reason = "length"
        finally:
            tokens.close()

    def _counted(self, tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            self.completion_tokens += 1
            if token in self._language.end_tokens:
                self._ended = True
                return
            yield token


def end_tokens(tokenizer: Tokenizer, template: Template) -> frozenset[int]:
    """The special token that the chat template writes after an answer, if it is not end-of-sequence.

    Several families end a turn with a token of its own (<|im_end|>, <|eot_id|>) while the file names another as
    end-of-sequence.
    """
    from edge_client.data.errors import DataError
    from edge_client.data.examples import question

    content = "x"
    try:
        answer = template.segments(question("x", content))[-1].text
    except DataError:
        return frozenset()
    _, found, rest = answer.partition(content)
    first = tokenizer.encode(rest)[:1] if found else []
    return frozenset(token for token in first if token != tokenizer.eos and _is_special(token, tokenizer))


def _is_special(token: int, tokenizer: Tokenizer) -> bool:
    """Whether a token has no text; between others, because a lone space token has none at a beginning."""
    neighbour = tokenizer.encode("x")
    return tokenizer.decode([*neighbour, token, *neighbour]) == tokenizer.decode([*neighbour, *neighbour])
