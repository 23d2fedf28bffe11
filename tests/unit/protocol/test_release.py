"""A release: read strictly, believed only when signed and logged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import LogInconsistentError, MalformedError, SignatureInvalidError, VerificationError
from nightshift.protocol.identity import sign
from nightshift.protocol.plan import MAX_UNIX_S
from nightshift.protocol.plan_checks import verify_parent
from nightshift.protocol.release import (
    MAX_ADAPTER_BYTES,
    MAX_RELEASE_BYTES,
    ReleaseDocument,
    VerifiedRelease,
    release_id,
    sign_release,
    verify_release,
)
from nightshift.v1 import device_pb2, log_pb2, release_pb2
from tests.support.authority import new_key
from tests.support.plans import LAYOUT, Publication, World

HUGE_NUMBER = release_pb2.Release(number=2**63, parent=bytes(32))
Edit = Callable[[release_pb2.Release], object]


@pytest.fixture
def world() -> World:
    return World.make(devices=3)


def check(published: Publication, offer: device_pb2.ReleaseOffer | None = None) -> VerifiedRelease:
    return verify_release(offer or published.offer(), view=published.world.view(), trust=published.world.trust)


def test_an_honest_release(world: World) -> None:
    first = world.publish()
    verified = check(first)
    assert (verified.document.task, verified.document.number, verified.document.parent) == ("notes", 0, None)
    assert verified.document.layout == LAYOUT
    assert verified.release_bytes == first.release
    second = world.publish(number=1, parent=first.release_id)
    assert check(second).document.parent == first.release_id
    # The first one is still proved after the log has grown.
    assert check(first) == verified


def test_the_id_is_over_the_bytes_as_received(world: World) -> None:
    data = world.publish().release
    assert release_id(data) == hashlib.sha256(frame(Domain.RELEASE_ID, data)).digest()
    assert release_id(data + release_pb2.Release(task="notes").SerializeToString()) != release_id(data)


def test_a_release_signed_by_another_key_is_refused(world: World) -> None:
    published, stranger = world.publish(), new_key()
    offer = published.offer()
    offer.signature = sign_release(published.release, lambda message: sign(stranger, message))
    with pytest.raises(SignatureInvalidError, match="the release's signature"):
        check(published, offer)


def test_a_signature_of_another_domain_is_refused(world: World) -> None:
    published = world.publish()
    offer = published.offer()
    offer.signature = world.authority.sign(frame(Domain.PLAN_SIGNATURE, published.release))
    with pytest.raises(SignatureInvalidError):
        check(published, offer)


def test_every_altered_byte_is_refused(world: World) -> None:
    published = world.publish()
    for place in range(len(published.release)):
        offer, data = published.offer(), bytearray(published.release)
        data[place] ^= 1
        offer.release = bytes(data)
        with pytest.raises(SignatureInvalidError):
            check(published, offer)


def test_a_signed_release_that_is_not_logged_is_refused(world: World) -> None:
    logged = world.publish()
    hidden = release_pb2.Release.FromString(logged.release)
    hidden.contributors = 5
    data = hidden.SerializeToString()
    offer = logged.offer()
    offer.release, offer.signature = data, sign_release(data, world.authority.sign)
    with pytest.raises(LogInconsistentError, match="records something else"):
        check(logged, offer)


def test_a_release_logged_for_another_task_is_refused(world: World) -> None:
    """Otherwise a task could be shown releases that its followers never see in the log."""
    published = world.publish()
    index = world.append(
        log_pb2.LOG_ENTRY_KIND_RELEASE, subject=hashlib.sha256(b"mail").digest(), digest=published.release_id
    )
    offer = published.offer()
    offer.proof.CopyFrom(world.proof(index))
    with pytest.raises(LogInconsistentError, match="records something else"):
        check(published, offer)


def test_a_plan_entry_does_not_prove_a_release(world: World) -> None:
    published = world.publish()
    index = world.append(
        log_pb2.LOG_ENTRY_KIND_PLAN, subject=hashlib.sha256(b"notes").digest(), digest=published.release_id
    )
    offer = published.offer()
    offer.proof.CopyFrom(world.proof(index))
    with pytest.raises(LogInconsistentError, match="records something else"):
        check(published, offer)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        pytest.param(lambda r: r.__setattr__("task", ""), "task", id="no task"),
        pytest.param(lambda r: r.__setattr__("task", "x" * 65), "task", id="long task"),
        pytest.param(lambda r: r.__setattr__("task", "a\nb"), "task", id="task of two lines"),
        pytest.param(lambda r: r.__setattr__("parent", bytes(32)), "parent", id="number 0 with a parent"),
        pytest.param(lambda r: r.__setattr__("number", 1), "parent", id="number 1 without a parent"),
        pytest.param(lambda r: r.__setattr__("base_model", bytes(31)), "hash", id="short base model"),
        pytest.param(lambda r: r.__setattr__("adapter_sha256", b""), "hash", id="no adapter hash"),
        pytest.param(lambda r: r.plan_hashes.append(bytes(33)), "hash", id="long plan hash"),
        pytest.param(lambda r: r.plan_hashes.append(bytes(32)), "number 0 none", id="number 0 with a plan"),
        pytest.param(
            lambda r: r.MergeFrom(
                release_pb2.Release(number=1, parent=bytes(32), plan_hashes=[bytes(32)] * 2, contributors=6)
            ),
            "each cohort once",
            id="a cohort twice",
        ),
        pytest.param(
            lambda r: r.MergeFrom(
                release_pb2.Release(
                    number=1, parent=bytes(32), plan_hashes=[bytes(32), bytes([1]) * 32], contributors=5
                )
            ),
            "2 cohorts had 5 contributors",
            id="a cohort of two",
        ),
        pytest.param(lambda r: r.__setattr__("adapter_size_bytes", 0), "0 bytes", id="empty adapter"),
        pytest.param(
            lambda r: r.__setattr__("adapter_size_bytes", MAX_ADAPTER_BYTES + 1), "outside the range", id="huge adapter"
        ),
        pytest.param(lambda r: r.__setattr__("time_unix_s", 0), "time_unix_s", id="no time"),
        pytest.param(lambda r: r.__setattr__("time_unix_s", -5), "time_unix_s", id="a time before 1970"),
        pytest.param(lambda r: r.__setattr__("time_unix_s", MAX_UNIX_S + 1), "time_unix_s", id="no such year"),
        pytest.param(lambda r: r.MergeFrom(HUGE_NUMBER), "number", id="huge number"),
        pytest.param(lambda r: r.ClearField("layout"), "layout", id="no layout"),
        pytest.param(lambda r: r.layout.__setattr__("rank", 300), "rank", id="huge rank"),
    ],
)
def test_a_field_out_of_range_is_refused_by_its_name(world: World, edit: Edit, match: str) -> None:
    """Signed and logged, so only its meaning can refuse it."""
    with pytest.raises(MalformedError, match=match):
        check(world.publish(edit=edit))


def test_an_oversized_release_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedError, match="may take"):
        ReleaseDocument.parse(bytes(MAX_RELEASE_BYTES + 1))
    with pytest.raises(MalformedError, match="damaged"):
        ReleaseDocument.parse(b"\xff" * 50)


def test_a_plan_trains_on_from_its_parent_only(world: World) -> None:
    parent = world.publish()
    other = world.publish(number=1, parent=parent.release_id)
    plan = world.open_cohort(parent=parent).verify()
    verify_parent(plan, check(parent))
    with pytest.raises(VerificationError, match="the plan's parent is release"):
        verify_parent(plan, check(other))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        pytest.param(lambda r: r.__setattr__("task", "mail"), "task", id="other task"),
        pytest.param(lambda r: r.__setattr__("base_model", bytes(32)), "base model", id="other base model"),
        pytest.param(lambda r: r.layout.__setattr__("alpha", 8.0), "adapter layout", id="other alpha"),
        pytest.param(lambda r: r.layout.__setattr__("rank", 4), "adapter layout", id="other rank"),
    ],
)
def test_a_parent_that_does_not_fit_the_plan_is_refused(world: World, edit: Edit, match: str) -> None:
    parent = world.publish(edit=edit)
    plan = world.open_cohort(parent=parent).verify()
    with pytest.raises(VerificationError, match=match):
        verify_parent(plan, check(parent))


def test_a_release_that_restores_another_holds_no_sums() -> None:
    world = World.make(devices=3)

    def parse(edit: Callable[[release_pb2.Release], object]) -> ReleaseDocument:
        made = world.publish(number=2, parent=b"p" * 32, edit=edit)
        return ReleaseDocument.parse(made.release)

    assert parse(lambda release: None).restores is None
    assert parse(lambda release: setattr(release, "restores", b"r" * 32)).restores == b"r" * 32
    for spoil in (
        lambda release: setattr(release, "restores", b"r" * 31),
        lambda release: (setattr(release, "restores", b"r" * 32), setattr(release, "contributors", 3)),
        lambda release: (setattr(release, "restores", b"r" * 32), setattr(release, "number", 0)),
    ):
        with pytest.raises(MalformedError, match="restores an earlier one"):
            parse(spoil)
