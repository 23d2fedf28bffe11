"""A coordinator with all its keys lies to a real `edge-client run`, over real TLS; the device catches every lie.

Each lie is told by tests/support/lying_coordinator.py: where the lie can be
signed and logged, it is. After each one the device has refused with the exit
code that fits, has kept evidence where the coordinator broke a promise, has sent
nothing, and uses the adapter that it used before; and the honest coordinator
finds it unharmed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from scripts.night.fleet import Device
from tests.support.fleets import TASK, Snapshots, copy_fleet, device_id
from tests.support.liar import Liar, served_by_a_liar
from tests.support.refusals import NOT_NOW, UNVERIFIED, Standing, refused, security_events, would_contribute

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def liar(snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    """Device 1 and 2 use release 1, device 3 still release 0; round 2 is open. Refused lies leave no trace in it."""
    fleet = copy_fleet(snapshots.second_night(3), tmp_path_factory.mktemp("liar") / "fleet")
    with served_by_a_liar(fleet) as served:
        yield served


# At the check-in.


@pytest.mark.parametrize(
    ("lie", "kind", "because"),
    [
        # nightshift/protocol/plan_checks.py, `_verify_plan`: the signature is over the bytes as received.
        ("plan byte", "SIGNATURE_INVALID", "the plan's signature"),
        # nightshift/protocol/log.py, `LogView.require`: the log's entry names the hash of another plan.
        ("plan not logged", "LOG_INCONSISTENT", "records something else"),
        # nightshift/protocol/secagg/prekeys.py, `verify`: the member signed another key.
        ("substituted prekey", "SIGNATURE_INVALID", "prekey"),
        # nightshift/protocol/plan_checks.py: every member has a certificate of the root from the join token.
        ("sybil member", "SIGNATURE_INVALID", "not issued by"),
        # nightshift/protocol/plan_checks.py, `_verify_enrolments`: and it is in the log, older than the pool.
        ("unlogged member", "LOG_INCONSISTENT", "for the enrolment records something else"),
        # edge_client/agent/examination.py: the plan's parent must be shown, signed and logged.
        ("parent of nobody", "VERIFICATION_FAILED", "did not show"),
        ("parent not logged", "LOG_INCONSISTENT", "records something else"),
        # edge_client/store/prekeys.py, `bind`: a one-time key answers for the first plan only.
        ("same prekeys", "EQUIVOCATION", "named in two different plans"),
        # edge_client/store/answers.py, `see_cohort`: a cohort has one plan for ever.
        ("same cohort", "EQUIVOCATION", "shown with two different plans"),
        # nightshift/protocol/merkle.py, `verify_consistency`, against the head in the device's store.
        ("log fork", "LOG_INCONSISTENT", "it forked"),
        ("log shrink", "LOG_INCONSISTENT", "the log shrank"),
        # edge_client/agent/releases.py, `note_releases`.
        ("release rolled back", "VERIFICATION_FAILED", "but 1 was seen before; the one in use stays"),
        ("release in two versions", "EQUIVOCATION", "release 1 of task 'commands' was shown in two versions"),
        # edge_client/agent/decisions.py, `remember`.
        ("decision rolled back", "VERIFICATION_FAILED", "but 2 was seen before; the adapter in use stays"),
        ("decision in two versions", "EQUIVOCATION", "decision 2 about the releases of task 'commands' was shown in"),
    ],
)
def test_a_lie_at_the_check_in(lie: str, kind: str, because: str, liar: Liar) -> None:
    """Tries: what the name says (tests/support/lying_coordinator.py). Stopped where the comment beside it says."""
    device = liar.fleet.devices[0]
    would_contribute(device)
    with liar.telling(lie):
        refused(device, UNVERIFIED, kind=kind, because=because)
    would_contribute(device)
    assert device_id(device) not in liar.fleet.contributions(2)


@pytest.mark.parametrize(
    ("lie", "because"),
    [
        ("committee of two", "a committee of 2"),
        ("weaker threshold", "would open with 2 answers; a committee of 3 must need 3"),
        ("sum of two", "a sum over 2 devices"),
    ],
)
def test_a_plan_that_is_too_weak(lie: str, because: str, liar: Liar) -> None:
    """Tries: a plan that is signed, drawn and logged as it must be, and protects too little.

    Stopped by nightshift/protocol/plan.py, before anything is derived from it.
    """
    device = liar.fleet.devices[0]
    with liar.telling(lie):
        refused(device, NOT_NOW, kind="DECLINED", because=because)
    would_contribute(device)


@pytest.mark.parametrize(
    ("variable", "value", "because"),
    [
        ("MINIMUM_COHORT", "4", "3 devices, the owner wants at least 4 (policy.minimum_cohort)"),
        ("MINIMUM_COMMITTEE", "4", "3 members, the owner wants at least 4 (policy.minimum_committee)"),
        ("TASKS", "notes-*", "the task is not among those chosen here (notes-*; policy.tasks)"),
        ("MAXIMUM_EPSILON", "3", "adds no differential-privacy noise, the owner wants epsilon at most 3"),
    ],
)
def test_an_honest_plan_below_the_owners_limits(variable: str, value: str, because: str, liar: Liar) -> None:
    """Tries: an honest plan that is laxer than the owner. Declined by edge_client/policy.py, `check_plan`."""
    device = liar.fleet.devices[1]
    owner = Device(device.home, {**device.environment, f"EDGE_CLIENT_POLICY_{variable}": value})
    refused(owner, NOT_NOW, kind="DECLINED", because=because)
    would_contribute(device)


def test_revocations_rolled_back(liar: Liar) -> None:
    """Tries: the signed list from before a revocation, and a newer one without it, to a device that has seen it.

    Stopped by nightshift/protocol/revocation.py, `verify_revocation`, with the number in the
    device's store, and by edge_client/agent/check_in.py, `_require_growth`.
    """
    coordinator, device = liar.fleet.coordinator, liar.fleet.devices[0]
    token = coordinator.command("token", "create", "--json").json["token"]
    thrown_out = Device(liar.fleet.directory / "thrown-out", device.environment)
    thrown_out.command("join", token)
    coordinator.command("device", "revoke", device_id(thrown_out), "--yes")
    would_contribute(device)
    with liar.telling("revocations rolled back"):
        refused(device, UNVERIFIED, kind="VERIFICATION_FAILED", because="older than list 1 seen before")
    with liar.telling("revocation taken back"):
        refused(device, UNVERIFIED, kind="EQUIVOCATION", because="a revocation is for good")
    would_contribute(device)


# At the download.


def test_other_adapter_bytes(liar: Liar) -> None:
    """Tries: a release whose adapter comes with other bytes than it promises.

    Stopped by edge_client/artefacts.py, `fetch`; the adapter before stays in use, and no half of the new one is kept.
    """
    device = liar.fleet.devices[2]
    adapters = {path.name for path in (device.home / "adapters").iterdir()}
    before = Standing.of(device)
    assert before.adapters == [f"{TASK}/0"]
    with liar.telling("other adapter bytes"):
        done = device.run(expect=UNVERIFIED)
    assert {problem["reason"] for problem in done.json["problems"]} == {"HASH_MISMATCH"}
    assert Standing.of(device) == before
    assert {path.name for path in (device.home / "adapters").iterdir()} == adapters
    assert not list((device.home / "cache" / "partial").iterdir())
    assert {event["kind"] for event in security_events(device)} == {"HASH_MISMATCH"}
    would_contribute(device)


def test_other_model_bytes(liar: Liar) -> None:
    """Tries: a model package with one wrong byte in each piece, to a device that has none yet.

    Stopped by edge_client/artefacts.py, `fetch`, before anything is opened; nothing is trained on it.
    """
    device = liar.fleet.devices[1]
    cache, aside = device.home / "cache", device.home / "aside"
    cache.rename(aside)
    with liar.telling("other model bytes"):
        refused(device, UNVERIFIED, kind="HASH_MISMATCH", because="other bytes than the hash")
    assert not (cache / "packages").exists()
    assert not list((cache / "partial").iterdir())
    shutil.rmtree(cache)
    aside.rename(cache)
    would_contribute(device)


def test_the_honest_coordinator(liar: Liar) -> None:
    """The control of all: without a lie, every device of the module's fleet contributes, answers and adopts."""
    for device in liar.fleet.devices:
        assert device.run().json["sent"] == [f"{TASK}/2"]
    for device in liar.fleet.devices:
        device.run()
    assert liar.fleet.releases() == [0, 1, 2]
    assert liar.fleet.sum_is_exact(liar.fleet.devices, 2)
