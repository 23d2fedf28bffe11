"""What a refused lie must look like on a device, and what it must leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scripts.night.fleet import Device
from tests.support.fleets import query, status

NOT_NOW, UNVERIFIED = 4, 14


@dataclass(frozen=True)
class Standing:
    """What a refused lie must not change."""

    adapters: list[str]
    sent: int
    contributions: list[str]
    waiting: list[str]

    @classmethod
    def of(cls, device: Device) -> Standing:
        """As the device's store and directories have it now."""
        store = device.home / "store.sqlite3"
        given = query(store, "SELECT kind FROM ledger WHERE kind IN ('contribution', 'answer')")
        contributions = query(store, "SELECT cohort_id FROM contributions ORDER BY cohort_id")
        return cls(
            adapters=status(device)["adapters_in_use"],
            sent=len(given),
            contributions=[row["cohort_id"].hex() for row in contributions],
            waiting=sorted(path.name for path in (device.home / "uploads").iterdir()),
        )


def refused(device: Device, code: int, *, kind: str, because: str) -> None:
    """Run a pass that must end in a refusal and change nothing but the evidence."""
    before, evidence = Standing.of(device), security_events(device)
    done = device.run(expect=code)
    assert because in done.stderr, done.stderr
    problems: list[dict[str, Any]] = done.json["problems"]
    assert [problem["reason"] for problem in problems] == [kind], problems
    assert Standing.of(device) == before
    new = security_events(device)[len(evidence) :]
    assert [event["kind"] for event in new] == ([kind] if code == UNVERIFIED else [])


def security_events(device: Device) -> list[dict[str, str]]:
    """What `edge-client status` shows as things that the coordinator may not do, oldest first."""
    events: list[dict[str, str]] = status(device)["security_events"]
    return events


def would_contribute(device: Device) -> None:
    """The honest control: the same device, asked honestly, would carry the open plan out."""
    would = device.command("run", "--now", "--dry-run", "--json").json["would"]
    assert any("would train 2 steps" in line for line in would), would
