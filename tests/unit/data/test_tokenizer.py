from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.data.errors import DataError
from edge_client.data.prepare import package_tokenizer
from edge_client.data.tokenizer import Tokenizer
from nightshift.packages.package import ModelPackage


@pytest.fixture(scope="module")
def tokenizer(stories: ModelPackage) -> Tokenizer:
    return package_tokenizer(stories)


def test_no_special_token_is_added(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Once upon a time")
    assert tokenizer.bos not in tokens
    assert tokenizer.eos not in tokens
    assert (tokenizer.prefix, tokenizer.suffix) == ([1], [2])
    assert tokenizer.decode(tokens) == "Once upon a time"
    assert tokenizer.decode([1, *tokens, 2]) == "Once upon a time"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40) | st.sampled_from(["zwölf Äpfel", "日本語 ok", "🙂🙂 x", "a  b\n\nc"]))
def test_the_stream_joined_is_the_whole(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert "".join(tokenizer.decode_stream(tokens)) == tokenizer.decode(tokens)


def test_a_character_of_several_tokens_comes_out_whole(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a 🙂 b")
    assert len(tokens) > len("a 🙂 b")  # the face has no token of its own in this vocabulary
    pieces = list(tokenizer.decode_stream(tokens))
    assert any("🙂" in piece for piece in pieces)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_torn_character_at_the_end_is_shown_as_torn(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a 🙂")[:-1]
    assert "".join(tokenizer.decode_stream(tokens)) == tokenizer.decode(tokens)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(DataError, match="not a tokenizer"):
        Tokenizer(path, bos=1, eos=2, add_bos=True)
