"""`edge-client status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.store import Store
    from edge_client.store.contributions import StoredContribution
    from edge_client.store.records import Pass

MOST_VOIDS = 5
"""How many void cohorts are shown, the newest."""


@click.command(epilog="Example: edge-client status --json", short_help="Health, and why it would or would not run now.")
@device_command
def status(call: Call) -> None:
    """Say how the device is; the first line is the answer, the rest are the reasons."""
    from edge_client.agent.eligibility import checklist
    from edge_client.conditions import Verdict
    from edge_client.identity import load_identity, load_membership
    from edge_client.ledger import readable_time
    from edge_client.store import open_store
    from nightshift.host.files import is_locked
    from nightshift.host.wording import fact
    from nightshift.protocol.certificates import read_device_certificate
    from nightshift.protocol.readable_ids import readable_id

    configuration = call.configuration()
    identity, membership = load_identity(call.home), load_membership(call.home)
    if identity is None or membership is None:
        health = "not joined; ask an operator for a token and run: edge-client join TOKEN"
        call.emit({"health": health, "joined": False}, health)
        return
    with open_store(call.home) as store:
        asked = checklist(call.home, configuration, membership, store).before_a_pass()
        readings = [condition.read() for condition in asked]
        facts = _facts(store, running=is_locked(call.home.lock_file))
    blocking = [reading.reason for reading in readings if reading.verdict is Verdict.NO]
    health = _health(facts, blocking)
    value = {
        "health": health,
        "joined": True,
        "device_id": identity.device_id.hex(),
        "name": membership.device_name,
        "coordinator": membership.device_address,
        "joined_at": readable_time(membership.joined_unix_s),
        "certificate_expires": readable_time(read_device_certificate(membership.certificate).not_after_unix_s),
        "would_run_now": not blocking,
        "conditions": [reading.to_json() for reading in readings],
        **facts,
    }
    lines = [
        health,
        fact("device", readable_id(identity.device_id)),
        fact("coordinator", membership.device_address),
        fact("certificate", f"until {value['certificate_expires']}, renewed by itself"),
        *(str(reading) for reading in readings),
        *_history(facts),
        *(["DEBUG: what is encrypted is also kept in the clear"] if configuration.debug.keep_encoded_vector else []),
        *(
            f"SECURITY {event['time']}{', before this device left' * event['before_leaving']}: {event['sentence']}"
            for event in facts["security_events"]
        ),
    ]
    call.emit(value, "\n".join(lines))


def _history(facts: dict[str, Any]) -> list[str]:
    """What was done here, and when it goes on."""
    from nightshift.host.wording import fact, number_of

    lines = [fact("last pass", facts["last_pass"] or "none")]
    if facts["waiting_until"]:
        lines.append(fact("next pass", f"the timer's passes connect after {facts['waiting_until']}"))
    if facts["cut_off_until"]:
        lines.append(fact("training", f"cut off; a pass before {facts['cut_off_until']} goes on with it"))
    if facts["store_lost_at"]:
        lines.append(fact("memory", f"begins {facts['store_lost_at']}; what was before was erased or lost"))
    answers = number_of(facts["answers"], "answer")
    return [
        *lines,
        fact("in use", ", ".join(facts["adapters_in_use"]) or "no adapter"),
        *(fact("chosen", f"by the owner, for {pinned}") for pinned in facts["adapters_pinned"]),
        *(fact("kept back", kept) for kept in facts["adapters_kept_back"]),
        fact("given", f"{number_of(facts['contributions'], 'contribution')}, {answers} as committee member"),
        *(fact("void", void["sentence"]) for void in facts["void_contributions"]),
    ]


def _facts(store: Store, *, running: bool) -> dict[str, Any]:
    from edge_client.agent import pace
    from edge_client.ledger import readable_time
    from edge_client.store.records import LEFT
    from nightshift.host.clock import now_unix_s

    last = store.records.last_pass()
    waiting = pace.wait_until(store.database, now_unix_s(), work_waits=bool(store.contributions.unfinished()))
    next_check_in = store.database.number(pace.NEXT_CHECK_IN)
    cut_off = pace.cut_off_until(store.database, now_unix_s())
    lost_at = store.database.lost_at_unix_s
    left_unix_s = store.database.number(LEFT) or 0
    found = {task: store.adapters.in_use(task) for task in store.adapters.tasks()}
    in_use = {task: pair for task, pair in found.items() if pair is not None}
    return {
        "running": running,
        "last_pass": None
        if last is None
        else f"{readable_time(last.started_at_unix_s)}, {_end(last, running=running)}",
        "next_check_in": None if next_check_in is None else readable_time(next_check_in),
        "cut_off_until": None if cut_off is None or running else readable_time(cut_off),
        "waiting_until": None if waiting is None else readable_time(waiting),
        "adapters_in_use": [pair.current for pair in in_use.values() if pair.current is not None],
        "adapters_pinned": [
            f"{task}: {pair.current or 'the bare base model'}; edge-client adapter follow {task} takes it back"
            for task, pair in in_use.items()
            if pair.pinned
        ],
        "adapters_kept_back": [
            f"{task}: the served release is worse on this device's own text; {pair.current} stays in use"
            for task, pair in in_use.items()
            if store.served.keeps_another(task) and not pair.pinned
        ],
        "data_sources": len(store.records.sources()),
        "contributions": len(store.contributions.recent(1_000_000)),
        "unfinished_uploads": len(store.contributions.unfinished()),
        "answers": store.answers.count(),
        "void_contributions": [_void(contribution) for contribution in store.contributions.voided()[:MOST_VOIDS]],
        "prekeys": len(store.prekeys.unspent()),
        "log_size": store.database.number("log_size") or 0,
        "store_lost_at": None if lost_at is None else readable_time(lost_at),
        "security_events": [
            {
                "time": readable_time(e.time_unix_s),
                "kind": e.kind,
                "sentence": e.sentence,
                "before_leaving": e.time_unix_s <= left_unix_s,
            }
            for e in store.records.security_events()
        ],
    }


def _end(last: Pass, *, running: bool) -> str:
    if last.ended_at_unix_s is not None:
        return f"exit {last.exit_code}: {last.summary}"
    return "under way" if running else "cut off"


def _void(contribution: StoredContribution) -> dict[str, Any]:
    """What became of a contribution whose cohort ended without a sum."""
    from edge_client.ledger import readable_time

    until = readable_time(contribution.latest_prekey_expiry_unix_s)
    name = f"round {contribution.round} of task {contribution.task!r} ended without a sum"
    if contribution.laid_to_rest_at_unix_s is not None:
        sentence = f"{name}; its committee erased their keys, nobody can open it any more"
    else:
        sentence = (
            f"{name}; this device contributes to the same parent again when {contribution.erasures_required} of the "
            f"committee have stated that they erased their keys, at the latest after {until}"
        )
    return {
        "cohort": contribution.cohort_id.hex(),
        "laid_to_rest": contribution.laid_to_rest_at_unix_s is not None,
        "keys_expire": until,
        "sentence": sentence,
    }


def _health(facts: dict[str, Any], blocking: list[str]) -> str:
    from nightshift.host.wording import number_of

    present = [event for event in facts["security_events"] if not event["before_leaving"]]
    if present:
        done = number_of(len(present), "thing")
        return f"ATTENTION: the coordinator did {done} that it may not do; see below"
    if facts["running"]:
        return "healthy; at work now"
    if facts["data_sources"] == 0:
        return "healthy, but there is no text to learn from: edge-client data add PATH --format chat|prompt|text|csv"
    if blocking:
        return f"healthy; would not run now: {'; '.join(blocking)}"
    return "healthy; would run now"
