"""`coordinator`: the operator's command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from coordinator.cli.api import admin_api
from coordinator.cli.command import Target, coordinator, data_directory, json_option
from coordinator.configuration import (
    ADMIN_ADDRESS_VARIABLE,
    ADMIN_CREDENTIALS_VARIABLE,
    DATA_VARIABLE,
    LOG_FORMAT_VARIABLE,
    Listen,
    Storage,
)
from coordinator.home import Home
from nightshift.host.configuration import validated
from nightshift.host.console import emit, exit_with
from nightshift.host.tls import prepare_grpc
from nightshift.protocol.errors import UsageError

FIRST_ADMIN = "first"


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
@click.option(
    "--coordinator",
    "address",
    metavar="HOST:PORT",
    envvar=ADMIN_ADDRESS_VARIABLE,
    default="",
    show_envvar=True,
    help="Admin listener of a coordinator elsewhere, where it is not the one that the credentials name.",
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=ADMIN_CREDENTIALS_VARIABLE,
    show_envvar=True,
    help="Work on a coordinator elsewhere, as the operator of this file (coordinator admin issue).",
)
@click.version_option(version("nightshift"), prog_name="coordinator")
@click.pass_context
def cli(context: click.Context, data: Path, address: str, credentials: Path | None) -> None:
    """Coordinates devices that learn at night and share only sums.

    On the coordinator's own machine, commands work in its directory (--data),
    also while it does not serve; from elsewhere they need --credentials.
    """
    from coordinator import diagnostics

    diagnostics.configure(log_format="text", level="warning")
    context.obj = Target(data.absolute(), address, credentials)


@cli.command(
    short_help="Make keys, certificates, database and coordinator.toml.",
    epilog="Example: coordinator --data /srv/nightshift init --address nights.example --admin-bind 0.0.0.0",
)
@click.option("--address", "addresses", multiple=True, metavar="HOST", help="Name or IP address that devices call.")
@click.option("--bind", "host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - see Listen
@click.option("--port", type=int, default=7443, show_default=True, help="Listener for enrolled devices.")
@click.option("--join-port", type=int, default=7444, show_default=True, help="Listener for devices that join.")
@click.option("--admin-bind", "admin_host", default="127.0.0.1", show_default=True, help="Address for operators.")
@click.option("--admin-port", type=int, default=7445, show_default=True, help="Listener for operators; 0 for none.")
@click.option("--database", metavar="URL", default="", help="postgresql://user@host/name; SQLite in --data if absent.")
@click.option("--objects", metavar="URL", default="", help="s3://bucket/prefix; a directory in --data if absent.")
@click.option("--objects-endpoint", metavar="URL", default="", help="Of an S3 store other than Amazon's.")
@click.option("--objects-region", default="us-east-1", show_default=True, help="Of the bucket.")
@json_option
@click.pass_context
def init(
    context: click.Context,
    /,
    *,
    addresses: tuple[str, ...],
    database: str,
    objects: str,
    objects_endpoint: str,
    objects_region: str,
    as_json: bool,
    **listeners: str | int,
) -> None:
    """Make keys, certificates, the database, coordinator.toml, and credentials for the first operator."""
    from coordinator.audit import record
    from coordinator.cli.admins import issue
    from coordinator.deployment import initialise

    directory = data_directory(context)
    listen = validated(Listen, {"addresses": list(addresses) or ["localhost"], **listeners}, "init")
    if len({listen.port, listen.join_port, listen.admin_port}) < 3:
        raise UsageError("--port, --join-port and --admin-port must differ: each listener has its own rules")
    home = Home(directory)
    places = {
        "database": database,
        "objects": objects,
        "objects_endpoint": objects_endpoint,
        "objects_region": objects_region,
    }
    initialise(home, listen, validated(Storage, places, "init"))
    with coordinator(context) as deployment:
        with deployment.database.transaction() as session:
            record(session, "init", str(directory), addresses=listen.addresses)
        result = {
            "data": str(directory),
            "device_address": deployment.configuration.device_address(),
            "join_address": deployment.configuration.join_address(),
            "admin_address": deployment.configuration.admin_address() or None,
            "admin_credentials": str(home.first_credentials_file),
            "log_origin": deployment.log.origin,
        }
    with admin_api(context) as api:
        issue(api, FIRST_ADMIN, home.first_credentials_file, role="operator", days=365)
    emit(
        result,
        as_json=as_json,
        text=f"initialised {directory}\n"
        f"credentials to operate it from elsewhere: {home.first_credentials_file}\n"
        f"next: coordinator --data {directory} serve",
    )


@cli.command(short_help="Serve devices until SIGTERM.", epilog="Example: coordinator --data /srv/nightshift serve")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json", "console"]),
    default="auto",
    envvar=LOG_FORMAT_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="auto: console on a terminal, JSON under systemd, text (logfmt) elsewhere.",
)
@click.pass_context
def serve(context: click.Context, log_format: str) -> None:
    """Serve devices until SIGTERM, then let the calls that are under way end."""
    from coordinator import diagnostics
    from coordinator.audit import act_for_the_service
    from coordinator.service.memory import give_memory_back
    from coordinator.service.server import EndSignal, serving

    give_memory_back()
    diagnostics.configure(log_format=log_format)
    act_for_the_service()
    end = EndSignal()
    with coordinator(context) as deployment, serving(deployment):
        addresses = deployment.configuration
        click.echo(f"ready: devices at {addresses.device_address()}, joining at {addresses.join_address()}")
        sys.stdout.flush()
        end.wait()


@cli.command(short_help="How everything stands.", epilog="Example: coordinator --credentials carol.toml status")
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Say whether the service runs, who is enrolled, and how the tasks stand."""
    from coordinator.admin.messages import to_record
    from coordinator.admin.system_verbs import get_status
    from nightshift.admin.v1 import admin_pb2 as pb

    with admin_api(context) as api:
        result = to_record(api.call(get_status, pb.GetStatusRequest()))
    emit(result, as_json=as_json, text=_status_text(result))


