"""`edge-client doctor`."""

from __future__ import annotations

import click

from edge_client.cli.options import Call, device_command


@click.command(epilog="Example: edge-client doctor --json", short_help="What could keep it from working, and the fix.")
@click.option("--no-hashes", is_flag=True, help="Do not read every model file again.")
@click.option("--no-network", is_flag=True, help="Do not call the coordinator.")
@device_command
def doctor(call: Call, *, no_hashes: bool, no_network: bool) -> int:
    """Check clock, certificates, network, disk, memory, processor, heat, models, data and service.

    Each line that is not ok says how to mend it. Nothing is sent to the coordinator but a TLS handshake.
    Exit status 0 if there is no problem, else that of the first one (docs/operations.md).
    """
    from edge_client.doctor.checkup import check_up
    from nightshift.host.console import printable
    from nightshift.host.findings import Finding, Grade, exit_code
    from nightshift.host.wording import number_of
    from nightshift.protocol.errors import UsageError

    findings: list[Finding] = []
    try:
        configuration = call.configuration()
    except UsageError as error:
        findings.append(
            Finding.problem("configuration", str(error), f"correct {call.home.config_file}", error.exit_code)
        )
    else:
        for finding in check_up(call.home, configuration, hashes=not no_hashes, network=not no_network):
            findings.append(finding)
            if not call.as_json:
                click.echo(printable(str(finding)))
    problems = sum(finding.grade is Grade.PROBLEM for finding in findings)
    warnings = sum(finding.grade is Grade.WARNING for finding in findings)
    counts = [number_of(problems, "problem"), number_of(warnings, "warning"), number_of(len(findings), "check")]
    summary = ", ".join(counts)
    value = {
        "summary": summary,
        "findings": [{"name": f.name, "grade": f.grade.value, "value": f.value, "fix": f.fix} for f in findings],
    }
    if not call.as_json and len(findings) == 1:
        click.echo(printable(str(findings[0])))
    call.emit(value, summary)
    return int(exit_code(findings))
