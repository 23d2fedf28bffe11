"""What a device does with a served release: the owner first, then its own text, then the coordinator's word.

Everything is real but the coordinator: model, commands, training process, store. Of two adapters the better one has
learned commands for a few steps, and the other none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.adapters_in_use import adapter_file, choose, current_adapter, let_follow, roll_back
from edge_client.agent import decisions, releases
from edge_client.agent.following import Followed, Step, follow, look_again, next_step
from edge_client.agent.session import Session
from edge_client.configuration import Configuration
from edge_client.data.examples import Conversation, Message
from edge_client.data.holdout import is_held_out
from edge_client.data.prepare import prepare
from edge_client.engines.sessions import RuntimeSettings, layout_for
from edge_client.training.settings import TrainingSettings
from edge_client.training.trainer import train
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Side, TrainedSlots, initialise
from nightshift.protocol.adapters.formats import layout_of, to_safetensors
from nightshift.protocol.decision import DecisionKind
from nightshift.protocol.errors import DeclinedError, EquivocationError, VerificationError
from nightshift.protocol.release import VerifiedRelease
from tests.support.plans import World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of
from tests.support.small_releases import Library, Publisher, adapter_bytes
from tests.support.stories import build_stories, commands

TASK = "notes"
ROWS = 120
OWNER = {"policy": {"minimum_cohort": 3}, "training": {"threads": 1}}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return build_stories(tmp_path_factory.mktemp("models") / "stories")


@pytest.fixture
def publisher(package: ModelPackage) -> Publisher:
    library = Library()
    library.put((package.directory / "manifest.json").read_bytes())
    return Publisher(World.make(devices=3), library, package)


@pytest.fixture
def session(publisher: Publisher, tmp_path: Path) -> Iterator[Session]:
    world, coordinator = publisher.world, ScriptedCoordinator(artefact=publisher.library)
    home, owner = tmp_path / "device", Configuration.model_validate(OWNER)
    home.mkdir()
    with agent_of(world, world.devices[0], home, coordinator, owner) as session:
        data = commands(tmp_path / "commands.jsonl", rows=ROWS)
        session.store.records.add_source(str(data.path), "prompt", {}, session.now_unix_s)
        yield session


def with_model(session: Session, tmp_path: Path) -> None:
    """Put the base model on the device's disk, as a night of training would have."""
    session.packages.adopt(build_stories(tmp_path / "copy").directory)


