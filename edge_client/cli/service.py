"""`edge-client service`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import Call, device_command

if TYPE_CHECKING:
    from edge_client.service.systemd import Installed

_system = click.option("--system", is_flag=True, help="Of the machine, as a user of its own (needs root).")


@click.group(short_help="The timer that runs a pass at night.")
def service() -> None:
    """A timer that calls `edge-client run` once an hour from 1 to 6 at night. Between passes nothing is in memory."""


@service.command(epilog="Example: edge-client service install")
@_system
@click.option("--print", "--dry-run", "show", is_flag=True, help="Show what would be written; write nothing.")
@device_command
def install(call: Call, *, system: bool, show: bool) -> None:
    """Install the service and start its timer; again after an upgrade or a move.

    The service of a user runs while nobody is logged in only after: loginctl enable-linger
    """
    from edge_client.service.plan import Scope, plan_service, require_open_to_all
    from edge_client.service.platforms import files_to_write, service_manager

    scope = Scope.SYSTEM if system else Scope.USER
    plan = plan_service(scope, call.home)
    if show:
        files = files_to_write(plan)
        call.emit(files, "\n".join(files.values()).rstrip())
        return
    manager = service_manager(scope)
    if scope is Scope.SYSTEM:
        require_open_to_all(plan.program, Path(sys.executable).resolve())
    installed = manager.install(plan)
    lines = _lines(installed)
    if scope is Scope.USER and installed.manager == "systemd":
        lines.append("so that it runs while you are logged out: loginctl enable-linger")
    call.emit(_value(installed), "\n".join(lines))


@service.command(epilog="Example: edge-client service uninstall")
@_system
@device_command
def uninstall(call: Call, *, system: bool) -> None:
    """Stop the timer and remove the service; key, models and settings stay."""
    from edge_client.service.plan import Scope
    from edge_client.service.platforms import service_manager

    removed = service_manager(Scope.SYSTEM if system else Scope.USER).uninstall()
    call.emit({"removed": removed}, "removed" if removed else "there was no service")


@service.command(epilog="Example: edge-client service status --json")
@_system
@device_command
def status(call: Call, *, system: bool) -> None:
    """Say whether the timer waits, when it fires next, and how the last pass ended."""
    from edge_client.service.plan import Scope
    from edge_client.service.platforms import service_manager

    installed = service_manager(Scope.SYSTEM if system else Scope.USER).status()
    call.emit(_value(installed), "\n".join(_lines(installed)))


def _value(installed: Installed) -> dict[str, Any]:
    return {
        "manager": installed.manager,
        "installed": bool(installed.files),
        "files": [str(file) for file in installed.files],
        "active": installed.active,
        "next_run": installed.next_run,
        "last_result": installed.last_result,
    }


def _lines(installed: Installed) -> list[str]:
    if not installed.files:
        return ["not installed; run: edge-client service install"]
    state = {True: "the timer waits", False: "the timer does not run", None: "the manager does not say"}
    lines = [f"installed under {installed.manager}: {state[installed.active]}"]
    if installed.next_run:
        lines.append(f"next pass: {installed.next_run}")
    if installed.last_result:
        lines.append(f"last pass: {installed.last_result}")
    return [*lines, *(str(file) for file in installed.files)]
