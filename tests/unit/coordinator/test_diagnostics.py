"""Log lines: one event a line, whatever the other side wrote, and no secret of a whole night among them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

from coordinator import diagnostics
from coordinator.home import Home
from coordinator.rounds.plans import open_round
from coordinator.storage.rows import Task
from nightshift.host.clock import now_unix_s
from tests.support.coordinators import TASK, ServeProcess, make_task, make_token, open_home
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


def test_the_log_of_a_night_holds_no_secret(home: Home, package: Path) -> None:
    with open_home(home) as deployment:
        token = make_token(deployment)
        make_task(deployment, package, cohort={"n_max": 3, "n_min": 3})
        keys = [serialization.load_pem_private_key(path.read_bytes(), None) for path in _private_keys(home)]
    devices = [ScriptedDevice(token, name=f"canary-{number}") for number in range(3)]
    serve = ServeProcess(home)
    serve.wait_until_ready()
    for device in devices:
        device.join()
        device.check_in(new_prekeys=1)
    with open_home(home) as deployment, deployment.database.transaction() as session:
        open_round(session, deployment, session.get_one(Task, TASK), now_unix_s())
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
    secrets = [token.secret, *(key.private_numbers().private_value.to_bytes(32, "big") for key in keys)]
    secrets += [private for device in devices for private in device.prekeys.values()]
    secrets += [one.body[:32] for one in prepared]
    for secret in secrets:
        assert secret.hex() not in serve.errors + serve.output
        assert repr(secret)[2:-1] not in serve.errors + serve.output
    assert "PRIVATE" not in serve.errors


def _private_keys(home: Home) -> list[Path]:
    return sorted(home.keys_directory.glob("*.key"))
