"""One training example: alternating context and answer, before tokenisation."""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns with at least one answer by the assistant; loss is on the answers.

    A prompt with its completion is a conversation of two turns.
    """

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of plain text; loss is on all of it."""

    text: str


Example = Conversation | Passage


def question(prompt: str, completion: str) -> Conversation:
    """Returns a prompt and its completion as a conversation."""
    return Conversation((Message("user", prompt), Message("assistant", completion)))