@pytest.fixture(scope="module")
def trained(package: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An adapter that learned the commands for a few steps."""
    layout = layout_for(package.manifest, rank=4, alpha=8.0)
    data = prepare(package, [commands(tmp_path_factory.mktemp("data") / "commands.jsonl", rows=ROWS)], max_tokens=96)
    outcome = train(
        package,
        initialise(layout, bytes(32)),
        TrainedSlots.whole(layout, Side.B),
        data.train,
        TrainingSettings(steps=15, batch_size=8, micro_batch_size=8, learning_rate=2e-2, max_tokens=96),
        runtime=RuntimeSettings(threads=1),
    )
    return to_safetensors(outcome.adapter, layout)


@pytest.fixture(scope="module")
def untrained(package: ModelPackage) -> bytes:
    """An adapter that leaves the model as it is: on these commands worse by far than a trained one."""
    layout = layout_for(package.manifest, rank=4, alpha=8.0)
    return to_safetensors(initialise(layout, bytes(32)), layout)


def release(publisher: Publisher, number: int, data: bytes) -> VerifiedRelease:
    return publisher.release(number, data, layout=layout_of(data))


def served(session: Session, publisher: Publisher, offered: VerifiedRelease, **decided: object) -> Followed:
    """Follow a decision that a release is served, as a pass does."""
    number = 1 + (seen.number if (seen := session.store.served.decision(TASK)) is not None else 0)
    decision = publisher.decision(offered, number=number, **decided)  # type: ignore[arg-type]  # `kind` alone
    decisions.remember_newest(session, [decision])
    return follow(session, offered, decision)


def test_what_is_worse_on_this_devices_own_text_does_not_come_in_use(
    session: Session, publisher: Publisher, tmp_path: Path, trained: bytes, untrained: bytes
) -> None:
    with_model(session, tmp_path)
    good, bad = release(publisher, 0, trained), release(publisher, 1, untrained)
    assert served(session, publisher, good) == Followed(adopted="notes/0")
    assert served(session, publisher, bad) == Followed(kept="notes/1")
    assert current_adapter(session.store, TASK).name == "notes/0"
    comparison = session.store.served.comparison(bad.release_id)
    assert comparison.kept_back
    assert comparison.loss > comparison.loss_against + 0.1
    # The next sum says so, and the next pass does not measure again.
    assert session.store.served.keeps_another(TASK)
    assert next_step(session, bad) is Step.STAY
    # The owner may take it all the same: it is here.
    choose(session.store, TASK, "notes/1")
    assert current_adapter(session.store, TASK).name == "notes/1"


def test_what_is_better_here_comes_in_use(
    session: Session, publisher: Publisher, tmp_path: Path, trained: bytes, untrained: bytes
) -> None:
    with_model(session, tmp_path)
    served(session, publisher, release(publisher, 0, untrained))
    assert served(session, publisher, release(publisher, 1, trained)) == Followed(adopted="notes/1")
    assert current_adapter(session.store, TASK).name == "notes/1"
    assert not session.store.served.keeps_another(TASK)


def test_what_could_not_be_compared_when_it_came_is_compared_later_and_goes_again(
    session: Session, publisher: Publisher, tmp_path: Path, trained: bytes, untrained: bytes
) -> None:
    served(session, publisher, release(publisher, 0, trained))
    bad = release(publisher, 1, untrained)
    # Without the model there is nothing to measure with: the coordinator's word holds.
    assert served(session, publisher, bad) == Followed(adopted="notes/1")
    assert look_again(session, TASK) is None
    assert current_adapter(session.store, TASK).name == "notes/1"

    with_model(session, tmp_path)
    assert look_again(session, TASK) == "notes/1"
    assert current_adapter(session.store, TASK).name == "notes/0"
    assert session.store.served.keeps_another(TASK)
    assert any("back to notes/0" in note for note in session.notes)
    assert next_step(session, bad) is Step.STAY


def test_an_operators_rollback_is_followed_though_the_withdrawn_one_looks_better_here(
    session: Session, publisher: Publisher, tmp_path: Path, trained: bytes, untrained: bytes
) -> None:
    with_model(session, tmp_path)
    old, newer = release(publisher, 0, untrained), release(publisher, 1, trained)
    served(session, publisher, old)
    served(session, publisher, newer)
    followed = served(session, publisher, old, kind=DecisionKind.ROLLED_BACK)
    assert followed == Followed(adopted="notes/0")
    assert current_adapter(session.store, TASK).name == "notes/0"
    assert look_again(session, TASK) is None, "what was withdrawn is not measured its way back"


def test_the_owners_choice_holds_over_every_release_until_it_is_taken_back(
    session: Session, publisher: Publisher
) -> None:
    for number in (0, 1):
        served(session, publisher, publisher.release(number, adapter_bytes(number)))
    assert roll_back(session.store, TASK).name == "notes/0"
    third = publisher.release(2, adapter_bytes(2))
    assert served(session, publisher, third) == Followed()
    assert current_adapter(session.store, TASK).name == "notes/0"
    # Not even an operator's rollback moves it.
    first = publisher.release(1, adapter_bytes(1))
    assert served(session, publisher, first, kind=DecisionKind.ROLLED_BACK) == Followed()
    assert current_adapter(session.store, TASK).name == "notes/0"
    assert session.store.adapters.in_use(TASK).pinned

    let_follow(session.store, TASK)
    assert not session.store.served.decision(TASK).followed, "the next pass looks again"
    assert served(session, publisher, third) == Followed(adopted="notes/2")
    assert current_adapter(session.store, TASK).name == "notes/2"


def test_the_bare_base_model_can_be_pinned_too(session: Session, publisher: Publisher) -> None:
    served(session, publisher, publisher.release(0, adapter_bytes(0)))
    choose(session.store, TASK, None)
    assert served(session, publisher, publisher.release(1, adapter_bytes(1))) == Followed()
    assert current_adapter(session.store, TASK) is None


def test_an_adapter_file_that_is_gone_is_fetched_again(session: Session, publisher: Publisher) -> None:
    offered = publisher.release(0, adapter_bytes(0))
    served(session, publisher, offered)
    path = adapter_file(session.home, offered.document.adapter_sha256)
    path.unlink()
    assert served(session, publisher, offered) == Followed()
    assert path.exists()


def test_an_older_decision_and_a_second_one_under_a_number_are_refused(session: Session, publisher: Publisher) -> None:
    old, new = publisher.release(0, adapter_bytes(0)), publisher.release(1, adapter_bytes(1))
    first, second = publisher.decision(old, number=1), publisher.decision(new, number=2)
    decisions.remember_newest(session, [first])
    decisions.remember_newest(session, [second])
    # Beside the newest an older one is no lie: it may say why a parent was restored.
    decisions.remember_newest(session, [second, first])
    with pytest.raises(VerificationError, match="but 2 was seen before"):
        decisions.remember_newest(session, [first])
    with pytest.raises(EquivocationError, match="two versions"):
        decisions.remember_newest(session, [publisher.decision(old, number=2)])


def test_what_is_served_must_be_what_was_decided(session: Session, publisher: Publisher) -> None:
    old, new = publisher.release(0, adapter_bytes(0)), publisher.release(1, adapter_bytes(1))
    decision = publisher.decision(new)
    assert decisions.require_decision([decision], new) is decision
    with pytest.raises(DeclinedError, match="has release 1 of task 'notes' served, the release metadata 0"):
        decisions.require_decision([decision], old)
    with pytest.raises(VerificationError, match="no logged decision"):
        decisions.require_decision([], old)


def test_a_release_that_is_only_a_candidate_is_seen_and_not_adopted(session: Session, publisher: Publisher) -> None:
    old, candidate = publisher.release(0, adapter_bytes(0)), publisher.release(1, adapter_bytes(1))
    releases.note_releases(session, {each.release_id: each for each in (old, candidate)})
    served(session, publisher, old)
    assert current_adapter(session.store, TASK).name == "notes/0"
    assert session.store.adapters.newest_release(TASK) == 1
    assert session.store.adapters.find("notes/1") is None


def test_a_hold_out_that_is_too_small_tells_nothing_and_is_asked_once(
    session: Session, publisher: Publisher, tmp_path: Path, trained: bytes, untrained: bytes
) -> None:
    with_model(session, tmp_path)
    (source,) = session.store.records.sources()
    kept = [line for line in Path(source.path).read_text("utf-8").splitlines() if held_out(line)][:3]
    Path(source.path).write_text("\n".join(kept) + "\n", "utf-8")
    served(session, publisher, release(publisher, 0, trained))
    bad = release(publisher, 1, untrained)
    assert served(session, publisher, bad) == Followed(adopted="notes/1")
    comparison = session.store.served.comparison(bad.release_id)
    assert (comparison.loss, comparison.kept_back) == (None, False)
    assert session.notes == [], "it was measured, and found to be too little"
    assert look_again(session, TASK) is None
    assert current_adapter(session.store, TASK).name == "notes/1"


def held_out(line: str) -> bool:
    pair = json.loads(line)
    messages = (Message("user", pair["prompt"]), Message("assistant", pair["completion"]))
    return is_held_out(Conversation(messages))
