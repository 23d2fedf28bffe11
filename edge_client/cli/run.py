"""`edge-client run`."""

from __future__ import annotations

import os

import click

from edge_client.cli.options import Call, device_command


@click.command(epilog="Example: edge-client run --now --json", short_help="One nightly pass; what the timer calls.")
@click.option("--now", is_flag=True, help="Do not wait for mains power, an idle machine, the agreed time and the like.")
@click.option("--dry-run", is_flag=True, help="Say why it would run or not, and what it would do; do none of it.")
@device_command
def run(call: Call, *, now: bool, dry_run: bool) -> int:
    """Run one pass: send what was left over, serve on committees, adopt releases, train and contribute.

    Exit status 0 also when nothing is due; 3 trained but not sent; 4 not now, by
    the conditions or the owner's policy; 13 the coordinator cannot be reached;
    14 something could not be verified and was refused.
    """
    from edge_client.agent.nightly_pass import run_pass
    from edge_client.cli.progress import watching
    from nightshift.host.console import note

    with watching(enabled=not call.as_json) as watcher:
        report = run_pass(call.home, call.configuration(), now=now, dry_run=dry_run, watcher=watcher)
    # The journal hears of sensors that say nothing from `status`, not once an hour.
    unknown = [] if dry_run or "JOURNAL_STREAM" in os.environ else report.unknown
    for line in [*unknown, *report.notes]:
        note(f"note: {line}")
    for problem in report.problems:
        note(f"error: {problem.message}")
    lines = [str(reading) for reading in report.conditions] if dry_run else []
    failed = "nothing would be done" if dry_run else "nothing was done"
    done = report.achieved or [failed if report.problems else report.nothing]
    call.emit(report.to_json(), "\n".join(lines + done))
    return int(report.exit_code)
