"""`edge-client bugreport`."""

from __future__ import annotations

from pathlib import Path

import click

from edge_client.cli.options import Call, device_command


@click.command(
    epilog="Example: edge-client bugreport --output report.json", short_help="What to attach when something is wrong."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it here, mode 0600, and not on stdout."
)
@click.option("--network", is_flag=True, help="Also call the coordinator, as `doctor` does.")
@device_command
def bugreport(call: Call, *, output: Path | None, network: bool) -> None:
    """Collect versions, machine, settings, findings of `doctor` and recent passes, as JSON.

    Keys, texts, prompts, names, addresses and paths are left out or replaced. Read it before you
    give it to anyone; nothing is sent anywhere.
    """
    import json

    from edge_client.bugreport import collect
    from edge_client.configuration import load_configuration
    from edge_client.doctor.checkup import check_up
    from edge_client.identity import load_identity, load_membership
    from edge_client.store import open_store
    from nightshift.host.files import write_atomic

    loaded = load_configuration(call.home)
    findings = [
        {"name": f.name, "grade": f.grade.value, "value": f.value}
        for f in check_up(call.home, loaded.values, hashes=False, network=network)
    ]
    with open_store(call.home) as store:
        report = collect(
            call.home,
            loaded.values,
            loaded.origins,
            identity=load_identity(call.home),
            membership=load_membership(call.home),
            store=store,
            findings=findings,
        )
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if output is None:
        call.emit(report, text)
        return
    write_atomic(output.absolute(), text.encode() + b"\n")
    call.emit({"file": str(output)}, f"{output}: read it before you give it to anyone")
