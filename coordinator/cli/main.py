"""`coordinator`: the operator's command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select

from coordinator.cli.command import coordinator, data_directory, json_option
from coordinator.configuration import DATA_VARIABLE, Listen
from coordinator.home import Home
from nightshift.host.clock import now_unix_s
from nightshift.host.configuration import validated
from nightshift.host.console import emit, exit_with
from nightshift.host.tls import prepare_grpc
from nightshift.protocol.errors import BusyError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=DATA_VARIABLE,
    default=Path("coordinator-data"),
    show_default=True,
    show_envvar=True,
    help="The coordinator's directory.",
)
@click.pass_context
def cli(context: click.Context, data: Path) -> None:
    """Coordinates devices that learn at night and share only sums."""
    from coordinator import diagnostics

    diagnostics.configure(as_json=False, level="warning")
    context.obj = data.absolute()


@cli.command()
@click.option("--address", "addresses", multiple=True, metavar="HOST", help="Name or IP address that devices call.")
@click.option("--bind", "host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - see Listen
@click.option("--port", type=int, default=7443, show_default=True, help="Listener for enrolled devices.")
@click.option("--join-port", type=int, default=7444, show_default=True, help="Listener for devices that join.")
@json_option
@click.pass_context
def init(
    context: click.Context, *, addresses: tuple[str, ...], host: str, port: int, join_port: int, as_json: bool
) -> None:
    """Make keys, certificates, the database and coordinator.toml."""
    from coordinator.audit import record
    from coordinator.deployment import initialise, opened

    directory = data_directory(context)
    fields = {"addresses": list(addresses) or ["localhost"], "host": host, "port": port, "join_port": join_port}
    if port == join_port:
        raise UsageError("--port and --join-port must differ: each listener has its own rules")
    listen = validated(Listen, fields, "init")
    initialise(Home(directory), listen)
    with opened(directory) as deployment:
        with deployment.database.transaction() as session:
            record(session, "init", str(directory), addresses=listen.addresses)
        result = {
            "data": str(directory),
            "device_address": deployment.configuration.device_address(),
            "join_address": deployment.configuration.join_address(),
            "log_origin": deployment.log.origin,
        }
    emit(
        result,
        as_json=as_json,
        text=f"initialised {directory}\nnext: coordinator --data {directory} serve",
    )


@cli.command()
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def serve(context: click.Context, log_format: str) -> None:
    """Serve devices until SIGTERM."""
    from coordinator import diagnostics
    from coordinator.service.server import EndSignal, serving

    diagnostics.configure(as_json=log_format == "json")
    end = EndSignal()
    with coordinator(context) as deployment, serving(deployment):
        addresses = deployment.configuration
        click.echo(f"ready: devices at {addresses.device_address()}, joining at {addresses.join_address()}")
        sys.stdout.flush()
        end.wait()


@cli.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Say whether the service runs, who is enrolled, and how the tasks stand."""
    from coordinator.admin.records import round_record, task_record
    from coordinator.rounds.pool import pool
    from coordinator.rounds.rounds import running
    from coordinator.rounds.tasks import list_tasks
    from coordinator.storage.rows import Device, DeviceState

    with coordinator(context) as deployment, deployment.database.reading() as session:
        now = now_unix_s()
        counts = session.execute(select(Device.state, func.count().label("devices")).group_by(Device.state))
        states = {row.state: row.devices for row in counts}
        result: dict[str, Any] = {
            "serving": _is_serving(deployment.home),
            "device_address": deployment.configuration.device_address(),
            "join_address": deployment.configuration.join_address(),
            "devices_enrolled": states.get(DeviceState.ENROLLED, 0),
            "devices_held": states.get(DeviceState.HELD, 0),
            "devices_revoked": states.get(DeviceState.REVOKED, 0),
            "devices_in_pool": len(pool(session, now_unix_s=now, answer_deadline_unix_s=now)),
            "intermediate_days": deployment.authority.intermediate_days_left(now),
            "log_size": deployment.log.snapshot(session).size,
            "tasks": [task_record(session, task) for task in list_tasks(session)],
            "rounds": [round_record(session, found) for found in running(session)],
        }
    emit(result, as_json=as_json, text=_status_text(result))


def _is_serving(home: Home) -> bool:
    from nightshift.host.files import exclusive_lock

    try:
        with exclusive_lock(home.lock_file):
            return False
    except BusyError:
        return True


def _status_text(result: dict[str, Any]) -> str:
    from coordinator.cli.round_views import progress_text
    from coordinator.enrolment.authority import INTERMEDIATE_WARNING_DAYS

    health = "serving" if result["serving"] else "not serving; start it with: coordinator serve"
    lines = [
        health,
        f"devices at {result['device_address']}, joining at {result['join_address']}",
        f"{result['devices_enrolled']} devices enrolled, {result['devices_in_pool']} of them seen in the last 48 h "
        f"with a prekey; {result['devices_revoked']} revoked",
    ]
    if result["intermediate_days"] < INTERMEDIATE_WARNING_DAYS:
        lines.append(
            f"ATTENTION: the intermediate certificate ends in {result['intermediate_days']} days, "
            "and all others with it; see: coordinator ca --help"
        )
    if result["devices_held"]:
        lines.append(f"ATTENTION: {result['devices_held']} devices exist twice and are held: coordinator device list")
    lines += [
        f"task {task['name']}: {task['state']}, {task['releases']} releases in {task['rounds_held']} rounds"
        for task in result["tasks"]
    ]
    lines += [progress_text(row) for row in result["rounds"]]
    return "\n".join(lines)


def _run() -> None:
    from coordinator.cli import authority, enrolment, learning, models, rounds

    for group in (*enrolment.GROUPS, *authority.GROUPS, *models.GROUPS, *learning.GROUPS, *rounds.GROUPS):
        cli.add_command(group)
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error


def main() -> None:
    """Entry point: runs the command and ends with its exit code (docs/operations.md)."""
    prepare_grpc()
    code = exit_with(_run)
    sys.stdout.flush()
    # grpc keeps threads that may outlive the interpreter's shutdown; everything is closed by now.
    os._exit(code)
