"""Any honest history is read to its end; saying again what is said once never is."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.log import make_entry
from nightshift.protocol.log_reading import LogReading
from nightshift.protocol.merkle import MerkleTree
from nightshift.v1 import log_pb2

ENROL, REVOKE = log_pb2.LOG_ENTRY_KIND_ENROLMENT, log_pb2.LOG_ENTRY_KIND_REVOCATION
POOL, PLAN = log_pb2.LOG_ENTRY_KIND_POOL, log_pb2.LOG_ENTRY_KIND_PLAN
SET, VOID = log_pb2.LOG_ENTRY_KIND_SET, log_pb2.LOG_ENTRY_KIND_VOID
ONCE = frozenset({POOL, PLAN, SET, VOID, REVOKE})

Entry = tuple[int, bytes, bytes]


def name(*parts: object) -> bytes:
    """32 bytes under a name."""
    return hashlib.sha256(repr(parts).encode()).digest()


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Devices come, renew and go, cohorts open and end, in any order that a coordinator could mean."""
    entries: list[Entry] = []
    active: list[bytes] = []
    open_: list[tuple[bytes, bytes, bool]] = []
    for step in range(draw(st.integers(0, 30))):
        what = draw(st.sampled_from(["join", "renew", "revoke", "open", "freeze", "void"]))
        if what == "join":
            active.append(name("device", step))
            entries.append((ENROL, active[-1], name("certificate", step)))
        elif what in {"renew", "revoke"} and active:
            device = draw(st.sampled_from(active))
            if what == "renew":
                entries.append((ENROL, device, name("certificate", step)))
            else:
                active.remove(device)
                entries.append((REVOKE, device, device))
        elif what == "open":
            cohort, plan = name("cohort", step), name("plan", step)
            entries += [(POOL, cohort, name("pool", step)), (PLAN, cohort, plan)]
            open_.append((cohort, plan, False))
        elif what in {"freeze", "void"} and open_:
            cohort, plan, frozen = open_.pop(draw(st.integers(0, len(open_) - 1)))
            if what == "void":
                entries.append((VOID, cohort, plan))
            elif not frozen:
                entries.append((SET, cohort, name("set", step)))
                open_.append((cohort, plan, True))
    return entries


def written(entries: list[Entry]) -> list[bytes]:
    """As they stand in the log."""
    return [make_entry(kind, time_unix_s=1, subject=subject, digest=digest) for kind, subject, digest in entries]  # type: ignore[arg-type]  # a kind by its number


@given(histories())
def test_an_honest_history_is_read_to_its_end(entries: list[Entry]) -> None:
    reading, tree = LogReading(), MerkleTree()
    for entry in written(entries):
        reading.append(entry)
        tree.append(entry)
    assert (reading.tree.size, reading.tree.root()) == (len(entries), tree.root())


@given(histories(), st.data())
def test_what_is_said_once_cannot_be_said_again(entries: list[Entry], data: st.DataObject) -> None:
    once = [entry for entry in entries if entry[0] in ONCE]
    assume(once)
    kind, subject, digest = data.draw(st.sampled_from(once))
    changed = data.draw(st.sampled_from([digest, name("another")]))
    reading = LogReading()
    *history, again = written([*entries, (kind, subject, changed)])
    for entry in history:
        reading.append(entry)
    with pytest.raises(NightshiftError) as caught:
        reading.append(again)
    assert caught.value.exit_code == 14
    # What was refused has left no trace: the reading stands where it stood.
    assert reading.tree.size == len(entries)
