"""The rows of the coordinator: what it must still know after being killed at any instruction.

Hashes, sizes, states and signed bytes; never a private key, never a token's
secret, never a device's delta. Whatever is large is an object
(`coordinator.storage.objects`) and has its key here. All times are Unix
seconds by the coordinator's clock, all ids and hashes 32 raw bytes. The types
are those that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text
from sqlalchemy import Enum as ChoiceType
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column


class DeviceState(StrEnum):
    """Whether a device may speak."""

    ENROLLED = "enrolled"
    HELD = "held"  # its identity seems to exist twice: coordinator.enrolment.clones
    REVOKED = "revoked"


class CohortState(StrEnum):
    """Where a cohort stands; the rules are in `coordinator.rounds.states`."""

    OPEN = "open"
    FROZEN = "frozen"
    OPENED = "opened"
    VOID = "void"


class RoundState(StrEnum):
    """Where a round stands; the rules are in `coordinator.rounds.states`."""

    RUNNING = "running"
    PUBLISHED = "published"
    VOID = "void"


class ContributionState(StrEnum):
    """How far a contribution has come.

    RECEIVING: some bytes are durable. COUNTED: checked, folded into the running
    sum, and so a part of U. DISCARDED: its cohort closed before it was complete.
    """

    RECEIVING = "receiving"
    COUNTED = "counted"
    DISCARDED = "discarded"


class TaskState(StrEnum):
    """Whether a task opens new rounds."""

    ACTIVE = "active"
    PAUSED = "paused"


class AdminRole(StrEnum):
    """What an operator may do."""

    OPERATOR = "operator"
    VIEWER = "viewer"  # may ask, not change


def _choice(kind: type[StrEnum]) -> ChoiceType:
    # Stored as text with the enum's values, so that both databases and a person read the same.
    return ChoiceType(kind, native_enum=False, length=16, values_callable=lambda e: [m.value for m in e])


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """All tables of the coordinator."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        int: BigInteger,
        bytes: LargeBinary,
        str: Text,
        DeviceState: _choice(DeviceState),
        CohortState: _choice(CohortState),
        RoundState: _choice(RoundState),
        ContributionState: _choice(ContributionState),
        TaskState: _choice(TaskState),
        AdminRole: _choice(AdminRole),
    }


class Setting(Base):
    """A fact about this deployment that is decided once, such as the log's origin."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Lease(Base):
    """Which process leads, and until when; `coordinator.leases`."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    holder: Mapped[str]
    token: Mapped[int]  # grows whenever the lease changes hands
    until_unix_ms: Mapped[int]  # by the database's clock


class Token(Base):
    """A join token, known by the hash of its secret."""

    __tablename__ = "tokens"

    token_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    secret_sha256: Mapped[bytes] = mapped_column(unique=True)
    uses_allowed: Mapped[int]
    created_unix_s: Mapped[int]
    expires_unix_s: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    revoked_unix_s: Mapped[int | None] = mapped_column(default=None)


class Device(Base):
    """An enrolled device, known by its key."""

    __tablename__ = "devices"

    device_id: Mapped[bytes] = mapped_column(primary_key=True)
    state: Mapped[DeviceState]
    name: Mapped[str]
    certificate: Mapped[bytes]
    certificate_not_after_unix_s: Mapped[int]
    enrolled_unix_s: Mapped[int]
    certificate_position: Mapped[int | None] = mapped_column(default=None)  # of its enrolment in the log
    last_seen_unix_s: Mapped[int | None] = mapped_column(default=None, index=True)
    client_version: Mapped[str] = mapped_column(default="")
    rank_limit: Mapped[int] = mapped_column(default=0)  # most rank slots that it trains, as it says; 0: any number
    prekey_epoch: Mapped[int] = mapped_column(default=0)
    nonce_before: Mapped[bytes | None] = mapped_column(default=None)  # what the last check-in presented
    nonce: Mapped[bytes | None] = mapped_column(default=None)  # what the next one has to present
    held_unix_s: Mapped[int | None] = mapped_column(default=None)
    quarantined_unix_s: Mapped[int | None] = mapped_column(default=None)  # no plans: coordinator.rounds.suspects
    cleared_unix_s: Mapped[int | None] = mapped_column(default=None)  # by the operator; what was before is forgotten


