from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_client.data.errors import DataError
from edge_client.data.examples import Conversation, Message, Passage, question
from edge_client.data.files import SkipReason
from edge_client.data.sources import (
    MAX_PASSAGE_CHARACTERS,
    Columns,
    DataFormat,
    DataSource,
    read_examples,
    scan,
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows"
    path.write_text(text, "utf-8")
    return path


def test_prompts_and_completions(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"prompt": "wake me", "completion": "alarm", "extra": 1}\n\n'
        '{"prompt": "no answer"}\n'
        '{"prompt": "blank", "completion": " "}\n'
        '{"prompt": 5, "completion": "x"}\n'
        '["prompt"]\nnot json\n'
        '{"prompt": "\\ud800", "completion": "lone surrogate"}\n' + "[" * 100_000 + "\n",
    )
    report = scan(path, DataFormat.PROMPT)
    assert report.rows == 1
    assert report.skipped == {
        SkipReason.MISSING_FIELD.value: 1,
        SkipReason.EMPTY.value: 1,
        SkipReason.NOT_TEXT.value: 2,
        SkipReason.NOT_AN_OBJECT.value: 1,
        SkipReason.NOT_JSON.value: 2,
    }
    assert report.size_bytes == path.stat().st_size
    assert read_examples(DataSource(path, DataFormat.PROMPT)) == [question("wake me", "alarm")]


def test_fields_can_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, '{"text": "wake me", "scenario": "alarm"}\n')
    source = DataSource(path, DataFormat.PROMPT, Columns(prompt="text", completion="scenario"))
    assert read_examples(source) == [question("wake me", "alarm")]


def test_conversations(tmp_path: Path) -> None:
    def row(*turns: object) -> str:
        return json.dumps({"messages": list(turns)}) + "\n"

    user, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    path = write(
        tmp_path,
        row({"role": "system", "content": ""}, user, answer)
        + row(user)
        + row()
        + row({"role": "wizard", "content": "x"}, answer)
        + row({"role": ["user"], "content": "x"}, answer)
        + row(user, {"role": "assistant", "content": " "})
        + row({"role": "user", "content": [{"type": "image"}]}, answer)
        + row(user, "assistant: hello")
        + '{"messages": "hello"}\n{"message": []}\n',
    )
    report = scan(path, DataFormat.CHAT)
    assert report.rows == 1
    assert report.skipped == {
        SkipReason.NO_ANSWER.value: 1,
        SkipReason.NOT_MESSAGES.value: 3,
        SkipReason.UNKNOWN_ROLE.value: 2,
        SkipReason.EMPTY.value: 1,
        SkipReason.NOT_TEXT.value: 1,
        SkipReason.MISSING_FIELD.value: 1,
    }
    (example,) = read_examples(DataSource(path, DataFormat.CHAT))
    assert example == Conversation((Message("system", ""), Message("user", "hi"), Message("assistant", "hello")))


def test_plain_text_in_blocks(tmp_path: Path) -> None:
    long_line = "word " * 1000
    path = write(tmp_path, f"one\ntwo\n\n\n  \nthree\n\n{long_line}\n" + "x" * 5000)
    passages = read_examples(DataSource(path, DataFormat.TEXT))
    assert passages[:2] == [Passage("one\ntwo"), Passage("three")]
    texts = [passage.text for passage in passages if isinstance(passage, Passage)]
    assert all(len(text) <= MAX_PASSAGE_CHARACTERS for text in texts)
    words = " ".join(text for text in texts[2:] if "word" in text).split()
    assert words.count("word") == 1000
    assert sum(text.count("x") for text in texts) == 5000


def test_csv_by_column_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'id,says,means\n1,"wake me, at five",alarm\n2,"two\nlines",alarm\n3,only\n\n'
        '4,,alarm\n5,"bad" quote,x\n6,play jazz,music\n',
    )
    columns = Columns(prompt="says", completion="means")
    source = DataSource(path, DataFormat.CSV, columns)
    assert read_examples(source) == [
        question("wake me, at five", "alarm"),
        question("two\nlines", "alarm"),
        question("play jazz", "music"),
    ]
    assert scan(path, DataFormat.CSV, columns).skipped == {
        SkipReason.COLUMN_COUNT.value: 1,
        SkipReason.EMPTY.value: 1,
        SkipReason.BAD_CSV.value: 1,
    }
    assert read_examples(DataSource(path, DataFormat.CSV, Columns(text="means"))) == [
        Passage(text) for text in ("alarm", "alarm", "alarm", "music")
    ]


def test_a_quote_that_never_closes_spoils_a_bounded_piece(tmp_path: Path) -> None:
    """Such a record would swallow the file; the reader gives up on it and goes on after it."""
    path = write(tmp_path, 'says,means\na,b\n"open' + "\nfiller,row" * 200_000 + '"\nc,d\n')
    report = scan(path, DataFormat.CSV, Columns(prompt="says", completion="means"))
    assert report.skipped[SkipReason.BAD_CSV.value] >= 1
    examples = read_examples(DataSource(path, DataFormat.CSV, Columns(prompt="says", completion="means")))
    assert examples[0] == question("a", "b")


def test_long_and_undecodable_lines_are_counted_in_csv_too(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"says,means\n" + b"x" * (2 << 20) + b",y\n\xff\xfe,z\nc,d\n")
    report = scan(path, DataFormat.CSV, Columns(prompt="says", completion="means"))
    assert report.rows == 1
    assert report.skipped == {SkipReason.LINE_TOO_LONG.value: 1, SkipReason.NOT_UTF8.value: 1}


def test_absent_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "id,says\n1,hi\n")
    with pytest.raises(DataError, match=r"no column 'prompt'; the header has id, says"):
        scan(path, DataFormat.CSV)
    with pytest.raises(DataError, match="empty"):
        scan(write(tmp_path, ""), DataFormat.CSV)


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a", "completion": "b"}\n' * 10)
    assert len(read_examples(DataSource(path, DataFormat.PROMPT), limit=3)) == 3
