"""ReadLog: whoever is enrolled may read the whole log, in pieces; nothing beyond its end is promised."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.service.device import LOG_ENTRIES_AT_ONCE
from coordinator.storage.rows import LogEntryRow
from nightshift.host.rpc import from_rpc_error
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.log_reading import LogReading
from nightshift.v1 import device_pb2, log_pb2
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]


def read(device: ScriptedDevice, first: int, end: int) -> list[list[bytes]]:
    """The pieces as they come."""
    request = device_pb2.ReadLogRequest(first=first, end=end)
    try:
        return [list(reply.entries) for reply in device.stub.ReadLog(request, timeout=10)]
    except grpc.RpcError as error:
        raise from_rpc_error(error, device.token.device_address) from error


def test_what_is_read_hashes_to_the_head_that_was_signed(served: Deployment, join: Join) -> None:
    device = join()
    with served.database.transaction() as session:
        # More than one piece; kinds of a later version are entries like others.
        for number in range(LOG_ENTRIES_AT_ONCE + 10):
            served.log.append(
                session,
                log_pb2.LOG_ENTRY_KIND_UNSPECIFIED,
                time_unix_s=number,
                subject=bytes(32),
                digest=number.to_bytes(32, "big"),
            )
    head = device.check_in().view.head
    pieces = read(device, 0, head.size)
    assert [len(piece) for piece in pieces] == [LOG_ENTRIES_AT_ONCE, head.size - LOG_ENTRIES_AT_ONCE]
    reading = LogReading()
    for entry in (entry for piece in pieces for entry in piece):
        reading.append(entry)
    assert (reading.tree.size, reading.tree.root()) == (head.size, head.root)
    with served.database.reading() as session:
        rows = session.scalars(select(LogEntryRow.entry).order_by(LogEntryRow.position)).all()
    assert [entry for piece in pieces for entry in piece] == list(rows)


def test_a_part_of_it_and_nothing(join: Join) -> None:
    device = join()
    size = device.check_in().view.head.size
    whole = [entry for piece in read(device, 0, size) for entry in piece]
    assert read(device, size - 1, size) == [whole[-1:]]
    assert read(device, size, size) == []


@pytest.mark.parametrize(("first", "beyond"), [(0, 1), (1, -(10**6)), (0, 2**62)])
def test_what_is_not_there_is_refused(join: Join, first: int, beyond: int) -> None:
    device = join()
    size = device.check_in().view.head.size
    with pytest.raises(MalformedError, match=f"the log has {size} entries"):
        read(device, first, max(size + beyond, 0))