def _status_text(result: dict[str, Any]) -> str:
    from coordinator.cli.round_views import progress_text
    from coordinator.enrolment.authority import INTERMEDIATE_WARNING_DAYS
    from nightshift.host.wording import number_of

    health = "serving" if result["serving"] else "not serving; start it with: coordinator serve"
    lines = [
        health,
        f"devices at {result['device_address']}, joining at {result['join_address']}",
        f"{number_of(result['devices_enrolled'], 'device')} enrolled, {result['devices_in_pool']} seen in the last "
        f"48 h with a prekey; {result['devices_revoked']} revoked",
    ]
    if result["intermediate_days"] < INTERMEDIATE_WARNING_DAYS:
        lines.append(
            f"ATTENTION: the intermediate certificate ends in {number_of(result['intermediate_days'], 'day')}, "
            "and all others with it; see: coordinator ca --help"
        )
    if result["devices_held"]:
        held = number_of(result["devices_held"], "device")
        lines.append(f"ATTENTION: held, for its key is in use twice: {held}; see: coordinator device list")
    for task in result["tasks"]:
        releases, rounds = number_of(task["releases"], "release"), number_of(task["rounds_held"], "round")
        lines.append(f"task {task['name']}: {task['state']}, {releases} in {rounds}")
    lines += [progress_text(row) for row in result["rounds"]]
    return "\n".join(lines)


def whole() -> click.Group:
    """The command with all its groups."""
    from coordinator.cli import (
        admins,
        authority,
        enrolment,
        keys,
        learning,
        machine,
        models,
        records,
        releases,
        rounds,
        storage,
    )

    for module in (enrolment, admins, authority, keys, models, learning, rounds, releases, records, storage, machine):
        for group in module.GROUPS:
            cli.add_command(group)
    return cli


def run_command_line() -> Any:
    """Runs what `sys.argv` asks for; the entry point, less ending the process."""
    try:
        return whole()(prog_name="coordinator", standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error


def main() -> None:
    """Entry point: runs the command and ends with its exit code (docs/operations.md)."""
    prepare_grpc()
    code = exit_with(run_command_line)
    sys.stdout.flush()
    # grpc keeps threads that may outlive the interpreter's shutdown; everything is closed by now.
    os._exit(code)
