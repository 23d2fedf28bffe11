"""Rows of the device's journal."""

from __future__ import annotations

import os
from dataclasses import replace

from edge_client.store.contributions import State, StoredContribution

NOW = 1_800_000_000


def contribution(**changes: object) -> StoredContribution:
    """A contribution that is journaled and was not sent, with the given changes."""
    made = StoredContribution(
        cohort_id=os.urandom(32),
        plan_hash=os.urandom(32),
        task="commands",
        round=1,
        parent_release=b"p" * 32,
        parent_adapter_sha256=b"a" * 32,
        state=State.PREPARED,
        body_sha256=b"b" * 32,
        body_size_bytes=10,
        examples=5,
        n_min=3,
        upload_deadline_unix_s=NOW + 100,
        latest_prekey_expiry_unix_s=NOW + 1000,
        committee_keys=(b"k" * 91, b"l" * 91, b"m" * 91),
        erasures_required=2,
        created_at_unix_s=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # keywords of many types, checked at run time
