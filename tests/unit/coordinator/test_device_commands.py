"""`coordinator device`: what an operator sees of a device, and does to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import AuditRow, Task
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import ClonedIdentityError
from nightshift.protocol.readable_ids import readable_id
from tests.support.coordinators import TASK, make_task, make_token
from tests.support.operator_commands import Operate
from tests.support.scripted_device import ScriptedDevice

Join = Callable[[], ScriptedDevice]
Run = Callable[..., str]


@pytest.fixture
def run(served: Deployment, operate: Operate) -> Run:
    """Runs `coordinator device ...` beside the serving coordinator; its stdout."""

    def command(*words: str, code: int = 0) -> str:
        ran = operate("device", *words, data=served.home.directory)
        assert ran.code == code
        return ran.out if code == 0 else ran.err

    return command


def show(run: Run, device: ScriptedDevice) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(run("show", readable_id(device.device_id), "--json"))
    return shown


def test_when_a_device_was_last_seen_and_last_contributed(
    served: Deployment, join: Join, run: Run, package: Path
) -> None:
    make_task(served, package)
    devices = [join() for _ in range(3)]
    fresh = show(run, devices[0])
    assert (fresh["last_seen"], fresh["last_contribution"], fresh["client_version"]) == (None, None, "scripted")
    for device in devices:
        device.check_in(new_prekeys=1)
    devices[2].rank_limit = 12
    devices[2].check_in()
    assert [show(run, device)["rank_limit"] for device in devices] == [0, 0, 12]
    with served.database.transaction() as session:
        open_round(session, served, session.get_one(Task, TASK), now_unix_s())
    plan = devices[0].check_in().plan
    assert plan is not None
    zeros = np.zeros(plan.document.vector.delta_length, dtype=np.float32)
    devices[0].upload(devices[0].prepare(plan, zeros))
    first, second = show(run, devices[0]), show(run, devices[1])
    assert first["last_contribution"] is not None
    assert first["last_contribution"] >= first["enrolled"]
    assert (second["last_contribution"], second["last_seen"] is None) == (None, False)


def test_how_long_its_certificate_lasts(join: Join, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = join()
    assert show(run, device)["certificate_days"] in (29, 30)
    (tmp_path / "clock").write_text(str(40.5 * 86_400), "ascii")
    monkeypatch.setenv("NIGHTSHIFT_CLOCK_OFFSET_FILE", str(tmp_path / "clock"))
    assert show(run, device)["certificate_days"] == -11


def test_a_device_that_is_held_is_shown_and_cleared_by_name(served: Deployment, join: Join, run: Run) -> None:
    device = join()
    device.check_in()
    present = device.last_nonce
    device.last_nonce = bytes(32)
    with pytest.raises(ClonedIdentityError):
        device.check_in()
    assert "held" in run("list")
    assert show(run, device)["held_since"] is not None
    cleared = json.loads(run("clear", device.device_id.hex()[:10], "--yes", "--json"))
    assert (cleared["state"], cleared["held_since"]) == ("enrolled", None)
    with served.database.reading() as session:
        verbs = {row.verb: row.subject for row in session.scalars(select(AuditRow))}
    assert verbs["device clear"] == device.device_id.hex()
    device.last_nonce = present
    device.check_in()


def test_a_name_that_fits_no_device_is_told(join: Join, run: Run) -> None:
    join()
    assert "see `coordinator device list`" in run("show", "ffffffffffffffff", code=2)
    assert "see `coordinator device list`" in run("clear", "ffffffffffffffff", "--yes", code=2)


NAMES = {
    "%": "%",
    "'; DROP TABLE devices; --": "'; DROP TABLE devices; --",
    "[bold red]x[/]": "[bold red]x[/]",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "a\x1b[2Jb": "a\N{REPLACEMENT CHARACTER}[2Jb",
    "\u202ereversed": "\N{REPLACEMENT CHARACTER}reversed",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=ascii)
def test_a_name_means_nothing_to_whoever_shows_it(name: str, shown: str, served: Deployment, run: Run) -> None:
    """Wildcards, quotes, markup, what steers a terminal or turns a line around."""
    device = ScriptedDevice(make_token(served), name=name)
    device.join()
    device.close()
    assert shown in run("list")
    assert json.loads(run("list", "--json"))["devices"][0]["name"] == shown


@pytest.mark.parametrize("words", [("revoke", "--yes"), ("clear", "--yes"), ("acquit",), ("show",)])
@pytest.mark.parametrize("name", ["", "-", "%", "abc"])
def test_what_is_too_short_to_be_an_id_names_nobody(words: tuple[str, ...], name: str, join: Join, run: Run) -> None:
    """With one device enrolled, the empty beginning of an id would be its: an empty variable in a script."""
    join()
    assert "names no device" in run(*words, "--", name, code=2)
