"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "admins",
        sa.Column("admin_id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "role", sa.Enum("operator", "viewer", name="adminrole", native_enum=False, length=16), nullable=False
        ),
        sa.Column("issued_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("revoked_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_unix_s", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("admin_id"),
    )
    with op.batch_alter_table("admins", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_admins_name"), ["name"], unique=False)

    op.create_table(
        "artefacts",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id"),
    )
    op.create_table(
        "devices",
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("enrolled", "held", "revoked", name="devicestate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_not_after_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("enrolled_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("certificate_position", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("client_version", sa.Text(), nullable=False),
        sa.Column("rank_limit", sa.BigInteger(), nullable=False),
        sa.Column("prekey_epoch", sa.BigInteger(), nullable=False),
        sa.Column("nonce_before", sa.LargeBinary(), nullable=True),
        sa.Column("nonce", sa.LargeBinary(), nullable=True),
        sa.Column("held_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("quarantined_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("cleared_unix_s", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("device_id"),
    )
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_devices_last_seen_unix_s"), ["last_seen_unix_s"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("until_unix_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "log_entries",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position"),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("uses_allowed", sa.BigInteger(), nullable=False),
        sa.Column("created_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("revoked_unix_s", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_id"),
        sa.UniqueConstraint("secret_sha256"),
    )
    op.create_table(
        "models",
        sa.Column("package_id", sa.LargeBinary(), nullable=False),
        sa.Column("alias", sa.String(length=128), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("added_unix_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["package_id"],
            ["artefacts.sha256"],
        ),
        sa.PrimaryKeyConstraint("package_id"),
        sa.UniqueConstraint("alias"),
    )
    op.create_table(
        "revocations",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("device_id"),
    )
    op.create_table(
        "token_uses",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["tokens.token_id"],
        ),
        sa.PrimaryKeyConstraint("token_id", "device_id"),
    )
    op.create_table(
        "tasks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.Enum("active", "paused", name="taskstate", native_enum=False, length=16), nullable=False),
        sa.Column("package_id", sa.LargeBinary(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=False),
        sa.Column("created_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("served_unix_s", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["package_id"],
            ["models.package_id"],
        ),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "releases",
        sa.Column("release_id", sa.LargeBinary(), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.LargeBinary(), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("log_position", sa.BigInteger(), nullable=False),
        sa.Column("adapter_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("contributors", sa.BigInteger(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("restores", sa.LargeBinary(), nullable=True),
        sa.Column("server_memory_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["adapter_sha256"],
            ["artefacts.sha256"],
        ),
        sa.ForeignKeyConstraint(
            ["restores"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["log_position"],
            ["log_entries.position"],
        ),
        sa.ForeignKeyConstraint(
            ["parent"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["tasks.name"],
        ),
        sa.PrimaryKeyConstraint("release_id"),
    )
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.create_index("one_release_per_number", ["task", "number"], unique=True)

    op.create_table(
        "decisions",
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("decision_id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("served", sa.LargeBinary(), nullable=False),
        sa.Column("judged", sa.LargeBinary(), nullable=False),
        sa.Column("next_parent", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("log_position", sa.BigInteger(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["judged"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["log_position"],
            ["log_entries.position"],
        ),
        sa.ForeignKeyConstraint(
            ["next_parent"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["served"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["tasks.name"],
        ),
        sa.PrimaryKeyConstraint("task", "number"),
        sa.UniqueConstraint("decision_id"),
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_decisions_next_parent"), ["next_parent"], unique=False)

    op.create_table(
        "release_metadata",
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("expires_unix_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role", "version"),
    )
    op.create_table(
        "rounds",
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "state",
            sa.Enum("running", "published", "void", name="roundstate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("parent_release", sa.LargeBinary(), nullable=False),
        sa.Column("opened_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=False),
        sa.Column("ended_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("release_id", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_release"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["release_id"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["tasks.name"],
        ),
        sa.PrimaryKeyConstraint("task", "number"),
    )
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rounds_state"), ["state"], unique=False)

    op.create_table(
        "cohorts",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("round_number", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("open", "frozen", "opened", "void", name="cohortstate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("plan_hash", sa.LargeBinary(), nullable=False),
        sa.Column("plan_signature", sa.LargeBinary(), nullable=False),
        sa.Column("plan_position", sa.BigInteger(), nullable=False),
        sa.Column("parent_release", sa.LargeBinary(), nullable=False),
        sa.Column("trained_rank", sa.BigInteger(), nullable=False),
        sa.Column("n_min", sa.BigInteger(), nullable=False),
        sa.Column("n_max", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("created_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("upload_deadline_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("latest_upload_deadline_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("answer_deadline_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("running_sum_key", sa.Text(), nullable=True),
        sa.Column("set_hash", sa.LargeBinary(), nullable=True),
        sa.Column("set_position", sa.BigInteger(), nullable=True),
        sa.Column("answers_tried", sa.BigInteger(), nullable=False),
        sa.Column("ended_unix_s", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ended_by", sa.String(length=16), nullable=False),
        sa.Column("void_position", sa.BigInteger(), nullable=True),
        sa.Column("erased", sa.Boolean(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("members_outside", sa.Text(), nullable=False),
        sa.Column("members_disputed", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_release"],
            ["releases.release_id"],
        ),
        sa.ForeignKeyConstraint(
            ["plan_position"],
            ["log_entries.position"],
        ),
        sa.ForeignKeyConstraint(
            ["set_position"],
            ["log_entries.position"],
        ),
        sa.ForeignKeyConstraint(
            ["task", "round_number"],
            ["rounds.task", "rounds.number"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["tasks.name"],
        ),
        sa.ForeignKeyConstraint(
            ["void_position"],
            ["log_entries.position"],
        ),
        sa.PrimaryKeyConstraint("cohort_id"),
        sa.UniqueConstraint("plan_hash"),
    )
    with op.batch_alter_table("cohorts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cohorts_parent_release"), ["parent_release"], unique=False)
        batch_op.create_index(batch_op.f("ix_cohorts_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_cohorts_task"), ["task"], unique=False)

    op.create_table(
        "assignments",
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("round_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id"],
            ["cohorts.cohort_id"],
        ),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.ForeignKeyConstraint(
            ["task", "round_number"],
            ["rounds.task", "rounds.number"],
        ),
        sa.PrimaryKeyConstraint("task", "round_number", "device_id"),
    )
    op.create_table(
        "contributions",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("receiving", "counted", "discarded", name="contributionstate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_position", sa.BigInteger(), nullable=False),
        sa.Column("durable_bytes", sa.BigInteger(), nullable=False),
        sa.Column("ciphertext_tag", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_key", sa.Text(), nullable=True),
        sa.Column("counted_unix_s", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cohort_id"],
            ["cohorts.cohort_id"],
        ),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "device_id"),
    )
    op.create_table(
        "prekeys",
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("serial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("not_after_unix_s", sa.BigInteger(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("spent_on", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.ForeignKeyConstraint(
            ["spent_on"],
            ["cohorts.cohort_id"],
        ),
        sa.PrimaryKeyConstraint("device_id", "epoch", "serial"),
    )
    op.create_table(
        "committee_seats",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("member_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("prekey_epoch", sa.BigInteger(), nullable=False),
        sa.Column("prekey_serial", sa.BigInteger(), nullable=False),
        sa.Column("certificate_position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id"],
            ["cohorts.cohort_id"],
        ),
        sa.ForeignKeyConstraint(
            ["device_id", "prekey_epoch", "prekey_serial"],
            ["prekeys.device_id", "prekeys.epoch", "prekeys.serial"],
        ),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.device_id"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "member_index"),
    )
    with op.batch_alter_table("committee_seats", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_committee_seats_device_id"), ["device_id"], unique=False)

    op.create_table(
        "upload_parts",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id", "device_id"],
            ["contributions.cohort_id", "contributions.device_id"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "device_id", "offset_bytes"),
    )
    op.create_table(
        "answers",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("member_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("set_hash", sa.LargeBinary(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id", "member_index"],
            ["committee_seats.cohort_id", "committee_seats.member_index"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "member_index"),
    )
    op.create_table(
        "erasures",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("member_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("time_unix_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id", "member_index"],
            ["committee_seats.cohort_id", "committee_seats.member_index"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "member_index"),
    )
    op.create_table(
        "refusals",
        sa.Column("cohort_id", sa.LargeBinary(), nullable=False),
        sa.Column("member_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("contributor", sa.LargeBinary(), nullable=False),
        sa.Column("fault", sa.BigInteger(), nullable=False),
        sa.Column("set_hash", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cohort_id", "member_index"],
            ["erasures.cohort_id", "erasures.member_index"],
        ),
        sa.ForeignKeyConstraint(
            ["cohort_id", "contributor"],
            ["contributions.cohort_id", "contributions.device_id"],
        ),
        sa.PrimaryKeyConstraint("cohort_id", "member_index", "contributor"),
    )
