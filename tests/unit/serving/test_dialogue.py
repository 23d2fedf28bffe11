"""A conversation that is kept, forgotten and written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edge_client.data.examples import Conversation, Message
from edge_client.data.sources import Columns, DataFormat, DataSource, read_examples
from edge_client.serving.dialogue import Dialogue


def letters(messages: Sequence[Message]) -> list[int]:
    return [0 for message in messages for _ in message.content]


def test_the_oldest_turns_go_in_pairs_and_the_system_text_stays() -> None:
    dialogue = Dialogue("sys")
    for number in range(6):
        dialogue.ask(f"question {number}")
        dialogue.answered(f"answer {number}")
    dialogue.ask("last question")
    tokens = dialogue.prompt(letters, 80)
    assert len(tokens) <= 60
    assert dialogue.messages[0] == Message("system", "sys")
    assert dialogue.turns[0].role == "user"
    assert dialogue.turns[-1].content == "last question"
    assert dialogue.forgotten == 13 - len(dialogue.turns)
    assert dialogue.forgotten > 0


def test_a_question_that_alone_is_too_long_stays() -> None:
    dialogue = Dialogue()
    dialogue.ask("x" * 100)
    assert len(dialogue.prompt(letters, 50)) == 100
    assert len(dialogue.turns) == 1


def test_an_unanswered_question_is_taken_back() -> None:
    dialogue = Dialogue()
    dialogue.ask("one")
    dialogue.answered("two")
    dialogue.take_back()
    assert len(dialogue.turns) == 2
    dialogue.ask("three")
    dialogue.take_back()
    assert len(dialogue.turns) == 2
    dialogue.reset()
    assert dialogue.messages == []


def test_what_is_saved_can_be_learnt_from(tmp_path: Path) -> None:
    dialogue = Dialogue("be kind")
    dialogue.ask("hällo\nthere")
    dialogue.answered("hi")
    file = tmp_path / "saved.jsonl"
    file.write_bytes(dialogue.to_line())
    assert json.loads(file.read_text("utf-8"))["messages"][1] == {"role": "user", "content": "hällo\nthere"}
    examples = list(read_examples(DataSource(file, DataFormat.CHAT, Columns())))
    assert examples == [Conversation(tuple(dialogue.messages))]
