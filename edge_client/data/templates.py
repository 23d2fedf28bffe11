r"""How a conversation becomes text with marked answers.

Without a chat template of the model every message of the user and the system is its content
and a line break, every answer is its content and the end-of-sequence token:

    BOS  prompt "\n"  completion EOS          (loss on completion and EOS)

With a chat template (Jinja, as Hugging Face tokenizers carry it) the answer is
what the template adds when the assistant's message is appended to the rendered
conversation before it, so that it ends as the model itself must end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Message

MAX_RENDERED_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text that is context, or an answer that is learnt."""

    text: str
    is_answer: bool
    ends_sequence: bool = False


class Template(Protocol):
    """Turns conversations into text."""

    def segments(self, conversation: Conversation) -> list[Segment]:
        """Returns context and answers in order.

        Raises:
            DataError: this conversation cannot be rendered.
        """

    def prompt(self, messages: Sequence[Message]) -> str:
        """Returns the text after which the model writes its answer.

        Raises:
            DataError: these messages cannot be rendered.
        """


class PlainTemplate:
    """Contents and line breaks only, for models without a chat template."""

    def segments(self, conversation: Conversation) -> list[Segment]:
        """As `Template.segments`; never raises."""
        return [
            Segment(message.content, is_answer=True, ends_sequence=True)
            if message.role == "assistant"
            else Segment(message.content + "\n", is_answer=False)
            for message in conversation.messages
        ]

    def prompt(self, messages: Sequence[Message]) -> str:
        """As `Template.prompt`; never raises."""
        return "".join(message.content + "\n" for message in messages)


class ChatTemplate:
    """The model's own template, rendered in Jinja's sandbox.

    Args:
        source: Jinja source from the package manifest.
        bos_token: text of the beginning-of-sequence token.
        eos_token: text of the end-of-sequence token.

    Raises:
        DataError: jinja2 is not installed, or the template does not parse.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise DataError("this model has a chat template, which needs jinja2: pip install jinja2") from error

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = refuse
        self._error = TemplateError
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise DataError(f"the model's chat template does not parse: {error}") from error

    def segments(self, conversation: Conversation) -> list[Segment]:
        """As `Template.segments`."""
        segments: list[Segment] = []
        done = ""
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            before = self.prompt(conversation.messages[:index])
            after = self._render(conversation.messages[: index + 1], add_generation_prompt=False)
            if not (before.startswith(done) and after.startswith(before)):
                raise DataError("the model's chat template rewrites earlier turns of this conversation")
            segments.append(Segment(before[len(done) :], is_answer=False))
            segments.append(Segment(after[len(before) :], is_answer=True))
            done = after
        return segments

    def prompt(self, messages: Sequence[Message]) -> str:
        """As `Template.prompt`."""
        return self._render(messages, add_generation_prompt=True)

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        values: dict[str, Any] = {
            **self._tokens,
            "messages": turns,
            "add_generation_prompt": add_generation_prompt,
        }
        text = ""
        try:
            for piece in self._template.generate(values):
                text += piece
                if len(text) > MAX_RENDERED_CHARACTERS:
                    raise DataError("the model's chat template writes more than a million characters")
        except DataError:
            raise
        except Exception as error:  # a template raises whatever its expressions raise
            raise DataError(f"the model's chat template refuses this conversation: {error}") from error
        return text


def choose_template(source: str | None, *, bos_token: str, eos_token: str) -> Template:
    """Returns the model's chat template, or the plain one where it has none.

    Raises:
        DataError: as `ChatTemplate`.
    """
    if source is None:
        return PlainTemplate()
    return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token)
