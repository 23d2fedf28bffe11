"""Who may ask."""

from __future__ import annotations

import pytest

from edge_client.serving.access import Gate, check_listening, is_loopback
from edge_client.serving.errors import AccessError
from nightshift.protocol.errors import UsageError

KEY = "correct-horse-battery"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    check_listening(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", ""])
def test_anything_else_needs_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="API key"):
        check_listening(host, None)
    check_listening(host, KEY)


@pytest.mark.parametrize("key", ["", "short", "schlüssel-mit-umlaut", "with\nline-break"])
def test_keys_that_protect_nothing_or_cannot_be_sent(key: str) -> None:
    with pytest.raises(UsageError, match="at least 8 characters"):
        check_listening("127.0.0.1", key)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Bearer wrong", "invalid_api_key"),
        (f"Bearer {KEY}x", "invalid_api_key"),
        (f"Bearer {KEY[:-1]}", "invalid_api_key"),
        ("Bearer \udcff", "invalid_api_key"),
    ],
)
def test_wrong_keys(authorization: str | None, code: str) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    with pytest.raises(AccessError) as refusal:
        Gate(KEY, "0.0.0.0").check(headers)
    assert (refusal.value.status, refusal.value.code) == (401, code)
    assert KEY not in refusal.value.message


def test_the_right_key_from_any_host() -> None:
    Gate(KEY, "0.0.0.0").check({"authorization": f"bearer {KEY}", "host": "box.example:11435"})


@pytest.mark.parametrize("host", ["127.0.0.1:11435", "localhost", "localhost:1", "[::1]:11435"])
def test_without_a_key_programs_of_this_machine_pass(host: str) -> None:
    Gate(None, "127.0.0.1").check({"host": host})
    Gate(None, "127.0.0.1").check({"host": host, "origin": "http://localhost:3000"})


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example:11435"}, "host"),
        ({"host": "127.0.0.1.evil.example"}, "host"),
        ({}, "host"),
        ({"host": "127.0.0.1", "origin": "https://evil.example"}, "origin"),
        ({"host": "127.0.0.1", "origin": "null"}, "origin"),
        ({"host": "[::1"}, "host"),
        ({"host": "127.0.0.1", "origin": "http://[oops"}, "origin"),
    ],
)
def test_pages_of_a_browser_do_not(headers: dict[str, str], code: str) -> None:
    with pytest.raises(AccessError) as refusal:
        Gate(None, "127.0.0.1").check(headers)
    assert (refusal.value.status, refusal.value.code) == (403, code)
