"""A night of six real devices that train 4, 8 and 16 rank slots of one adapter: cohorts of their own, one release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nightshift.protocol.adapters import Side, Tensors
from nightshift.protocol.adapters.formats import from_safetensors
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.release import ReleaseDocument
from scripts.night.fleet import Device
from tests.support.fleets import TASK as USUAL_TASK
from tests.support.fleets import Fleet, Snapshots, device_id, encoded, query, status, task_toml

pytestmark = pytest.mark.slow

FleetFrom = Callable[[Path], Fleet]
TASK = "of-all-ranks"
LIMITS = (4, 16, 4, 16, 8, 16)
"""The one of 8 has no company, so it trains 4 like the next weaker ones."""
SLOTS = (4, 16, 4, 16, 4, 16)


def create_task(fleet: Fleet) -> None:
    """The usual task, but of rank 16 and with cohorts of three."""
    text = task_toml(3, 3).replace(f'name = "{USUAL_TASK}"', f'name = "{TASK}"').replace("pool_min = 3\n", "")
    file = fleet.directory / "ranks.toml"
    file.write_text(text.replace("rank = 8\nalpha = 16.0", "rank = 16\nranks = [4, 8, 16]\nalpha = 32.0"), "utf-8")
    fleet.coordinator.command("task", "create", "-f", str(file))


def limit_rank(device: Device, rank: int) -> None:
    """What the owner, or the device profile, says of this machine; it is told to the coordinator."""
    file = device.home / "config.toml"
    file.write_text(file.read_text("utf-8").replace("rank = 32\n", f"rank = {rank}\n"), "utf-8")
    shown = device.command("config", "show", "--origin", "--json").json["training.rank"]
    assert shown == {"value": rank, "origin": str(file)}
    assert device.run().json["sent"] == []


def released(fleet: Fleet, number: int) -> tuple[ReleaseDocument, Tensors]:
    (row,) = query(fleet.database, "SELECT document FROM releases WHERE task = ? AND number = ?", TASK, number)
    document = ReleaseDocument.parse(row["document"])
    file = fleet.coordinator.directory / "objects" / "artefacts" / document.adapter_sha256.hex()
    return document, from_safetensors(file.read_bytes(), document.layout)


def test_devices_of_different_rank_learn_one_adapter(snapshots: Snapshots, fleet_from: FleetFrom) -> None:
    fleet = fleet_from(snapshots.joined(6))
    create_task(fleet)
    with fleet.serving() as coordinator:
        for device, limit in zip(fleet.devices, LIMITS, strict=True):
            limit_rank(device, limit)
        coordinator.command("round", "open", TASK)
        for device in fleet.devices:
            assert device.run().json["sent"] == [f"{TASK}/1"]
        for device in fleet.devices[:5]:
            device.run()

        cohorts = query(fleet.database, "SELECT * FROM cohorts WHERE task = ? ORDER BY trained_rank", TASK)
        assert [(cohort["trained_rank"], cohort["state"]) for cohort in cohorts] == [(4, "opened"), (16, "opened")]
        plans = {cohort["trained_rank"]: PlanDocument.parse(cohort["plan"]) for cohort in cohorts}
        sums = {}
        for rank, plan in plans.items():
            assert (plan.slots.rank, plan.vector.delta_length, plan.slots.narrow.scale) == (
                rank,
                plan.slots.length,
                2.0,
            )
            cohort = plan.cohort_id.hex()
            own = [device for device, slots in zip(fleet.devices, SLOTS, strict=True) if slots == rank]
            opened = np.load(fleet.coordinator.directory / "objects" / "sums" / f"{cohort}.npy")
            total = np.sum([encoded(device, cohort) for device in own], axis=0, dtype=np.uint64)
            np.testing.assert_array_equal(opened, total)
            sums[rank] = plan.vector.decode_sum(opened, 3)
        counted = query(fleet.database, "SELECT device_id, cohort_id FROM contributions WHERE state = 'counted'")
        dealt = {row["device_id"].hex(): row["cohort_id"] for row in counted}
        assert [dealt[device_id(device)] for device in fleet.devices] == [plans[slots].cohort_id for slots in SLOTS]

        document, after = released(fleet, 1)
        assert (document.contributors, document.layout.rank) == (6, 16)
        _, before = released(fleet, 0)
        weak, strong = (plans[rank].slots.narrow.from_vector(sums[rank].weighted_delta, Side.B) for rank in (4, 16))
        weight = sums[4].weight + sums[16].weight
        for name, strongly in strong.items():
            moved = after[name] - before[name]
            shared = (weak[name] + strongly[:, :4]) / weight
            np.testing.assert_allclose(moved[:, :4], shared, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(moved[:, 4:], strongly[:, 4:] / weight, rtol=1e-5, atol=1e-7)
            assert moved.any(axis=0).all()
        assert fleet.devices[0].run().json["adopted"] == [f"{TASK}/1"]
        assert all(status(device)["security_events"] == [] for device in fleet.devices)
