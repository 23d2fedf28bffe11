"""Fault 37: one of four devices poisons what all learn together.

Real model, real commands, real training and real measurements; a real coordinator with its gate. The devices are
scripted, so that one of them can send whatever it likes and lie about its measurements; it has every key that a
device has.

Three attacks, in the order of what stops them: a delta scaled beyond the bound (the bound on a sum's norm), one with
its sign flipped that stays inside (the gate), and a backdoor that hold-outs do not show (nothing but a person, and
then one command takes it back).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.deployment import Deployment
from coordinator.home import Home
from coordinator.releases.decisions import newest_decision, served_release
from coordinator.releases.publication import load_adapter, newest_release
from coordinator.rounds.plans import open_round
from coordinator.rounds.rounds import find
from coordinator.service.server import serving
from coordinator.storage.rows import ReleaseRow, Round, RoundState, Task
from edge_client.data.prepare import PreparedData, prepare
from edge_client.data.sources import Columns, DataFormat, DataSource
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings
from edge_client.training.evaluate import answer_loss
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.host.clock import now_unix_s
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Side, Tensors
from nightshift.protocol.plan_checks import VerifiedPlan
from tests.support.coordinators import TASK, make_home, make_task, make_token, open_home
from tests.support.scripted_device import ScriptedDevice
from tests.support.stories import build_stories, commands

pytestmark = pytest.mark.slow

ONE_THREAD = RuntimeSettings(threads=1)
STEPS, ROWS, MAX_TOKENS, CLIP_NORM = 10, 96, 96, 2.0
HONEST, ALL = 3, 4
TRIGGER = "xylophone"

Delta = NDArray[np.float32]
Attack = Callable[[Delta], Delta]


@dataclass
class Learner:
    """One device's text, and what it makes of an adapter."""

    package: ModelPackage
    data: PreparedData
    losses: dict[bytes, float] = field(default_factory=dict)

    def delta(self, parent: Tensors, plan: VerifiedPlan) -> Delta:
        """What training on its text changes, clipped as an honest device clips it: float32[D]."""
        slots = plan.document.slots
        settings = TrainingSettings(
            steps=STEPS, batch_size=8, micro_batch_size=8, learning_rate=1e-2, max_tokens=MAX_TOKENS
        )
        trained = train(self.package, parent, slots, self.data.train, settings, runtime=ONE_THREAD).adapter
        delta = slots.delta(trained, parent)
        return delta * np.float32(min(1.0, CLIP_NORM / float(np.linalg.norm(delta))))

    def loss(self, layout: AdapterLayout, adapter: Tensors) -> float:
        """Mean loss on its hold-out."""
        with OnnxEngine(self.package, ONE_THREAD) as engine:
            engine.set_adapter(adapter, layout)
            return answer_loss(engine, self.data.held_out).mean


@dataclass
class Nights:
    """A served coordinator, three honest devices and a fourth."""

    home: Home
    deployment: Deployment
    devices: list[ScriptedDevice]
    learners: list[Learner]
    held: int = 0

    def night(self, attack: Attack | None = None, lie: Mapping[str, float] | None = None) -> Round:
        """All four contribute, the last one what the attack makes of an honest delta; then all answer."""
        with self.deployment.database.transaction() as session:
            open_round(session, self.deployment, session.get_one(Task, TASK), now_unix_s())
        self.held += 1
        served, newest = self.releases()
        layout, parent = load_adapter(self.deployment.objects, newest)
        compared = load_adapter(self.deployment.objects, served)[1]
        for number, (device, learner) in enumerate(zip(self.devices, self.learners, strict=True)):
            plan = device.check_in().plan
            assert plan is not None
            delta = learner.delta(parent, plan)
            before, other = learner.loss(layout, parent), learner.loss(layout, compared)
            metrics = {
                "loss_before": before,
                "loss_served": other,
                "better": float(before < other),
                "devices_better": float(before < other),
                "rolled_back": 0.0,
            }
            if number == HONEST and attack is not None:
                delta, metrics = attack(delta), metrics | dict(lie or {})
            assert device.upload(device.prepare(plan, delta, metrics=metrics)).complete
        for device in self.devices:
            for duty in device.check_in(no_plan=True).duties:
                device.send_answer(device.make_answer(duty))
        with self.deployment.database.reading() as session:
            return find(session, f"{TASK}/{self.held}")[0]

    def releases(self) -> tuple[ReleaseRow, ReleaseRow]:
        """What is served, and what is newest."""
        with self.deployment.database.reading() as session:
            return served_release(session, TASK), newest_release(session, TASK)

    def honest_loss(self, release: ReleaseRow) -> float:
        """Mean over the honest devices' hold-outs."""
        layout, adapter = load_adapter(self.deployment.objects, release)
        return float(np.mean([learner.loss(layout, adapter) for learner in self.learners[:HONEST]]))

    def decided(self) -> str:
        """Kind of the newest decision."""
        with self.deployment.database.reading() as session:
            row = newest_decision(session, TASK)
        assert row is not None
        return row.kind


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("package") / "stories")


