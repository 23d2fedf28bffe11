"""The plan of a cohort: read strictly, hashed as received, never re-serialised.

H, the hash to which every later message is bound, is taken over the bytes that
were signed. `PlanDocument.parse` is the one way from bytes to meaning; it
refuses whatever is out of range, so that no later step has to.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from nightshift.protocol.adapters.layout import AdapterLayout, Side, Target
from nightshift.protocol.adapters.slots import TrainedSlots
from nightshift.protocol.domains import Domain, digest, frame
from nightshift.protocol.errors import DeclinedError, IncompatibleError, MalformedError, NightshiftError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId
from nightshift.protocol.metrics import COMPARING, limits_of
from nightshift.protocol.secagg import committee
from nightshift.protocol.secagg.encoding import Encoding, VectorLayout
from nightshift.protocol.secagg.parameters import MIN_COMMITTEE, CohortParameters
from nightshift.protocol.secagg.prekeys import SignedPrekey
from nightshift.protocol.secagg.rotation import rotation_seed
from nightshift.v1 import plan_pb2

PROTOCOL_VERSION = 1
HASH_BYTES = 32
MAX_PLAN_BYTES = 2 * 2**20
MAX_POOL = 32_768
MAX_TASK_CHARACTERS = 64
MAX_METRIC_CHARACTERS = 64
MAX_NUMBER = 1 << 40
MAX_UNIX_S = 1 << 37  # the year 6325: every calendar can show it
N_MIN_FLOOR = 3
MAX_STEPS = 100_000
MAX_BATCH = 4096
MAX_TOKENS = 32_768
SCHEDULES = ("constant", "cosine")

_SIDES = {
    plan_pb2.ADAPTER_SIDE_A: Side.A,
    plan_pb2.ADAPTER_SIDE_B: Side.B,
    plan_pb2.ADAPTER_SIDE_BOTH: Side.BOTH,
}
_SIDE_NUMBERS = {side: number for number, side in _SIDES.items()}


@dataclass(frozen=True, slots=True)
class Training:
    """How a device trains for one contribution (units as in plan.proto)."""

    steps: int
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    gradient_clip_norm: float
    max_tokens: int
    proximal: float
    examples_for_full_weight: int


@dataclass(frozen=True, slots=True)
class Member:
    """One committee member: its place, its prekey and its certificate (DER)."""

    index: int
    prekey: SignedPrekey
    certificate: bytes


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A plan whose every field is in range; nothing is proved about it yet.

    Attributes:
        slots: of which adapter what is trained: side and rank slots.
        parameters: ring, slots, field and threshold that follow from n_max, bits and committee.
        vector: what the vector holds and how it is encoded; the seed of a rotation follows from H.
        clip_norm: L2 bound on a device's delta; 0 for none.
        noise_multiplier: Gaussian noise relative to clip_norm; 0 for none.
        served_release: what devices serve now and contributors compare the parent with; None if nothing is compared.
        pool: sorted device ids from which the committee was drawn.
        seed_log_size: log size before the plan; with `seed_log_root` it seeds the draw.
    """

    protocol_version: int
    cohort_id: bytes
    round_number: int
    task: str
    base_model: bytes
    parent_release: bytes
    served_release: bytes | None
    slots: TrainedSlots
    training: Training
    parameters: CohortParameters
    vector: VectorLayout
    clip_norm: float
    noise_multiplier: float
    n_max: int
    n_min: int
    pool: tuple[DeviceId, ...]
    committee: tuple[Member, ...]
    upload_deadline_unix_s: int
    latest_upload_deadline_unix_s: int
    answer_deadline_unix_s: int
    seed_log_size: int
    seed_log_root: bytes

    @property
    def layout(self) -> AdapterLayout:
        """Shape of the whole adapter."""
        return self.slots.layout

    @property
    def side(self) -> Side:
        """Which of its matrices are trained."""
        return self.slots.side

    @classmethod
    def parse(cls, plan_bytes: bytes) -> PlanDocument:
        """Read a plan.

        Raises:
            MalformedError: not a plan, or a field out of its range; names the field.
            IncompatibleError: a plan of a later protocol.
        """
        if len(plan_bytes) > MAX_PLAN_BYTES:
            raise MalformedError(f"a plan may take {MAX_PLAN_BYTES} bytes, got {len(plan_bytes)}")
        try:
            plan = plan_pb2.Plan.FromString(plan_bytes)
        except DecodeError as error:
            raise MalformedError("a plan could not be read; its bytes are damaged") from error
        try:
            return _document(plan, plan_hash(plan_bytes))
        except (MalformedError, IncompatibleError, DeclinedError):
            raise
        except NightshiftError as error:
            raise MalformedError(f"the plan cannot be carried out: {error}") from error


