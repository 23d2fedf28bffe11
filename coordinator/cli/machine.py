"""`coordinator doctor`, `service` and `completion`: what concerns the machine, not the coordinator's work."""

from __future__ import annotations

import click

from coordinator.cli.command import data_directory, json_option
from nightshift.host.console import emit, printable


@click.command(short_help="What is wrong on this machine, and the fix.", epilog="Example: coordinator doctor --json")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> int:
    """Look for what is wrong on this machine; each line that is not ok says what mends it.

    Configuration, key files, certificates, names, database, objects, disk,
    clock and listeners, whether it serves or not. Exit code 0 if there is no
    problem, else that of the first one.
    """
    from coordinator.doctor.checkup import check_up
    from coordinator.home import Home
    from nightshift.host.findings import Grade, exit_code
    from nightshift.host.wording import number_of

    findings = list(check_up(Home(data_directory(context))))
    count = {grade: sum(finding.grade is grade for finding in findings) for grade in Grade}
    problems, warnings = number_of(count[Grade.PROBLEM], "problem"), number_of(count[Grade.WARNING], "warning")
    summary = f"{problems}, {warnings}, {number_of(len(findings), 'check')}"
    value = {
        "summary": summary,
        "findings": [{"name": f.name, "grade": f.grade.value, "value": f.value, "fix": f.fix} for f in findings],
    }
    emit(value, as_json=as_json, text=printable("\n".join([*(str(finding) for finding in findings), summary])))
    return int(exit_code(findings))


@click.group()
def service() -> None:
    """Running under systemd."""


@service.command("print", epilog="Example: coordinator --data /var/lib/nightshift service print --user nightshift")
@click.option("--user", default="nightshift", show_default=True, help="Who the service runs as.")
@click.pass_context
def print_unit(context: click.Context, user: str) -> None:
    """Print a unit file for systemd that serves the directory of --data.

    It wants that user to exist and to own the directory.
    """
    from coordinator.systemd import unit_text

    click.echo(unit_text(data_directory(context), user=user), nl=False)


@click.command(short_help="Completion for a shell.", epilog='Example: eval "$(coordinator completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(context.find_root().command, {}, "coordinator", "_COORDINATOR_COMPLETE").source())


GROUPS = (doctor, service, completion)
