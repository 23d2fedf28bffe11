"""Keeping what a person wrote from becoming the model's control tokens.

A chat template writes control tokens as text (<|im_end|>, </s>), and the tokenizer reads them back. The same
text inside a message would end the person's turn and begin one of the system: anybody whose words
reach a prompt, a page that is summarised for one, could speak as the system. So before the template is
rendered such texts in the messages are replaced by marks that no message holds; afterwards what lies between
the template's own control tokens gets its texts back and is encoded as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_client.data.errors import DataError
from edge_client.data.examples import Message

# Noncharacters: never part of a text that is exchanged (Unicode 16, section 23.7).
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True, slots=True)
class Quoted:
    """Messages that a template may see.

    Attributes:
        messages: without control texts.
        originals: mark -> the text that it stands for; empty if there was none.
    """

    messages: tuple[Message, ...]
    originals: Mapping[str, str]

    def restore(self, text: str) -> str:
        """The text with its original words."""
        for mark, original in self.originals.items():
            text = text.replace(mark, original)
        return text


def quote(messages: Sequence[Message], controls: Iterable[str]) -> Quoted:
    """Replaces control texts in messages by marks.

    Args:
        messages: of a conversation.
        controls: texts of the model's control tokens.

    Raises:
        DataError: the messages hold every character that could mark one.
    """
    whole = "\n".join(message.content for message in messages)
    found = [control for control in controls if control and control in whole]
    if not found:
        return Quoted(tuple(messages), {})
    free = [mark for mark in _MARKS if mark not in whole]
    if len(free) < 2:
        raise DataError("the conversation holds control tokens, and every noncharacter that could stand for them")
    # Longest first: one control text may begin with another.
    marks = {
        control: f"{free[0]}{index}{free[1]}" for index, control in enumerate(sorted(found, key=len, reverse=True))
    }
    pattern = re.compile("|".join(map(re.escape, marks)))
    quoted = (
        Message(message.role, pattern.sub(lambda match: marks[match[0]], message.content)) for message in messages
    )
    return Quoted(tuple(quoted), {mark: control for control, mark in marks.items()})