def plan_hash(plan_bytes: bytes) -> bytes:
    """H: 32 bytes to which every message of the cohort is bound."""
    return digest(Domain.PLAN_HASH, plan_bytes)


def plan_signature_message(plan_bytes: bytes) -> bytes:
    """What the coordinator signs."""
    return frame(Domain.PLAN_SIGNATURE, plan_bytes)


def sign_plan(plan_bytes: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The coordinator's signature over a plan's bytes."""
    return sign(plan_signature_message(plan_bytes))


def pool_digest(pool: Sequence[bytes]) -> bytes:
    """What the log records of a pool: SHA-256 over the sorted device ids."""
    return hashlib.sha256(b"".join(sorted(pool))).digest()


def committee_seed(seed_log_size: int, seed_log_root: bytes, cohort_id: bytes) -> bytes:
    """What a cohort's committee is drawn with: the log right before its plan (u64 size ‖ root) and its id."""
    return committee.committee_seed(seed_log_size.to_bytes(8, "big") + seed_log_root, cohort_id)


def layout_to_proto(layout: AdapterLayout) -> plan_pb2.AdapterLayout:
    """An adapter's shape as it travels."""
    return plan_pb2.AdapterLayout(
        layers=layout.layers,
        targets=[
            plan_pb2.AdapterTarget(projection=t.name, in_features=t.in_features, out_features=t.out_features)
            for t in layout.targets
        ],
        rank=layout.rank,
        alpha=layout.alpha,
    )


def layout_from_proto(message: plan_pb2.AdapterLayout) -> AdapterLayout:
    """An adapter's shape as received.

    Raises:
        MalformedError: impossible or beyond the caps.
    """
    try:
        return AdapterLayout(
            layers=message.layers,
            targets=tuple(Target(t.projection, t.in_features, t.out_features) for t in message.targets[:64]),
            rank=message.rank,
            alpha=message.alpha,
        )
    except NightshiftError as error:
        raise MalformedError(f"the adapter's layout is out of range: {error}") from error


def side_to_proto(side: Side) -> plan_pb2.AdapterSide:
    """A side as it travels."""
    return _SIDE_NUMBERS[side]


def prekey_from_proto(message: plan_pb2.Prekey) -> SignedPrekey:
    """A prekey as received: lengths checked, nothing proved.

    Raises:
        MalformedError: an id, key or signature of the wrong length.
    """
    _exactly("prekey.device_id", message.device_id, DEVICE_ID_BYTES)
    _exactly("prekey.public_key", message.public_key, 32)
    _exactly("prekey.signature", message.signature, 64)
    return SignedPrekey(
        device_id=DeviceId(message.device_id),
        serial=message.serial,
        epoch=message.epoch,
        not_after=message.not_after_unix_s,
        public=message.public_key,
        signature=message.signature,
    )


def prekey_to_proto(prekey: SignedPrekey) -> plan_pb2.Prekey:
    """A prekey as it travels."""
    return plan_pb2.Prekey(
        device_id=prekey.device_id,
        serial=prekey.serial,
        epoch=prekey.epoch,
        not_after_unix_s=prekey.not_after,
        public_key=prekey.public,
        signature=prekey.signature,
    )


def _document(plan: plan_pb2.Plan, identifier: bytes) -> PlanDocument:
    if plan.protocol_version > PROTOCOL_VERSION:
        raise IncompatibleError(
            f"plan.protocol_version is {plan.protocol_version}, this build speaks up to {PROTOCOL_VERSION}; "
            "install a newer release"
        )
    _in_range("protocol_version", plan.protocol_version, 1, PROTOCOL_VERSION)
    for name in ("cohort_id", "base_model", "parent_release", "seed_log_root"):
        _exactly(name, getattr(plan, name), HASH_BYTES)
    _in_range("round", plan.round, 1, MAX_NUMBER)
    if not (0 < len(plan.task) <= MAX_TASK_CHARACTERS and plan.task.isprintable()):
        raise MalformedError(f"plan.task must be 1 to {MAX_TASK_CHARACTERS} printable characters")
    if plan.side not in _SIDES:
        raise MalformedError(f"plan.side {plan.side} is none that this build knows")
    layout = layout_from_proto(plan.layout)
    _in_range("trained_rank", plan.trained_rank, 1, layout.rank)
    slots = TrainedSlots(layout, _SIDES[plan.side], plan.trained_rank)
    encoding = plan.encoding
    if encoding.delta_length != slots.length:
        raise MalformedError(
            f"plan.encoding.delta_length is {encoding.delta_length}, "
            f"{slots.rank} slots of the layout's side {slots.side.value!r} have {slots.length} values"
        )
    if len(encoding.metrics) > 64:
        raise MalformedError(f"plan.encoding.metrics lists {len(encoding.metrics)} metrics, at most 64 are allowed")
    for name in encoding.metrics:
        if not (0 < len(name) <= MAX_METRIC_CHARACTERS and name.isprintable()):
            raise MalformedError(
                f"plan.encoding.metrics must be names of 1 to {MAX_METRIC_CHARACTERS} printable characters"
            )
    _require_served(plan)
    _finite("encoding.value_clip", encoding.value_clip, low=1e-9, high=1e6)
    _finite("encoding.clip_norm", encoding.clip_norm, high=1e6)
    _finite("encoding.noise_multiplier", encoding.noise_multiplier, high=1e3)
    if encoding.noise_multiplier > 0 and encoding.clip_norm == 0:
        raise MalformedError(
            "plan.encoding.noise_multiplier is relative to clip_norm, which is 0: such noise would hide nothing"
        )
    _decline_the_weak(plan)
    _in_range("n_min", plan.n_min, N_MIN_FLOOR, plan.n_max)
    parameters = CohortParameters.derive(
        n_max=plan.n_max, value_bits=encoding.value_bits, committee_size=len(plan.committee)
    )
    if len(plan.committee) > len(plan.pool):
        raise MalformedError(
            f"the plan seats a committee of {len(plan.committee)} from a pool of {len(plan.pool)}; "
            "members are devices of the pool"
        )
    if plan.threshold < parameters.threshold:
        raise DeclinedError(
            f"the plan would open with {plan.threshold} answers; "
            f"a committee of {len(plan.committee)} must need {parameters.threshold}"
        )
    if plan.threshold > parameters.threshold:
        raise MalformedError(
            f"plan.threshold is {plan.threshold}; "
            f"a committee of {len(plan.committee)} opens with {parameters.threshold}"
        )
    if not plan.upload_deadline_unix_s <= plan.latest_upload_deadline_unix_s <= plan.answer_deadline_unix_s:
        raise MalformedError("the plan's deadlines are out of order: upload, latest upload, answer")
    _in_range("upload_deadline_unix_s", plan.upload_deadline_unix_s, 1, MAX_UNIX_S)
    _in_range("answer_deadline_unix_s", plan.answer_deadline_unix_s, 1, MAX_UNIX_S)
    _in_range("seed_log_size", plan.seed_log_size, 1, 1 << 62)
    return PlanDocument(
        protocol_version=plan.protocol_version,
        cohort_id=plan.cohort_id,
        round_number=plan.round,
        task=plan.task,
        base_model=plan.base_model,
        parent_release=plan.parent_release,
        served_release=plan.served_release or None,
        slots=slots,
        training=_training(plan.training),
        parameters=parameters,
        vector=VectorLayout(
            delta_length=encoding.delta_length,
            metrics=tuple(encoding.metrics),
            encoding=Encoding(clip=encoding.value_clip, value_bits=encoding.value_bits, n_max=plan.n_max),
            metric_limits=limits_of(encoding.metrics),
            rotation=rotation_seed(identifier) if encoding.rotated else None,
        ),
        clip_norm=encoding.clip_norm,
        noise_multiplier=encoding.noise_multiplier,
        n_max=plan.n_max,
        n_min=plan.n_min,
        pool=_pool(plan.pool),
        committee=tuple(_member(place, member) for place, member in enumerate(plan.committee, start=1)),
        upload_deadline_unix_s=plan.upload_deadline_unix_s,
        latest_upload_deadline_unix_s=plan.latest_upload_deadline_unix_s,
        answer_deadline_unix_s=plan.answer_deadline_unix_s,
        seed_log_size=plan.seed_log_size,
        seed_log_root=plan.seed_log_root,
    )


def _decline_the_weak(plan: plan_pb2.Plan) -> None:
    """Decline what no owner's policy may allow, before anything is derived from it."""
    if len(plan.committee) < MIN_COMMITTEE:
        raise DeclinedError(
            f"the plan has a committee of {len(plan.committee)}; below {MIN_COMMITTEE} nobody's share is safe"
        )
    if plan.n_min < N_MIN_FLOOR:
        raise DeclinedError(
            f"the plan would open a sum over {plan.n_min} devices; fewer than {N_MIN_FLOOR} hide nobody"
        )


def _require_served(plan: plan_pb2.Plan) -> None:
    """Two releases are compared if the plan names two, and then by every metric that this takes."""
    if plan.served_release:
        _exactly("served_release", plan.served_release, HASH_BYTES)
        if plan.served_release == plan.parent_release:
            raise MalformedError("plan.served_release is the parent: there is nothing to compare")
    wanted = [name for name in COMPARING if name in plan.encoding.metrics]
    if len(wanted) != (len(COMPARING) if plan.served_release else 0):
        raise MalformedError(
            f"plan.encoding.metrics must list {', '.join(COMPARING)} where plan.served_release is named, and only there"
        )


def _training(message: plan_pb2.TrainingSettings) -> Training:
    _in_range("training.steps", message.steps, 1, MAX_STEPS)
    _in_range("training.batch_size", message.batch_size, 1, MAX_BATCH)
    _in_range("training.max_tokens", message.max_tokens, 2, MAX_TOKENS)
    _in_range("training.examples_for_full_weight", message.examples_for_full_weight, 1, 1 << 30)
    _finite("training.learning_rate", message.learning_rate, low=1e-9, high=10.0)
    for name in ("weight_decay", "gradient_clip_norm", "proximal"):
        _finite(f"training.{name}", getattr(message, name), high=1e6)
    if message.schedule not in SCHEDULES:
        raise MalformedError(f"plan.training.schedule must be one of {', '.join(SCHEDULES)}")
    return Training(
        steps=message.steps,
        batch_size=message.batch_size,
        learning_rate=message.learning_rate,
        schedule=message.schedule,
        weight_decay=message.weight_decay,
        gradient_clip_norm=message.gradient_clip_norm,
        max_tokens=message.max_tokens,
        proximal=message.proximal,
        examples_for_full_weight=message.examples_for_full_weight,
    )


def _pool(ids: Sequence[bytes]) -> tuple[DeviceId, ...]:
    _in_range("pool size", len(ids), 3, MAX_POOL)
    for item in ids:
        _exactly("pool entry", item, DEVICE_ID_BYTES)
    if any(first >= second for first, second in itertools.pairwise(ids)):
        raise MalformedError("the plan's pool is not sorted, or names a device twice")
    return tuple(DeviceId(item) for item in ids)


def _member(place: int, member: plan_pb2.CommitteeMember) -> Member:
    if member.index != place:
        raise MalformedError(f"committee member {place} carries index {member.index}; indexes are 1..C in order")
    return Member(place, prekey_from_proto(member.prekey), member.certificate)


def _exactly(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise MalformedError(f"plan.{name} has {len(value)} bytes, expected {length}")


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise MalformedError(f"plan.{name} is {value}, expected {low} to {high}")


def _finite(name: str, value: float, *, low: float = 0.0, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise MalformedError(f"plan.{name} is {value}, expected {low:g} to {high:g}")