class TokenUse(Base):
    """That a device joined with a token; makes a repeated join the same join."""

    __tablename__ = "token_uses"

    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.token_id"), primary_key=True)
    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    time_unix_s: Mapped[int]


class Revocation(Base):
    """One entry of the revocation list, whose number is the newest entry's."""

    __tablename__ = "revocations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), unique=True)
    time_unix_s: Mapped[int]
    reason: Mapped[str]


class LogEntryRow(Base):
    """A leaf of the transparency log, as the bytes that were hashed."""

    __tablename__ = "log_entries"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entry: Mapped[bytes]
    leaf_hash: Mapped[bytes]


class AuditRow(Base):
    """Who changed what: one row for each mutating command."""

    __tablename__ = "audit"

    # SQLite numbers rows by itself only in a column of type INTEGER.
    audit_id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, init=False)
    time_unix_s: Mapped[int]
    actor: Mapped[str]
    verb: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[str]


class AdminRow(Base):
    """An operator, known by the key of a certificate of the admin authority."""

    __tablename__ = "admins"

    admin_id: Mapped[bytes] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[AdminRole]
    issued_unix_s: Mapped[int]
    expires_unix_s: Mapped[int]
    revoked_unix_s: Mapped[int | None] = mapped_column(default=None)
    last_seen_unix_s: Mapped[int | None] = mapped_column(default=None)


class Artefact(Base):
    """A file that devices may fetch by its hash."""

    __tablename__ = "artefacts"

    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    size_bytes: Mapped[int]
    object_key: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))


class Model(Base):
    """A model package; its files are artefacts, found through the manifest."""

    __tablename__ = "models"

    package_id: Mapped[bytes] = mapped_column(ForeignKey("artefacts.sha256"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), unique=True)
    manifest: Mapped[bytes]
    added_unix_s: Mapped[int]


class Task(Base):
    """What is learned: a model, an adapter's shape, and how rounds are held."""

    __tablename__ = "tasks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[TaskState]
    package_id: Mapped[bytes] = mapped_column(ForeignKey("models.package_id"))
    settings: Mapped[str]  # TaskSettings as JSON
    seed: Mapped[bytes]  # fixes the adapter of release 0; public
    created_unix_s: Mapped[int]
    served_unix_s: Mapped[int | None] = mapped_column(default=None)  # its last turn: coordinator.rounds.turns


class ReleaseRow(Base):
    """A published adapter: the signed bytes and where the log holds them."""

    __tablename__ = "releases"
    __table_args__ = (Index("one_release_per_number", "task", "number", unique=True),)

    release_id: Mapped[bytes] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(ForeignKey("tasks.name"))
    number: Mapped[int]
    parent: Mapped[bytes | None] = mapped_column(ForeignKey("releases.release_id"))
    document: Mapped[bytes]
    signature: Mapped[bytes]
    log_position: Mapped[int] = mapped_column(ForeignKey("log_entries.position"))
    adapter_sha256: Mapped[bytes] = mapped_column(ForeignKey("artefacts.sha256"))
    contributors: Mapped[int]
    time_unix_s: Mapped[int]
    restores: Mapped[bytes | None] = mapped_column(ForeignKey("releases.release_id"), default=None)
    """The earlier release whose adapter this is again; none for one that was learned."""
    server_memory_key: Mapped[str | None] = mapped_column(default=None)
    """Object with what the server's optimiser remembers after this release; none without such a memory."""


class ReleaseMetadataRow(Base):
    """A file of the release metadata (TUF) as it was signed; `coordinator.releases.repository`."""

    __tablename__ = "release_metadata"

    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    document: Mapped[bytes]
    expires_unix_s: Mapped[int]


