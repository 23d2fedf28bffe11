"""The join token: one word, one spelling, and a clear sentence for everything else."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.host.tokens import MAX_ROOT_BYTES, MAX_TOKEN_CHARACTERS, PREFIX, JoinToken
from nightshift.protocol.errors import TokenError, UsageError
from tests.support.authority import Authority, der

TOKEN = JoinToken(der(Authority.make().root), "home.example:7444", "[2001:db8::1]:7443", os.urandom(32))
TEXT = TOKEN.encode()


def wrapped(body: bytes) -> str:
    """A token around any body, with a right check value."""
    check = hashlib.sha256(body).digest()[:4]
    return PREFIX + base64.urlsafe_b64encode(body + check).decode().rstrip("=")


def field(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def test_a_token_comes_back_as_it_went() -> None:
    assert JoinToken.decode(TEXT) == TOKEN
    assert TEXT.startswith("nightshift1")
    assert TEXT.isascii()
    assert " " not in TEXT
    assert "=" not in TEXT
    assert len(TEXT) < MAX_TOKEN_CHARACTERS


def test_the_layout_is_what_the_module_says() -> None:
    body = field(TOKEN.root_der) + field(b"home.example:7444") + field(b"[2001:db8::1]:7443") + field(TOKEN.secret)
    assert wrapped(body) == TEXT


def test_a_paste_with_line_breaks_is_read() -> None:
    folded = "  " + "\n".join(TEXT[start : start + 40] for start in range(0, len(TEXT), 40)) + "\n"
    assert JoinToken.decode(folded) == TOKEN


def test_the_secret_is_not_shown() -> None:
    shown = repr(TOKEN) + str(TOKEN)
    assert TOKEN.secret.hex() not in shown
    assert repr(TOKEN.secret) not in shown
    assert "home.example:7444" in shown


@pytest.mark.parametrize(
    ("text", "match"),
    [
        pytest.param("", "it should begin with 'nightshift1'", id="empty"),
        pytest.param("hello", "it should begin with", id="a word"),
        pytest.param("nightshift2" + TEXT[11:], "it should begin with", id="a later version"),
        pytest.param("Nightshift1" + TEXT[11:], "it should begin with", id="capital"),
        pytest.param(TEXT[11:], "it should begin with", id="without the prefix"),
        pytest.param(PREFIX, "incomplete or altered", id="the prefix alone"),
        pytest.param(TEXT[:-1], "incomplete or altered", id="one letter short"),
        pytest.param(TEXT[: len(TEXT) // 2], "incomplete or altered", id="half"),
        pytest.param(TEXT + "A", "incomplete or altered", id="one letter long"),
        pytest.param(TEXT + TEXT, "incomplete or altered", id="twice"),
        pytest.param(TEXT + "=", "incomplete or altered", id="padded"),
        pytest.param(TEXT[:50] + "ä" + TEXT[51:], "incomplete or altered", id="not ASCII"),
        pytest.param(PREFIX + "A" * MAX_TOKEN_CHARACTERS, "it should begin with", id="too long"),
        pytest.param("nightshift1" * 100_000, "it should begin with", id="a megabyte"),
    ],
)
def test_what_is_no_token_is_refused_with_a_sentence(text: str, match: str) -> None:
    with pytest.raises(TokenError, match=match):
        JoinToken.decode(text)


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii", categories=["L", "N", "P", "S"]))
def test_any_altered_letter_is_refused(place: int, letter: str) -> None:
    altered = TEXT[:place] + letter + TEXT[place + 1 :]
    if altered != TEXT:
        with pytest.raises(TokenError):
            JoinToken.decode(altered)


@given(st.integers(0, len(TEXT) - 1))
def test_any_cut_is_refused(length: int) -> None:
    with pytest.raises(TokenError):
        JoinToken.decode(TEXT[:length])


def test_every_other_last_letter_is_refused() -> None:
    """base64 leaves bits of the last letter unused: such twins must not be tokens too."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/"
    for secret_length_makes in range(3):
        token = JoinToken(bytes(secret_length_makes), "a:1", "b:2", TOKEN.secret)
        text = token.encode()
        accepted = []
        for letter in alphabet:
            try:
                JoinToken.decode(text[:-1] + letter)
            except TokenError:
                continue
            accepted.append(letter)
        assert accepted == [text[-1]]


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        JoinToken.decode(text)


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.binary(max_size=40), max_size=6).map(lambda p: b"".join(map(field, p)))
    )
)
def test_any_body_with_a_right_check_is_a_token_or_refused(body: bytes) -> None:
    try:
        token = JoinToken.decode(wrapped(body))
    except TokenError:
        return
    assert token.encode() == wrapped(body)


labels = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z")
addresses = st.builds(
    lambda host, port: f"{host}:{port}",
    st.one_of(
        labels,
        st.lists(labels, min_size=1, max_size=3).map(".".join),
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    ),
    st.integers(1, 65535),
)


@given(st.binary(max_size=1000), addresses, addresses, st.binary(min_size=32, max_size=32))
def test_every_token_comes_back(root: bytes, join: str, device: str, secret: bytes) -> None:
    token = JoinToken(root, join, device, secret)
    assert JoinToken.decode(token.encode()) == token


NOT_ADDRESSES = [
    "",
    "host",
    "host:",
    ":7443",
    "host:0",
    "host:077",
    "host:123456",
    "host:https",
    "a b:1",
    "host:1\n",
    "unix:/run/x:1",
    "unix:7443",
    "dns:7443",
    "unix:1/x",
    "dns:///evil:1",
    "http://host:1",
    "bücher.example:1",
    "host:1,other:2",
    "\x1b[2J:1",
    "-x:1",
]


@pytest.mark.parametrize("address", NOT_ADDRESSES)
def test_an_address_that_is_not_host_and_port(address: str) -> None:
    good = "home.example:7443"
    for join, device in ((address, good), (good, address)):
        with pytest.raises(UsageError, match="expected host:port"):
            JoinToken(TOKEN.root_der, join, device, TOKEN.secret).encode()
        body = field(TOKEN.root_der) + field(join.encode()) + field(device.encode()) + field(TOKEN.secret)
        with pytest.raises(TokenError):
            JoinToken.decode(wrapped(body))


def test_a_token_that_could_not_be_read_is_not_made() -> None:
    for length in (0, 31, 33):
        with pytest.raises(UsageError, match="secret"):
            JoinToken(TOKEN.root_der, "a:1", "b:2", bytes(length)).encode()
        with pytest.raises(TokenError):
            JoinToken.decode(wrapped(field(b"root") + field(b"a:1") + field(b"b:2") + field(bytes(length))))
    with pytest.raises(UsageError, match="root certificate"):
        JoinToken(bytes(MAX_ROOT_BYTES + 1), "a:1", "b:2", TOKEN.secret).encode()
    largest = JoinToken(bytes(MAX_ROOT_BYTES), "a:1", "b:2", TOKEN.secret)
    assert JoinToken.decode(largest.encode()) == largest
