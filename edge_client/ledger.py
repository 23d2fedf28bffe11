"""Everything that ever left this device, in plain words.

A line says what went, to whom, how large, and what the other side can learn
from it: who could open it, how many devices it is hidden among, and the hash of the
bytes. Contributions and answers are entered in the transaction that allows
their first byte to leave: a line too many, after a power cut in that moment, is
better than one that is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_client.store import Store
from edge_client.store.contributions import StoredContribution
from edge_client.store.records import LedgerEntry
from nightshift.host.wording import enumerated, number_of
from nightshift.protocol.errors import UsageError

if TYPE_CHECKING:
    from nightshift.protocol.plan import PlanDocument
    from nightshift.v1 import device_pb2

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def readable_time(unix_s: int) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def readable_size(size_bytes: int) -> str:
    """A size for people: "212 kB"."""
    for limit, unit, divisor in ((1_000, "B", 1), (1_000_000, "kB", 1_000), (10**9, "MB", 10**6)):
        if size_bytes < limit:
            return f"{size_bytes / divisor:.0f} {unit}"
    return f"{size_bytes / 10**9:.1f} GB"


def parse_since(text: str, now_unix_s: int) -> int:
    """`24h`, `7d`, or an RFC 3339 date or time, as Unix seconds.

    Raises:
        UsageError: neither.
    """
    if text[:-1].isdigit() and text[-1:] in _UNITS:
        return now_unix_s - int(text[:-1]) * _UNITS[text[-1]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--since {text!r} is neither a span such as 24h or 7d nor a date such as 2026-01-31"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def joined(store: Store, *, now_unix_s: int, recipient: str, size_bytes: int, device_name: str) -> None:
    """The signing request went out."""
    shown = f"its name {device_name!r}" if device_name else "no name"
    sentence = f"joined: sent this device's public key and {shown}; the private key stayed here"
    store.records.add_ledger(LedgerEntry(now_unix_s, "join", size_bytes, recipient, sentence, {}))


def checked_in(
    store: Store,
    *,
    now_unix_s: int,
    recipient: str,
    size_bytes: int,
    prekeys: int,
    hours: device_pb2.NightHours | None = None,
) -> None:
    """A check-in went out."""
    sent = ["the program's version", "the size of the log seen last", "how many rank slots this machine trains at most"]
    sent += [number_of(prekeys, "new one-time public key")] if prekeys else []
    told = f"; it may be called back for {hours.length_h} h from {hours.begin_hour_utc:02}:00 UTC" if hours else ""
    sentence = f"checked in: sent {enumerated(sent)}{told}; no text, no results"
    store.records.add_ledger(LedgerEntry(now_unix_s, "check-in", size_bytes, recipient, sentence, {"prekeys": prekeys}))


def renewed(store: Store, *, now_unix_s: int, recipient: str, size_bytes: int) -> None:
    """A request for the next certificate went out."""
    sentence = "asked for this device's next certificate: sent its public key again; the private key stayed here"
    store.records.add_ledger(LedgerEntry(now_unix_s, "renewal", size_bytes, recipient, sentence, {}))


def contributed(store: Store, contribution: StoredContribution, *, now_unix_s: int, recipient: str) -> None:
    """An encrypted contribution is about to leave."""
    from nightshift.protocol.readable_ids import readable_id

    members = [hashlib.sha256(key).digest() for key in contribution.committee_keys]
    needed = answers_needed(len(members))
    parent = store.adapters.find_release(contribution.parent_release)
    since = f", trained from release {parent[1]}" if parent else ""
    sentence = (
        f"sent what this device learned for task {contribution.task!r}, round {contribution.round}{since}, encrypted: "
        f"it can only be opened as part of a sum over at least {contribution.n_min} devices, and only by {needed} of "
        f"the {len(members)} committee members together; no text was sent"
    )
    details = {
        "task": contribution.task,
        "round": contribution.round,
        "parent_release": parent[1] if parent else None,
        "cohort": contribution.cohort_id.hex(),
        "plan_hash": contribution.plan_hash.hex(),
        "sha256": contribution.body_sha256.hex(),
        "minimum_contributors": contribution.n_min,
        "committee": [readable_id(member) for member in members],
        "answers_needed": needed,
    }
    store.records.add_ledger(
        LedgerEntry(now_unix_s, "contribution", contribution.body_size_bytes, recipient, sentence, details)
    )


def answers_needed(members: int) -> int:
    """How many members of a committee of this size must answer before a sum opens (T)."""
    from nightshift.protocol.secagg.parameters import MIN_VALUE_BITS, CohortParameters

    # T follows from the committee's size alone; the other two numbers are any that fit.
    return CohortParameters.derive(n_max=members, value_bits=MIN_VALUE_BITS, committee_size=members).threshold


def answered(
    store: Store, plan: PlanDocument, *, contributors: int, message: bytes, now_unix_s: int, recipient: str
) -> None:
    """The answer of a committee member is about to leave."""
    sentence = (
        f"served as one of {len(plan.committee)} committee members for task {plan.task!r}, round {plan.round_number}: "
        f"sent the sum of the key shares that {contributors} devices had sealed to this one; it helps to open the sum "
        "of their contributions and nothing else"
    )
    details = {
        "task": plan.task,
        "round": plan.round_number,
        "cohort": plan.cohort_id.hex(),
        "contributors": contributors,
        "committee_size": len(plan.committee),
        "answers_needed": plan.parameters.threshold,
        "sha256": hashlib.sha256(message).hexdigest(),
    }
    store.records.add_ledger(LedgerEntry(now_unix_s, "answer", len(message), recipient, sentence, details))


def erased(store: Store, *, cohort_id: bytes, size_bytes: int, now_unix_s: int, recipient: str) -> None:
    """A committee member's erasure statement is about to leave."""
    sentence = (
        "served as committee member of a cohort that ended without a sum: sent a signed statement that this device "
        "never answered it and erased its key, so that the devices in it may contribute again; no shares were sent"
    )
    store.records.add_ledger(
        LedgerEntry(now_unix_s, "erasure", size_bytes, recipient, sentence, {"cohort": cohort_id.hex()})
    )


def refused(
    store: Store,
    *,
    cohort_id: bytes,
    contributors: Sequence[bytes],
    size_bytes: int,
    now_unix_s: int,
    recipient: str,
) -> None:
    """A committee member's refusal is about to leave."""
    sentence = (
        f"served as committee member: sent no answer but a signed report that the key shares of "
        f"{number_of(len(contributors), 'device')} could not be opened; it names them and holds no shares"
    )
    details = {"cohort": cohort_id.hex(), "contributors": [device.hex() for device in contributors]}
    store.records.add_ledger(LedgerEntry(now_unix_s, "refusal", size_bytes, recipient, sentence, details))
