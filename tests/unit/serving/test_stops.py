"""A text that grows piece by piece ends exactly where the whole text would have been cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_client.serving.stops import StopScanner

LETTERS = st.text(alphabet="ab\n", max_size=30)


def cut(text: str, stops: list[str]) -> str:
    starts = [text.find(stop) for stop in stops if stop in text]
    return text[: min(starts)] if starts else text


@given(st.lists(LETTERS, max_size=12), st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=4))
def test_pieces_joined_are_the_text_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    scanner = StopScanner(stops)
    shown = "".join(scanner.push(piece) for piece in pieces) + scanner.flush()
    whole = "".join(pieces)
    if not scanner.found:
        assert shown == whole
        assert not any(stop in whole for stop in stops)
    else:
        # A piece may end between two stop texts that overlap: the one that is complete first counts.
        ends = min(whole.find(stop) + len(stop) for stop in stops if stop in whole)
        assert any(shown == cut(whole[:end], stops) for end in range(ends, len(whole) + 1))
        assert not any(stop in shown for stop in stops)


def test_only_what_could_begin_a_stop_is_held_back() -> None:
    scanner = StopScanner(["</end>"])
    assert scanner.push("done") == "done"
    assert scanner.push(" <") == " "
    assert scanner.push("/e") == ""
    assert scanner.push("m>") == "</em>"
    assert scanner.push("</end> more") == ""
    assert scanner.found
    assert scanner.push("anything") == ""
    assert scanner.flush() == ""


def test_without_stops_everything_passes_at_once() -> None:
    scanner = StopScanner([])
    assert scanner.push("text") == "text"
    assert scanner.flush() == ""
