"""Device ids as people read them out and compare them.

Base32 (RFC 4648) of the 32 bytes, 52 letters in four blocks of 13, each with a
check letter behind it (Luhn modulo 32), shown in eight groups of seven. This is
the form of Syncthing's device ids. A wrong letter, or two neighbours in the wrong
order, is noticed in its block; `0`, `1` and `8` do not occur and are read as
what they look like.
"""

from __future__ import annotations

import base64

from nightshift.protocol.errors import UsageError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LOOKS_LIKE = str.maketrans({"0": "O", "1": "I", "8": "B", "-": None, " ": None})
_BLOCK, _GROUP = 13, 7
_CHARACTERS = 4 * (_BLOCK + 1)
LEAST_DIGITS = 4
"""Of the beginning of an id that stands for it in a command: an empty variable of a script names nobody."""


def readable_id(identifier: bytes) -> str:
    """A 32-byte id as eight groups: `P56IOI7-MZJNU2Y-...`."""
    letters = base64.b32encode(identifier).decode("ascii").rstrip("=")
    blocks = [letters[start : start + _BLOCK] for start in range(0, len(letters), _BLOCK)]
    checked = "".join(block + check_letter(block) for block in blocks)
    return "-".join(checked[start : start + _GROUP] for start in range(0, len(checked), _GROUP))


def parse_readable_id(text: str) -> DeviceId:
    """The id that a person typed, in either case, with or without hyphens.

    Raises:
        UsageError: another length, another letter, or a check letter that says that something was mistyped.
    """
    letters = normalised(text)
    if len(letters) != _CHARACTERS or any(letter not in _ALPHABET for letter in letters):
        raise UsageError(f"a device id has {_CHARACTERS} letters and digits in groups of {_GROUP}, got {text!r}")
    blocks = [letters[start : start + _BLOCK + 1] for start in range(0, _CHARACTERS, _BLOCK + 1)]
    for number, block in enumerate(blocks, start=1):
        if check_letter(block[:-1]) != block[-1]:
            raise UsageError(f"the device id is mistyped: look at groups {2 * number - 1} and {2 * number} again")
    padded = "".join(block[:-1] for block in blocks) + "===="
    identifier = DeviceId(base64.b32decode(padded))
    if readable_id(identifier).replace("-", "") != letters:
        # Base32 has four bits to spare in the last letter; only one spelling of an id is right.
        raise UsageError("the device id is mistyped: look at groups 7 and 8 again")
    assert len(identifier) == DEVICE_ID_BYTES
    return identifier


def parse_device_id(text: str) -> DeviceId:
    """The id that a person wrote: 64 hexadecimal digits, or the form with check letters.

    Raises:
        UsageError: neither.
    """
    if len(text) == 2 * DEVICE_ID_BYTES:
        try:
            return DeviceId(bytes.fromhex(text))
        except ValueError as error:
            raise UsageError(f"a device id in hex has 64 digits 0-9 and a-f, got {text!r}") from error
    return parse_readable_id(text)


def normalised(text: str) -> str:
    """Letters as they are compared: upper case, no hyphens, look-alikes replaced."""
    return text.upper().translate(_LOOKS_LIKE)


def check_letter(block: str) -> str:
    """Luhn's algorithm modulo 32, with factors 1 and 2 in turn from the left."""
    total = 0
    for place, letter in enumerate(block):
        product = _ALPHABET.index(letter) * (1 + place % 2)
        total += product // 32 + product % 32
    return _ALPHABET[-total % 32]
