"""A conversation as `chat` keeps it: turns, a system text, and forgetting what no longer fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_client.data.examples import Message

ANSWER_ROOM = 4  # a prompt may take all but a quarter of the context


@dataclass(slots=True)
class Dialogue:
    """A conversation that grows.

    Attributes:
        system: text that stands before all turns; empty for none.
        turns: of the user and the assistant.
        forgotten: turns that were dropped because the context was full.
    """

    system: str = ""
    turns: list[Message] = field(default_factory=list)
    forgotten: int = 0

    @property
    def messages(self) -> list[Message]:
        """All of it, as the template takes it."""
        return [*([Message("system", self.system)] if self.system else []), *self.turns]

    def ask(self, text: str) -> None:
        """The user says something."""
        self.turns.append(Message("user", text))

    def answered(self, text: str) -> None:
        """The assistant said something, perhaps not to its end."""
        self.turns.append(Message("assistant", text))

    def take_back(self) -> None:
        """The last question was not answered at all."""
        if self.turns and self.turns[-1].role == "user":
            self.turns.pop()

    def reset(self) -> None:
        """Forgets the turns; the system text stays."""
        self.turns.clear()
        self.forgotten = 0

    def prompt(self, encode: Callable[[Sequence[Message]], list[int]], context_tokens: int) -> list[int]:
        """Tokens of the conversation, without its oldest turns where it has become too long.

        Args:
            encode: messages to tokens.
            context_tokens: longest sequence, prompt and answer together.

        Returns:
            The tokens; still too long if the last question alone is.
        """
        longest = context_tokens - max(1, context_tokens // ANSWER_ROOM)
        tokens = encode(self.messages)
        while len(tokens) > longest and len(self.turns) > 1:
            # A question goes together with its answer: templates want them to alternate.
            dropped = 2 if len(self.turns) > 2 else 1
            del self.turns[:dropped]
            self.forgotten += dropped
            tokens = encode(self.messages)
        return tokens

    def to_line(self) -> bytes:
        """The conversation as one line of chat JSONL, which `data add --format chat` takes."""
        messages = [{"role": each.role, "content": each.content} for each in self.messages]
        return json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"