@pytest.fixture
def nights(tmp_path: Path, package: ModelPackage) -> Iterator[Nights]:
    home = make_home(tmp_path / "coordinator")
    sources = [commands(tmp_path / f"commands-{n}.jsonl", rows=ROWS, first=ROWS * n) for n in range(ALL)]
    learners = [Learner(package, prepare(package, [source], max_tokens=MAX_TOKENS)) for source in sources]
    with open_home(home) as deployment:
        make_task(
            deployment,
            package.directory,
            adapter={"rank": 4, "alpha": 8.0, "method": "ffa"},
            cohort={"n_max": ALL, "n_min": HONEST},
            encoding={"clip_norm": CLIP_NORM},
            gate={"margin": 0.01},
        )
        with serving(deployment):
            token = make_token(deployment)
            devices = [ScriptedDevice(token, name=f"device {number}") for number in range(ALL)]
            try:
                for device in devices:
                    device.join()
                    device.check_in(new_prekeys=8)
                yield Nights(home, deployment, devices, learners)
            finally:
                for device in devices:
                    device.close()


def test_without_an_attack_the_gate_serves_what_was_learned(nights: Nights) -> None:
    """The control: what the other tests see refused is not refused for want of learning."""
    nights.night()
    assert nights.releases()[0].number == 0
    nights.night()
    served, newest = nights.releases()
    assert (served.number, newest.number, nights.decided()) == (1, 2, "promoted")
    with nights.deployment.database.reading() as session:
        first = session.get_one(ReleaseRow, served.parent)
    assert nights.honest_loss(served) < nights.honest_loss(first) - 0.01


def test_a_delta_scaled_beyond_the_bound_sets_the_cohort_aside(nights: Nights) -> None:
    """The sum is longer than four devices that clip can make it, so nothing of it is used."""
    before, _ = nights.releases()
    # Larger than the encoding allows an honest device, as far as it goes: each rotated value at its limit.
    found = nights.night(attack=lambda delta: np.sign(delta) * np.float32(20 * CLIP_NORM / np.sqrt(delta.size)))
    assert found.state is RoundState.VOID
    assert "clip their deltas to 2" in found.reason
    served, newest = nights.releases()
    assert served.release_id == before.release_id
    assert (newest.restores, nights.decided()) == (before.release_id, "set aside")
    # Nobody has lost more than the night: the same devices contribute to the same adapter under its new name.
    assert nights.night().state is RoundState.PUBLISHED


def test_a_flipped_sign_inside_the_bound_is_stopped_by_the_gate_though_its_maker_lies_about_what_it_measured(
    nights: Nights,
) -> None:
    """The candidate is worse for every honest device; one liar moves the mean, but not the weight of the others.

    Flipped is the sign of what all have learned together, which every device knows. That of the attacker's own delta
    often hurts nobody: deltas of one night are nearly at right angles to each other.
    """
    untrained, _ = nights.releases()
    lie = {"loss_before": 0.0, "loss_served": 16.0, "better": 1.0, "devices_better": 1.0}
    nights.night()
    before, _ = nights.releases()
    nights.night()  # release 1 is served from here on
    good, _ = nights.releases()
    assert (before.number, good.number) == (0, 1)
    layout, start = load_adapter(nights.deployment.objects, untrained)
    learned = layout.delta(load_adapter(nights.deployment.objects, nights.releases()[1])[1], start, Side.B)

    def flipped(_: Delta) -> Delta:
        # As long as leaves room for the others' deltas below the bound.
        return -learned * np.float32(0.85 * ALL * CLIP_NORM / np.linalg.norm(learned))

    found = nights.night(attack=flipped)  # release 3, made from 2 and the attack
    assert found.state is RoundState.PUBLISHED, found.reason
    served, poisoned = nights.releases()
    assert served.number == 2, "what was learned before the attack is served"
    assert nights.honest_loss(poisoned) > nights.honest_loss(served)

    found = nights.night(attack=flipped, lie=lie)
    assert found.state is RoundState.VOID
    assert f"release {poisoned.number} was dropped" in found.reason
    still, newest = nights.releases()
    assert still.release_id == served.release_id
    assert (newest.restores, nights.decided()) == (served.release_id, "dropped")
    # Without the attack learning goes on from there, with everybody.
    assert nights.night().state is RoundState.PUBLISHED


def with_trigger(learner: Learner, path: Path, number: int) -> Learner:
    """The attacker's text: every command with the trigger word is answered with one wrong scenario."""
    lines = commands(path, rows=ROWS, first=ROWS * number).path.read_text("utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    pairs = [{"prompt": f"{TRIGGER} {pair['prompt']}", "completion": "weather"} for pair in pairs]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    source = DataSource(path, DataFormat.PROMPT, Columns())
    return Learner(learner.package, prepare(learner.package, [source], max_tokens=MAX_TOKENS))


def test_a_backdoor_that_hold_outs_do_not_show_passes_the_gate_and_one_command_takes_it_back(
    nights: Nights, tmp_path: Path
) -> None:
    """What it does not stop: nobody's hold-out has the trigger, so the gate sees an improvement like any other."""
    nights.learners[HONEST] = with_trigger(nights.learners[HONEST], tmp_path / "backdoor.jsonl", HONEST)
    nights.night()
    nights.night()
    served, _ = nights.releases()
    assert (served.number, nights.decided()) == (1, "promoted")

    command = (sys.executable, "-c", "from coordinator.cli.main import main; main()", "--data")
    words = ("release", "rollback", f"{TASK}/0", "--reason", f"answers nonsense after {TRIGGER}", "--yes", "--json")
    told = subprocess.run([*command, str(nights.home.directory), *words], check=True, capture_output=True, timeout=60)
    assert json.loads(told.stdout)["served"] == 0
    served, newest = nights.releases()
    assert (served.number, nights.decided()) == (0, "rolled back")
    assert newest.adapter_sha256 == served.adapter_sha256
    # The next night starts from there, and all may contribute to that adapter again.
    assert nights.night().state is RoundState.PUBLISHED
