"""Log lines: one event a line, whatever the other side wrote, and no secret of a whole night among them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from coordinator import diagnostics
from coordinator.admin.admin_verbs import issue_admin
from coordinator.admin.credentials import Credentials, new_request
from coordinator.admin.enrolment_verbs import create_token
from coordinator.admin.operator import Operator
from coordinator.admin.round_verbs import open_round
from coordinator.cli.api import Elsewhere, _channel
from coordinator.home import Home
from nightshift.admin.v1 import admin_pb2 as pb
from nightshift.host.tokens import JoinToken
from tests.support.coordinators import TASK, ServeProcess, make_home, make_task, make_token, open_home
from tests.support.scripted_device import ScriptedDevice

HOSTILE = 'kitchen" event=forged\nevent=forged\x1b[31m\u202e'


@pytest.mark.parametrize("as_json", [False, True])
def test_text_from_outside_forges_no_line(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    diagnostics.configure(log_format="json" if as_json else "text")
    diagnostics.log.info("device enrolled", name=HOSTILE)
    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert written[:-1].isprintable(), "one line, and nothing that steers a terminal"
    if as_json:
        assert json.loads(written)["event"] == "device enrolled"
    else:
        assert ' event="device enrolled"' in written
        assert " event=forged" not in written.replace('\\" event=forged', "")


@pytest.mark.parametrize("where", ["journal", "pipe", "a child of the journal's"])
def test_auto_is_json_in_the_journal_and_text_in_a_pipe(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader:
        with os.fdopen(writing, "w") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            seen = os.fstat(stderr.fileno())
            if where != "pipe":
                shift = 0 if where == "journal" else 1
                monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino + shift}")
            diagnostics.configure(log_format="auto")
            diagnostics.log.info("stopped")
        line = reader.read()
    assert line.startswith("{") == (where == "journal")
    assert "stopped" in line


@pytest.mark.parametrize("log_format", ["text", "json", "console"])
def test_the_log_of_a_night_holds_no_secret(tmp_path: Path, package: Path, log_format: str) -> None:
    home = make_home(tmp_path / "coordinator", operators=True)
    with open_home(home) as deployment:
        token = make_token(deployment)
        make_task(deployment, package, cohort={"n_max": 3, "n_min": 3})
        key, request_der = new_request()
        request = pb.IssueAdminRequest(name="carol", role="operator", days=1, certificate_request=request_der)
        carol = Credentials.of(issue_admin(Operator(deployment), request), key)
    devices = [ScriptedDevice(token, name=f"canary-{number}") for number in range(3)]
    serve = ServeProcess(home, NIGHTSHIFT_COORDINATOR_LOG_FORMAT=log_format)
    serve.wait_until_ready()
    for device in devices:
        device.join()
        device.check_in(new_prekeys=1)
    with _channel(carol, carol.address) as channel:
        api = Elsewhere(channel, carol.address)
        word = api.call(create_token, pb.CreateTokenRequest(uses=1, ttl_s=60)).token
        api.call(open_round, pb.OpenRoundRequest(task=TASK))
    prepared = []
    for device in devices:
        plan = device.check_in().plan
        assert plan is not None
        prepared.append(device.prepare(plan, np.zeros(plan.document.vector.delta_length, dtype=np.float32)))
        device.upload(prepared[-1])
    for device in devices:
        for duty in device.check_in().duties:
            device.send_answer(device.make_answer(duty))
        device.close()
    assert serve.terminate() == 0

    assert "release published" in serve.errors
    assert "canary-1" in serve.errors, "the search must be able to find something"
    assert "CreateToken" in serve.errors
    if log_format == "json":
        assert {"stopped", "release published"} <= {json.loads(line)["event"] for line in serve.errors.splitlines()}
    secrets = [token.secret, JoinToken.decode(word).secret]
    for text in (word, *_private_lines(home), *carol.key.splitlines()[1:-1]):
        assert text not in serve.errors + serve.output
    secrets += [private for device in devices for private in device.prekeys.values()]
    secrets += [one.body[:32] for one in prepared]
    for secret in secrets:
        assert secret.hex() not in serve.errors + serve.output
        assert repr(secret)[2:-1] not in serve.errors + serve.output
    assert "PRIVATE" not in serve.errors


def _private_lines(home: Home) -> list[str]:
    """Every line of base64 of every private key of the coordinator."""
    lines: list[str] = []
    for path in sorted(home.keys_directory.rglob("*")):
        text = path.read_text("ascii") if path.is_file() else ""
        for block in re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", text, re.DOTALL):
            lines += block.split()
    assert len(lines) > 10, "root, intermediate, signing, server, operators"
    return lines