class DecisionRow(Base):
    """What devices of a task serve from a moment on, and why: the signed bytes and where the log holds them."""

    __tablename__ = "decisions"

    task: Mapped[str] = mapped_column(ForeignKey("tasks.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    decision_id: Mapped[bytes] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(String(32))  # nightshift.protocol.decision.DecisionKind, in words
    served: Mapped[bytes] = mapped_column(ForeignKey("releases.release_id"))
    judged: Mapped[bytes] = mapped_column(ForeignKey("releases.release_id"))
    next_parent: Mapped[bytes] = mapped_column(ForeignKey("releases.release_id"), index=True)
    reason: Mapped[str]
    document: Mapped[bytes]
    signature: Mapped[bytes]
    log_position: Mapped[int] = mapped_column(ForeignKey("log_entries.position"))
    time_unix_s: Mapped[int]


class Round(Base):
    """One night's learning of one task: its cohorts share a parent, and what they learn becomes one release."""

    __tablename__ = "rounds"

    task: Mapped[str] = mapped_column(ForeignKey("tasks.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[RoundState] = mapped_column(index=True)
    parent_release: Mapped[bytes] = mapped_column(ForeignKey("releases.release_id"))
    opened_unix_s: Mapped[int]
    seed: Mapped[bytes] = mapped_column(default=b"")  # of `rounds.assignment`; follows from the plans' hashes
    ended_unix_s: Mapped[int | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(default="")
    metrics: Mapped[str] = mapped_column(default="{}")  # means over all opened cohorts, as JSON
    release_id: Mapped[bytes | None] = mapped_column(ForeignKey("releases.release_id"), default=None)


class Cohort(Base):
    """One cohort from its plan to its end."""

    __tablename__ = "cohorts"
    __table_args__ = (ForeignKeyConstraint(["task", "round_number"], ["rounds.task", "rounds.number"]),)

    cohort_id: Mapped[bytes] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(ForeignKey("tasks.name"), index=True)
    round_number: Mapped[int]
    state: Mapped[CohortState] = mapped_column(index=True)
    plan: Mapped[bytes]
    plan_hash: Mapped[bytes] = mapped_column(unique=True)
    plan_signature: Mapped[bytes]
    plan_position: Mapped[int] = mapped_column(ForeignKey("log_entries.position"))
    parent_release: Mapped[bytes] = mapped_column(ForeignKey("releases.release_id"), index=True)
    trained_rank: Mapped[int]
    n_min: Mapped[int]
    n_max: Mapped[int]
    threshold: Mapped[int]
    created_unix_s: Mapped[int]
    upload_deadline_unix_s: Mapped[int]
    latest_upload_deadline_unix_s: Mapped[int]
    answer_deadline_unix_s: Mapped[int]
    counted: Mapped[int] = mapped_column(default=0)
    running_sum_key: Mapped[str | None] = mapped_column(default=None)
    set_hash: Mapped[bytes | None] = mapped_column(default=None)
    set_position: Mapped[int | None] = mapped_column(ForeignKey("log_entries.position"), default=None)
    answers_tried: Mapped[int] = mapped_column(default=0)
    ended_unix_s: Mapped[int | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(default="")
    ended_by: Mapped[str] = mapped_column(String(16), default="")  # the event of `rounds.states` that made it void
    void_position: Mapped[int | None] = mapped_column(ForeignKey("log_entries.position"), default=None)
    erased: Mapped[bool] = mapped_column(default=False)  # its objects are gone; only after it ended
    metrics: Mapped[str] = mapped_column(default="{}")  # means over the cohort, as JSON
    members_outside: Mapped[str] = mapped_column(default="[]")  # members whose answers provably do not fit
    members_disputed: Mapped[str] = mapped_column(default="[]")  # that disagree with the sum where it proves nothing


class AssignmentRow(Base):
    """Which cohort of a round a device may contribute to."""

    __tablename__ = "assignments"
    __table_args__ = (ForeignKeyConstraint(["task", "round_number"], ["rounds.task", "rounds.number"]),)

    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    round_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    cohort_id: Mapped[bytes] = mapped_column(ForeignKey("cohorts.cohort_id"))


class PrekeyRow(Base):
    """A device's one-time public key; spent as soon as a plan names it."""

    __tablename__ = "prekeys"

    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    serial: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    not_after_unix_s: Mapped[int]
    public_key: Mapped[bytes]
    signature: Mapped[bytes]
    spent_on: Mapped[bytes | None] = mapped_column(ForeignKey("cohorts.cohort_id"), default=None)


class CommitteeSeat(Base):
    """Which device holds which index of a cohort's committee, and its answer's state."""

    __tablename__ = "committee_seats"
    __table_args__ = (
        ForeignKeyConstraint(
            ["device_id", "prekey_epoch", "prekey_serial"],
            ["prekeys.device_id", "prekeys.epoch", "prekeys.serial"],
        ),
    )

    cohort_id: Mapped[bytes] = mapped_column(ForeignKey("cohorts.cohort_id"), primary_key=True)
    member_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), index=True)
    prekey_epoch: Mapped[int]
    prekey_serial: Mapped[int]
    certificate_position: Mapped[int]  # log entry of the enrolment under which the plan's certificate was issued


class Contribution(Base):
    """What one device uploads for one cohort: how much is durable, and whether it counts."""

    __tablename__ = "contributions"

    cohort_id: Mapped[bytes] = mapped_column(ForeignKey("cohorts.cohort_id"), primary_key=True)
    device_id: Mapped[bytes] = mapped_column(ForeignKey("devices.device_id"), primary_key=True)
    state: Mapped[ContributionState]
    size_bytes: Mapped[int]
    signature: Mapped[bytes]  # as announced; the body ends with it
    certificate: Mapped[bytes]
    certificate_position: Mapped[int]  # log entry of the enrolment under which it was issued
    durable_bytes: Mapped[int] = mapped_column(default=0)
    ciphertext_tag: Mapped[bytes | None] = mapped_column(default=None)
    sealed_sha256: Mapped[bytes | None] = mapped_column(default=None)  # the C hashes, one after another
    sealed_key: Mapped[str | None] = mapped_column(default=None)
    counted_unix_s: Mapped[int | None] = mapped_column(default=None)


class UploadPart(Base):
    """A durable piece of an upload; erased once the contribution is counted or discarded."""

    __tablename__ = "upload_parts"
    __table_args__ = (
        ForeignKeyConstraint(["cohort_id", "device_id"], ["contributions.cohort_id", "contributions.device_id"]),
    )

    cohort_id: Mapped[bytes] = mapped_column(primary_key=True)
    device_id: Mapped[bytes] = mapped_column(primary_key=True)
    offset_bytes: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size_bytes: Mapped[int]
    object_key: Mapped[str]


class AnswerRow(Base):
    """A committee member's answer: a sum of shares, signed."""

    __tablename__ = "answers"
    __table_args__ = (
        ForeignKeyConstraint(
            ["cohort_id", "member_index"], ["committee_seats.cohort_id", "committee_seats.member_index"]
        ),
    )

    cohort_id: Mapped[bytes] = mapped_column(primary_key=True)
    member_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    set_hash: Mapped[bytes]
    vector: Mapped[bytes]
    signature: Mapped[bytes]
    time_unix_s: Mapped[int]


class ErasureRow(Base):
    """A committee member's statement that it never answered and erased its prekey; it excludes an answer."""

    __tablename__ = "erasures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["cohort_id", "member_index"], ["committee_seats.cohort_id", "committee_seats.member_index"]
        ),
    )

    cohort_id: Mapped[bytes] = mapped_column(primary_key=True)
    member_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    signature: Mapped[bytes]
    time_unix_s: Mapped[int]


class RefusalRow(Base):
    """A committee member's word that it cannot use a contributor's share; one row for each share that it named."""

    __tablename__ = "refusals"
    __table_args__ = (
        ForeignKeyConstraint(["cohort_id", "member_index"], ["erasures.cohort_id", "erasures.member_index"]),
        ForeignKeyConstraint(["cohort_id", "contributor"], ["contributions.cohort_id", "contributions.device_id"]),
    )

    cohort_id: Mapped[bytes] = mapped_column(primary_key=True)
    member_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    contributor: Mapped[bytes] = mapped_column(primary_key=True)
    fault: Mapped[int]  # nightshift.protocol.secagg.refusal.ShareFault
    set_hash: Mapped[bytes]
    signature: Mapped[bytes]  # over the whole refusal, so the same in each of its rows
