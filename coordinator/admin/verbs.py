"""All verbs by the name of their call: which ask, and which change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordinator.admin import admin_verbs, enrolment_verbs, learning_verbs, release_verbs, round_verbs, system_verbs

_ASKING: tuple[Callable[..., Any], ...] = (
    system_verbs.get_status,
    system_verbs.verify_log,
    system_verbs.list_audit,
    enrolment_verbs.list_tokens,
    enrolment_verbs.list_devices,
    enrolment_verbs.get_device,
    learning_verbs.list_models,
    learning_verbs.get_model,
    learning_verbs.list_tasks,
    learning_verbs.list_releases,
    learning_verbs.get_release,
    learning_verbs.export_release,
    release_verbs.list_decisions,
    round_verbs.list_rounds,
    round_verbs.get_round,
    round_verbs.watch_round,
    admin_verbs.list_admins,
)
_CHANGING: tuple[Callable[..., Any], ...] = (
    enrolment_verbs.create_token,
    enrolment_verbs.revoke_token,
    enrolment_verbs.revoke_device,
    enrolment_verbs.clear_device,
    enrolment_verbs.acquit_device,
    learning_verbs.store_artefact,
    learning_verbs.add_model,
    learning_verbs.create_task,
    learning_verbs.pause_task,
    round_verbs.open_round,
    round_verbs.abort_round,
    release_verbs.promote_release,
    release_verbs.roll_back_release,
    admin_verbs.issue_admin,
    admin_verbs.revoke_admin,
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One call of AdminService.

    Attributes:
        function: takes an `Operator` and the request, or the stream of requests.
        changes: whether it changes something, which viewers may not.
    """

    function: Callable[..., Any]
    changes: bool


def call_name(function: Callable[..., Any]) -> str:
    """`list_devices` is ListDevices."""
    return "".join(word.capitalize() for word in function.__name__.split("_"))


VERBS = {call_name(function): Verb(function, changes=False) for function in _ASKING} | {
    call_name(function): Verb(function, changes=True) for function in _CHANGING
}
