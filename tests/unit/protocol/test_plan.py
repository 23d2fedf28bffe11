"""Reading a plan: every field that is out of range is refused by its name."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable

import pytest

from nightshift.protocol.adapters.layout import Side
from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import (
    DeclinedError,
    IncompatibleError,
    MalformedError,
    NightshiftError,
    SignatureInvalidError,
    VerificationError,
)
from nightshift.protocol.identity import verify
from nightshift.protocol.metrics import COMPARING
from nightshift.protocol.plan import (
    MAX_PLAN_BYTES,
    MAX_POOL,
    MAX_UNIX_S,
    PlanDocument,
    layout_from_proto,
    layout_to_proto,
    plan_hash,
    pool_digest,
    prekey_from_proto,
    prekey_to_proto,
    side_to_proto,
    sign_plan,
)
from nightshift.protocol.plan_checks import VerifiedPlan, verify_served
from nightshift.protocol.release import VerifiedRelease, verify_release
from nightshift.protocol.secagg.rotation import rotation_seed
from nightshift.v1 import plan_pb2
from tests.support.plans import LAYOUT, Publication, World

WORLD = World.make()
HONEST = WORLD.open_cohort().plan
Edit = Callable[[plan_pb2.Plan], object]


def edited(edit: Edit) -> bytes:
    """The honest plan with one change."""
    plan = plan_pb2.Plan.FromString(HONEST)
    edit(plan)
    changed = plan.SerializeToString(deterministic=True)
    assert changed != HONEST, "the edit changed nothing"
    return changed


def setting(path: str, value: object) -> Edit:
    """Set `section.field` of a plan."""

    def edit(plan: plan_pb2.Plan) -> None:
        *sections, leaf = path.split(".")
        target = plan
        for section in sections:
            target = getattr(target, section)
        setattr(target, leaf, value)

    return edit


def test_the_honest_plan_is_read() -> None:
    PlanDocument.parse(HONEST)


NAMES_THE_FIELD: list[tuple[str, object]] = [
    ("protocol_version", 0),
    ("cohort_id", b""),
    ("cohort_id", bytes(31)),
    ("cohort_id", bytes(33)),
    ("base_model", bytes(31)),
    ("parent_release", b""),
    ("parent_release", bytes(64)),
    ("seed_log_root", bytes(31)),
    ("round", 0),
    ("round", (1 << 40) + 1),
    ("task", ""),
    ("task", "x" * 65),
    ("task", "notes\n"),
    ("task", "\x1b[2Jnotes"),
    ("task", "notes\u202e"),
    ("side", 0),
    ("side", 4),
    ("side", 2**31 - 1),
    ("trained_rank", 0),
    ("trained_rank", 3),
    ("trained_rank", 2**32 - 1),
    ("encoding.delta_length", 0),
    ("encoding.delta_length", 15),
    ("encoding.delta_length", 17),
    ("encoding.delta_length", 2**32 - 1),
    ("encoding.value_bits", 0),
    ("encoding.value_bits", 7),
    ("encoding.value_bits", 17),
    ("encoding.value_bits", 64),
    ("encoding.value_bits", 2**32 - 1),
    ("encoding.value_clip", 0.0),
    ("encoding.value_clip", -1.0),
    ("encoding.value_clip", math.nan),
    ("encoding.value_clip", math.inf),
    ("encoding.value_clip", 1e7),
    ("encoding.clip_norm", -0.5),
    ("encoding.clip_norm", math.nan),
    ("encoding.clip_norm", math.inf),
    ("encoding.noise_multiplier", -1.0),
    ("encoding.noise_multiplier", math.nan),
    ("encoding.noise_multiplier", 1e4),
    ("n_max", 513),
    ("n_max", 2**32 - 1),
    ("n_min", 17),
    ("upload_deadline_unix_s", -1),
    ("upload_deadline_unix_s", 0),
    ("seed_log_size", 0),
    ("seed_log_size", 2**63),
    ("training.steps", 0),
    ("training.steps", 100_001),
    ("training.batch_size", 0),
    ("training.batch_size", 4097),
    ("training.learning_rate", 0.0),
    ("training.learning_rate", -1e-3),
    ("training.learning_rate", 11.0),
    ("training.learning_rate", math.nan),
    ("training.schedule", ""),
    ("training.schedule", "Cosine"),
    ("training.schedule", "__import__('os')"),
    ("training.weight_decay", -1.0),
    ("training.weight_decay", math.inf),
    ("training.gradient_clip_norm", -1.0),
    ("training.gradient_clip_norm", math.nan),
    ("training.max_tokens", 0),
    ("training.max_tokens", 1),
    ("training.max_tokens", 32_769),
    ("training.proximal", -1.0),
    ("training.proximal", math.nan),
    ("training.examples_for_full_weight", 0),
    ("training.examples_for_full_weight", 2**31),
]


@pytest.mark.parametrize(
    ("path", "value"), NAMES_THE_FIELD, ids=[f"{path}={value!r:.20}" for path, value in NAMES_THE_FIELD]
)
def test_a_field_out_of_range_is_refused_by_its_name(path: str, value: object) -> None:
    with pytest.raises(MalformedError, match=path.rsplit(".", 1)[-1]):
        PlanDocument.parse(edited(setting(path, value)))


def stretch_metrics(names: list[str]) -> Edit:
    def edit(plan: plan_pb2.Plan) -> None:
        del plan.encoding.metrics[:]
        plan.encoding.metrics.extend(names)

    return edit


def replace_pool(pool: list[bytes]) -> Edit:
    def edit(plan: plan_pb2.Plan) -> None:
        del plan.pool[:]
        plan.pool.extend(pool)

    return edit


def on_layout(edit: Callable[[plan_pb2.AdapterLayout], object]) -> Edit:
    return lambda plan: edit(plan.layout)


def on_member(edit: Callable[[plan_pb2.CommitteeMember], object]) -> Edit:
    return lambda plan: edit(plan.committee[3])


def numbered(place: int, index: int) -> Edit:
    return lambda plan: plan.committee[place].__setattr__("index", index)


def together(*edits: Edit) -> Edit:
    def edit(plan: plan_pb2.Plan) -> None:
        for each in edits:
            each(plan)

    return edit


IDS = [bytes([number]) * 32 for number in range(5)]
DEADLINES = "deadlines are out of order"
UNREADABLE: list[tuple[str, Edit, str]] = [
    (
        "noise without a bound",
        together(setting("encoding.clip_norm", 0.0), setting("encoding.noise_multiplier", 1.0)),
        "noise_multiplier",
    ),
    ("65 metrics", stretch_metrics([f"m{number}" for number in range(65)]), "metrics"),
    ("a metric twice", stretch_metrics(["loss", "loss"]), "metrics"),
    ("a nameless metric", stretch_metrics([""]), "metrics"),
    ("a metric that steers the terminal", stretch_metrics(["\x1b[31m"]), "metrics"),
    ("a metric of a megabyte", stretch_metrics(["m" * (1 << 20)]), "metrics"),
    ("no layout", lambda plan: plan.ClearField("layout"), "layout"),
    ("no layers", on_layout(lambda layout: layout.__setattr__("layers", 0)), "layers"),
    ("257 layers", on_layout(lambda layout: layout.__setattr__("layers", 257)), "layers"),
    ("no rank", on_layout(lambda layout: layout.__setattr__("rank", 0)), "rank"),
    ("a rank above the matrix", on_layout(lambda layout: layout.__setattr__("rank", 9)), "rank"),
    ("alpha zero", on_layout(lambda layout: layout.__setattr__("alpha", 0.0)), "alpha"),
    ("alpha not a number", on_layout(lambda layout: layout.__setattr__("alpha", math.nan)), "alpha"),
    ("no targets", on_layout(lambda layout: layout.ClearField("targets")), "targets"),
    ("an unknown target", on_layout(lambda layout: layout.targets[0].__setattr__("projection", "lm_head")), "targets"),
    ("a target twice", on_layout(lambda layout: layout.targets.append(layout.targets[0])), "targets"),
    ("1000 targets", on_layout(lambda layout: layout.targets.extend([layout.targets[0]] * 1000)), "targets"),
    ("a target of nothing", on_layout(lambda layout: layout.targets[0].__setattr__("in_features", 0)), "in_features"),
    (
        "a target of 2^32 - 1 rows",
        on_layout(lambda layout: layout.targets[0].__setattr__("out_features", 2**32 - 1)),
        "out_features",
    ),
    ("a threshold above its own", lambda plan: plan.__setattr__("threshold", 9), "threshold"),
    (
        "uploads that end after themselves",
        lambda plan: plan.__setattr__("latest_upload_deadline_unix_s", plan.upload_deadline_unix_s - 1),
        DEADLINES,
    ),
    (
        "answers that end before uploads",
        lambda plan: plan.__setattr__("answer_deadline_unix_s", plan.latest_upload_deadline_unix_s - 1),
        DEADLINES,
    ),
    (
        "a deadline that no calendar shows",
        lambda plan: plan.__setattr__("answer_deadline_unix_s", MAX_UNIX_S + 1),
        "answer_deadline_unix_s",
    ),
    ("no pool", replace_pool([]), "pool"),
    ("a pool of two", replace_pool(IDS[:2]), "pool"),
    ("a pool out of order", replace_pool([IDS[1], IDS[0], IDS[2]]), "pool"),
    ("a device twice in the pool", replace_pool([IDS[0], IDS[1], IDS[1], IDS[2]]), "pool"),
    ("a short id in the pool", replace_pool([IDS[0], IDS[1], IDS[2][:31]]), "pool"),
    ("too large a pool", replace_pool([number.to_bytes(32, "big") for number in range(MAX_POOL + 1)]), "pool"),
    (
        "a committee of 32",
        together(lambda plan: plan.committee.extend([plan.committee[0]] * 22), setting("threshold", 25)),
        "committee_size",
    ),
    (
        "a committee larger than its pool",
        together(replace_pool([number.to_bytes(32, "big") for number in range(9)])),
        "committee of 10 from a pool of 9",
    ),
    (
        "indexes from zero",
        together(*(numbered(place, place) for place in range(10))),
        "index",
    ),
    ("an index twice", numbered(3, 3), "index"),
    (
        "a short device id",
        on_member(lambda member: member.prekey.__setattr__("device_id", bytes(31))),
        "prekey.device_id",
    ),
    (
        "a short prekey",
        on_member(lambda member: member.prekey.__setattr__("public_key", bytes(31))),
        "prekey.public_key",
    ),
    (
        "a long prekey signature",
        on_member(lambda member: member.prekey.__setattr__("signature", bytes(65))),
        "prekey.signature",
    ),
    ("no prekey", on_member(lambda member: member.ClearField("prekey")), "prekey"),
]


@pytest.mark.parametrize(
    ("edit", "match"), [(edit, match) for _, edit, match in UNREADABLE], ids=[name for name, *_ in UNREADABLE]
)
def test_whatever_cannot_be_carried_out_is_refused(edit: Edit, match: str) -> None:
    with pytest.raises(MalformedError, match=match) as caught:
        PlanDocument.parse(edited(edit))
    assert len(str(caught.value)) < 1000, "a message that the sender can stretch"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        pytest.param(setting("n_min", 2), "over 2 devices", id="sum over two"),
        pytest.param(setting("n_min", 0), "over 0 devices", id="sum over none"),
        pytest.param(lambda plan: plan.ClearField("committee"), "committee of 0", id="no committee"),
        pytest.param(lambda plan: plan.committee.__delitem__(slice(2, None)), "committee of 2", id="committee of two"),
        pytest.param(setting("threshold", 7), "7 answers", id="a weaker threshold"),
        pytest.param(setting("threshold", 0), "0 answers", id="no threshold"),
    ],
)
def test_a_plan_too_weak_for_anybody_is_declined(edit: Edit, match: str) -> None:
    with pytest.raises(DeclinedError, match=match):
        PlanDocument.parse(edited(edit))


@pytest.mark.parametrize("version", [2, 3, 2**32 - 1])
def test_a_plan_of_a_later_protocol_asks_for_a_newer_build(version: int) -> None:
    with pytest.raises(IncompatibleError, match="protocol_version"):
        PlanDocument.parse(edited(setting("protocol_version", version)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="garbage"),
        pytest.param(HONEST[:-1], id="cut"),
        pytest.param(HONEST + b"\x22\x05\xff\xff\xff\xff\xff", id="a task that is not UTF-8"),
        pytest.param(bytes(MAX_PLAN_BYTES + 1), id="oversize"),
        pytest.param(HONEST + b"\x7a" + b"\x80" * 100, id="an endless varint"),
    ],
)
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with pytest.raises(NightshiftError) as caught:
        PlanDocument.parse(data)
    assert isinstance(caught.value, MalformedError)


def test_an_oversized_plan_is_refused_by_its_size_alone() -> None:
    """Padded with a field that nobody knows, it would be read."""
    padding = b"\xfa\x7f" + b"\x80\x80\x40" + bytes(1 << 20)  # field 2047, length-delimited, 2^20 as a varint
    PlanDocument.parse(HONEST + padding)
    with pytest.raises(MalformedError, match="may take"):
        PlanDocument.parse(HONEST + padding + padding)


def test_the_largest_plan_is_read_in_bounded_time() -> None:
    pool = sorted(hashlib.sha256(b"%d" % number).digest() for number in range(MAX_POOL))
    data = edited(replace_pool(pool))
    assert len(data) < MAX_PLAN_BYTES
    begin = time.process_time()
    assert len(PlanDocument.parse(data).pool) == MAX_POOL
    assert time.process_time() - begin < 2.0


@pytest.mark.parametrize(("bits", "n_max"), [(8, 3), (8, 512), (16, 512), (12, 100)])
def test_no_slot_of_a_plan_that_is_read_can_overflow(bits: int, n_max: int) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.encoding.value_bits, plan.n_max = bits, n_max

    parameters = PlanDocument.parse(edited(edit)).parameters
    assert n_max * (2**bits - 1) < 2**parameters.slot_bits
    assert parameters.noise_bits + parameters.values_per_coefficient * parameters.slot_bits <= 64


def test_the_rotation_is_on_where_the_plan_says_so_and_its_seed_follows_from_the_plan() -> None:
    world = World.make()
    plain, rotated, other = (
        world.open_cohort(edit=lambda plan, on=on: setattr(plan.encoding, "rotated", on)) for on in (False, True, True)
    )
    assert plain.document.vector.rotation is None
    assert rotated.document.vector.rotation == rotation_seed(rotated.plan_hash)
    assert rotated.document.vector.rotation != other.document.vector.rotation


@pytest.mark.parametrize(("side", "length"), [(Side.A, 16), (Side.B, 16), (Side.BOTH, 32)])
def test_each_side_has_its_length(side: Side, length: int) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.side, plan.encoding.delta_length = side_to_proto(side), length
        plan.round = 2

    document = PlanDocument.parse(edited(edit))
    assert (document.side, document.vector.delta_length) == (side, length)


@pytest.mark.parametrize(("side", "length"), [(Side.A, 8), (Side.B, 8), (Side.BOTH, 16)])
def test_fewer_slots_make_a_shorter_vector(side: Side, length: int) -> None:
    def edit(plan: plan_pb2.Plan) -> None:
        plan.side, plan.trained_rank, plan.encoding.delta_length = side_to_proto(side), 1, length

    document = PlanDocument.parse(edited(edit))
    assert (document.slots.rank, document.layout.rank, document.vector.delta_length) == (1, 2, length)


def test_a_length_that_is_not_of_the_trained_slots_is_refused() -> None:
    with pytest.raises(MalformedError, match="1 slots of the layout's side 'b' have 8 values"):
        PlanDocument.parse(edited(lambda plan: setattr(plan, "trained_rank", 1)))


def test_the_hash_is_over_the_bytes_as_received() -> None:
    plan = plan_pb2.Plan.FromString(HONEST)
    # The same meaning in other bytes: a scalar given twice, of which the last one counts.
    other = plan_pb2.Plan(round=plan.round).SerializeToString() + HONEST
    assert PlanDocument.parse(other) == PlanDocument.parse(HONEST)
    assert plan_hash(other) != plan_hash(HONEST)
    assert plan_hash(HONEST) == hashlib.sha256(frame(Domain.PLAN_HASH, HONEST)).digest()


def test_the_signature_is_bound_to_its_purpose() -> None:
    signature = sign_plan(HONEST, WORLD.authority.sign)
    public = WORLD.authority.signing_key.public_key()
    verify(public, signature, frame(Domain.PLAN_SIGNATURE, HONEST), what="the plan's signature")
    for domain in (Domain.RELEASE_SIGNATURE, Domain.LOG_HEAD, Domain.PLAN_HASH):
        with pytest.raises(SignatureInvalidError):
            verify(public, signature, frame(domain, HONEST), what="the plan's signature")


def test_a_pool_has_one_digest_in_any_order() -> None:
    assert pool_digest(IDS) == pool_digest(IDS[::-1]) == hashlib.sha256(b"".join(IDS)).digest()
    assert pool_digest(IDS) != pool_digest(IDS[:-1])


def test_shapes_and_prekeys_come_back_as_they_went() -> None:
    assert layout_from_proto(layout_to_proto(LAYOUT)) == LAYOUT
    prekey = WORLD.devices[0].prekey
    assert prekey_from_proto(prekey_to_proto(prekey)) == prekey


def comparing(plan: plan_pb2.Plan) -> None:
    """Ask for a comparison with a served release, as an honest plan does."""
    plan.served_release = b"s" * 32
    plan.encoding.metrics.extend(COMPARING)


def test_a_plan_may_name_what_its_parent_is_compared_with() -> None:
    document = PlanDocument.parse(edited(comparing))
    assert document.served_release == b"s" * 32
    assert PlanDocument.parse(HONEST).served_release is None
    # A loss and a yes or no have their own limits: one who lies moves a sum by no more.
    limits = dict(zip(document.vector.metrics, document.vector.limits, strict=True))
    assert (limits["loss_served"], limits["better"], limits["tokens"]) == (16.0, 1.0, 2.0**20)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plan: setattr(plan, "served_release", b"s" * 31), "served_release has 31 bytes"),
        (lambda plan: setattr(plan, "served_release", plan.parent_release), "is the parent"),
        (lambda plan: plan.encoding.metrics.remove("better"), "must list"),
        (lambda plan: plan.ClearField("served_release"), "and only there"),
    ],
)
def test_a_comparison_takes_two_releases_and_all_its_metrics(edit: Edit, message: str) -> None:
    def both(plan: plan_pb2.Plan) -> None:
        comparing(plan)
        edit(plan)

    with pytest.raises(MalformedError, match=message):
        PlanDocument.parse(edited(both))


def test_only_a_release_of_the_same_task_and_model_is_compared() -> None:
    world = World.make()
    parent, served, stranger = world.publish(), world.publish(number=3, parent=b"p" * 32), world.publish(task="mail")

    def plan_of(other: Publication) -> VerifiedPlan:
        def compare(plan: plan_pb2.Plan) -> None:
            comparing(plan)
            plan.served_release = other.release_id

        return world.open_cohort(parent=parent, edit=compare).verify()

    def verified(release: Publication) -> VerifiedRelease:
        return verify_release(release.offer(), view=world.view(), trust=world.trust)

    verify_served(plan_of(served), verified(served))
    with pytest.raises(VerificationError, match="not the one it names"):
        verify_served(plan_of(served), verified(parent))
    with pytest.raises(VerificationError, match="another task"):
        verify_served(plan_of(stranger), verified(stranger))
