"""Log heads that people compare: two devices that were shown two histories find out as soon as they do.

A head is written in one of two forms. The signed note (`signed_note`) is what one sends: it is proof, for the
coordinator signed it. The short form is what one reads aloud or types::

    1234-ABCDEFQ-GHIJKLZ-MNOPQRX-STUVWXK-YZ2345B

the log's size, and 30 letters of base32 (RFC 4648) of a hash of the checkpoint in five groups, each with a
check letter. They are 150 bits, not 80: who makes both histories may look for two that look alike, which takes
the square root of what a hash takes to be met by chance.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.errors import LogInconsistentError, UsageError
from nightshift.protocol.log import LogHead, checkpoint_body, parse_checkpoint_body
from nightshift.protocol.readable_ids import check_letter, normalised
from nightshift.protocol.signed_note import parse, verify
from nightshift.protocol.trust import Trust

_LETTERS, _GROUP = 30, 6
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class OtherHead:
    """A head that somebody else saw.

    Attributes:
        size: of the log at the time.
        letters: of the short form, without check letters.
        signed: whether it came with the coordinator's signature.
    """

    size: int
    letters: str
    signed: bool


def short_head(head: LogHead, origin: str) -> str:
    """A head as people read it aloud."""
    letters = _letters(head, origin)
    groups = [letters[start : start + _GROUP] for start in range(0, _LETTERS, _GROUP)]
    return "-".join([str(head.size), *(group + check_letter(group) for group in groups)])


def read_head(text: str, trust: Trust) -> OtherHead:
    """A head that another device showed, in either form.

    Args:
        text: of a file or of the command line.
        trust: of this device; heads of other logs cannot be compared.

    Raises:
        UsageError: neither form, or mistyped.
        MalformedError: a note that is none.
        SignatureInvalidError: a note that this device's coordinator did not sign.
        LogInconsistentError: of another log.
    """
    if "\n" in text.strip():
        note = parse(text.encode())
        verify(note, name=trust.log_origin, public_key=trust.signing_key)
        head = parse_checkpoint_body(note.text, trust.log_origin)
        return OtherHead(head.size, _letters(head, trust.log_origin), signed=True)
    return _read_short(text.strip())


def require_same(other: OtherHead, mine: LogHead, origin: str) -> None:
    """Compare another's head with what this device's log was at the same size.

    Raises:
        LogInconsistentError: they differ: the coordinator showed two histories.
    """
    if other.size != mine.size or other.letters != _letters(mine, origin):
        proof = "" if not other.signed else "; keep that note: with the coordinator's signature it proves it"
        raise LogInconsistentError(
            f"the log forked: at size {mine.size} this device was shown {short_head(mine, origin)}, the other one "
            f"something else{proof}. Use nothing more of this coordinator, and tell the other devices' owners"
        )


def _letters(head: LogHead, origin: str) -> str:
    hashed = digest(Domain.LOG_HEAD, checkpoint_body(origin, head.size, head.root))
    return base64.b32encode(hashed).decode("ascii")[:_LETTERS]


def _read_short(text: str) -> OtherHead:
    size, hyphen, rest = text.partition("-")
    letters = normalised(rest)
    wanted = _LETTERS + _LETTERS // _GROUP
    if (
        not hyphen
        or not size.isascii()
        or not size.isdigit()
        or len(size) > _MOST_DIGITS
        or len(letters) != wanted
        or not _ALPHABET.issuperset(letters)
    ):
        raise UsageError(
            "a log head is a signed note, or a number and five groups of seven letters as `edge-client log head` "
            f"shows them; got {text[:80]!r}"
        )
    groups = [letters[start : start + _GROUP + 1] for start in range(0, wanted, _GROUP + 1)]
    for number, group in enumerate(groups, start=1):
        if check_letter(group[:-1]) != group[-1]:
            raise UsageError(f"the log head is mistyped: look at group {number} of its letters again")
    return OtherHead(int(size), "".join(group[:-1] for group in groups), signed=False)
