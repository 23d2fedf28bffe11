from __future__ import annotations

from nightshift.protocol.errors import ExitCode, NightshiftError, by_reason
from nightshift.protocol.secagg import errors


def leaves(root: type[NightshiftError]) -> list[type[NightshiftError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in leaves(child))]


def test_every_reason_of_this_room_is_in_the_table_once() -> None:
    mine = [error for error in leaves(NightshiftError) if error.__module__ == errors.__name__]
    assert len(mine) == 7
    assert len({error.reason for error in mine}) == 7
    for error in mine:
        assert by_reason()[error.reason] is error
        assert error.exit_code is ExitCode.VERIFICATION_FAILED
        assert error.__name__ in (errors.__doc__ or "")
