"""Real agents with real stores against a coordinator that says whatever hypothesis wants, over real gRPC.

Five devices are contributors and committee of two cohorts for the same parent. The coordinator offers either plan
to anybody again and again, loses or repeats what they send, freezes and logs any set that it likes, as often as it
likes, shows any of them to any member, with lies in it, logs and claims voids, passes statements on or not. Every
step opens the device's store from its file and closes it again: each is a restart. What must hold whatever it does
are the invariants at the end; they are what keeps one device's vector from being the difference of two sums.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from edge_client.agent.check_in import CheckedIn
from edge_client.agent.duties import serve
from edge_client.agent.erasures import lay_to_rest
from edge_client.agent.examination import Assignment, examine
from edge_client.agent.session import Session
from edge_client.agent.voids import note_voids
from edge_client.store.contributions import Event
from nightshift.host import clock
from nightshift.protocol.certificates import leaf_public_key
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.identity import spki
from nightshift.protocol.plan import prekey_to_proto
from nightshift.protocol.release import verify_release
from nightshift.protocol.secagg.contribution import Contribution
from nightshift.protocol.secagg.device import contribute
from nightshift.protocol.secagg.errors import SumAbsentError
from nightshift.protocol.secagg.member import Answer
from nightshift.protocol.secagg.opener import open_sum
from nightshift.protocol.secagg.prekeys import SignedPrekey, new_prekey
from nightshift.protocol.secagg.running_sum import RunningSum
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.support.authority import DAY_S, NOW_UNIX_S
from tests.support.contributions import contribution as journal_entry
from tests.support.plans import Cohort, EnrolledDevice, FrozenSet, World
from tests.support.scripted_coordinator import ScriptedCoordinator, agent_of, keep_prekey

pytestmark = pytest.mark.slow

DEVICES = 5
COHORTS = (0, 1)
NUMBER = st.integers(0, DEVICES - 1)
WHICH = st.sampled_from(COHORTS)


@dataclass(frozen=True)
class Given:
    """What a device contributed: the bytes, and what is in them."""

    contribution: Contribution
    values: NDArray[np.uint64]


@dataclass
class CohortOfLiar:
    """All that the coordinator knows of one cohort, and what it got out of members."""

    cohort: Cohort
    prekeys: list[SignedPrekey]
    given: dict[int, Given] = field(default_factory=dict)
    """What devices made and keep as their bytes to be sent; by the device's number."""
    received: set[int] = field(default_factory=set)
    sets: list[FrozenSet] = field(default_factory=list)
    void_index: int | None = None
    statements: dict[int, device_pb2.ErasureStatement] = field(default_factory=dict)
    answers: dict[int, dict[bytes, set[bytes]]] = field(default_factory=dict)
    """By the member's number: hash(U) -> every different message that it ever sent for that set."""


class AgentsAgainstALiar(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="agents"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv(clock.ENVIRONMENT_VARIABLE, str(self.directory / "clock"))
        self.now_unix_s = NOW_UNIX_S
        self.let_time_pass(0)
        self.world = World.make(devices=DEVICES)
        self.parent = self.world.publish()
        stores: dict[int, list[EnrolledDevice]] = {number: [] for number in range(DEVICES)}
        self.cohorts = [self.open_cohort(serial, stores) for serial in (1, 2)]
        # (device, cohort) -> whether the private half is in its store, as its file says.
        self.holds = {(number, which): True for number in range(DEVICES) for which in COHORTS}
        for number, keys in stores.items():
            with self.agent(number, ScriptedCoordinator()) as session:
                for device in keys:
                    keep_prekey(session.store, device)
                session.store.database.put(epoch=1)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.directory)

    def open_cohort(self, serial: int, stores: dict[int, list[EnrolledDevice]]) -> CohortOfLiar:
        """A cohort whose plan names each member's prekey of that serial."""
        for number, device in enumerate(self.world.devices):
            private, signed = new_prekey(
                device=device.device_id,
                serial=serial,
                epoch=1,
                not_after=NOW_UNIX_S + 10 * DAY_S,
                sign=device.sign,
                randomness=os.urandom,
            )
            stores[number].append(replace(device, prekey_private=private, prekey=signed))
        prekeys = [keys[-1].prekey for keys in stores.values()]
        by_device = {prekey.device_id: prekey for prekey in prekeys}

        def name_them(plan: plan_pb2.Plan) -> None:
            for member in plan.committee:
                member.prekey.CopyFrom(prekey_to_proto(by_device[member.prekey.device_id]))

        cohort = self.world.open_cohort(parent=self.parent, edit=name_them, n_max=DEVICES)
        return CohortOfLiar(cohort, prekeys)

    @contextmanager
    def agent(self, number: int, coordinator: ScriptedCoordinator) -> Iterator[Session]:
        """The agent from its files; afterwards what it holds is read from them."""
        home = self.directory / f"device{number}"
        home.mkdir(exist_ok=True)
        with agent_of(self.world, self.world.devices[number], home, coordinator, with_prekey=False) as session:
            yield session
            for which, liar in enumerate(self.cohorts if hasattr(self, "holds") else ()):
                found = session.store.prekeys.find(liar.prekeys[number].public)
                self.holds[number, which] = found is not None

    def index_of(self, number: int, liar: CohortOfLiar) -> int:
        """A device's place on a committee."""
        mine = self.world.devices[number].device_id
        return next(member.index for member in liar.cohort.message.committee if member.prekey.device_id == mine)

    @initialize(
        honest=st.sampled_from([None, 0, 0, 1]),
        answering=st.sampled_from([0, 0, 1, 4, 5]),
        silent=st.sampled_from([None, 0, 2, 4]),
    )
    def begin_honestly(self, honest: int | None, answering: int, silent: int | None) -> None:
        """A night that goes well up to some moment, and perhaps ends in a void: most runs have a sum to protect."""
        if honest is None:
            return
        everybody = list(range(DEVICES))
        self.offer_a_plan_to_all(everybody, honest, 0)
        self.freeze_any_set(honest, set(), everybody=True)
        for number in everybody[:answering]:
            self.ask(number, self.cohorts[honest], self.cohorts[honest].sets[0], "")
        if silent is not None:
            self.lie_to_get_a_second_sum(everybody, honest, silent)

    # Contributing.

    @rule(numbers=st.permutations(range(DEVICES)), which=WHICH, lost=st.integers(0, 2))
    def offer_a_plan_to_all(self, numbers: list[int], which: int, lost: int) -> None:
        """In any order; some uploads are lost."""
        for place, number in enumerate(numbers):
            self.offer_a_plan(number, which, arrives=place >= lost)

    @rule(number=NUMBER, which=WHICH, arrives=st.booleans())
    def offer_a_plan_to_one(self, number: int, which: int, *, arrives: bool) -> None:
        """Perhaps for the second time, and perhaps the second plan."""
        self.offer_a_plan(number, which, arrives=arrives)

    def offer_a_plan(self, number: int, which: int, *, arrives: bool) -> None:
        liar, device, view = self.cohorts[which], self.world.devices[number], self.world.view()
        release = verify_release(self.parent.offer(), view=view, trust=self.world.trust)
        checked = CheckedIn(device_pb2.CheckInResponse(plan=liar.cohort.offer()), view, frozenset())
        with self.agent(number, ScriptedCoordinator()) as session:
            try:
                assignment = examine(session, checked, {release.release_id: release})
            except NightshiftError:
                return
            if assignment is not None:
                assert number not in liar.given, "the same plan was carried out twice"
                liar.given[number] = self.contribute(session, device, assignment)
        if arrives and not liar.sets:
            # Bytes that were made once are sent again as they are; a second arrival is acknowledged, not folded.
            liar.received.add(number)

    def contribute(self, session: Session, device: EnrolledDevice, assignment: Assignment) -> Given:
        """Encrypt and journal as edge_client/agent/contribution.py does after training; the first byte leaves."""
        plan, document = assignment.plan, assignment.plan.document
        values = np.random.default_rng().integers(1, 255, document.vector.length, dtype=np.uint64)
        made = contribute(
            parameters=document.parameters,
            plan_hash=plan.plan_hash,
            sender=device.device_id,
            members=plan.member_keys(),
            values=values,
            sign=device.sign,
            randomness=os.urandom,
        )
        session.store.contributions.add(
            journal_entry(
                cohort_id=document.cohort_id,
                plan_hash=plan.plan_hash,
                task=document.task,
                parent_release=assignment.parent.release_id,
                parent_adapter_sha256=assignment.parent.document.adapter_sha256,
                latest_prekey_expiry_unix_s=NOW_UNIX_S + 10 * DAY_S,
                committee_keys=tuple(spki(leaf_public_key(member.certificate)) for member in document.committee),
                erasures_required=document.parameters.erasures_required,
            )
        )
        session.store.contributions.apply(document.cohort_id, Event.FIRST_BYTE, session.now_unix_s)
        return Given(made, values)

    # Answering.

    @rule(which=WHICH, numbers=st.sets(NUMBER, min_size=1), everybody=st.booleans())
    def freeze_any_set(self, which: int, numbers: set[int], *, everybody: bool) -> None:
        """Freeze and log a set of what came, once more if there is one already."""
        liar = self.cohorts[which]
        chosen = sorted(liar.received if everybody else liar.received & numbers)
        if chosen:
            given = {self.world.devices[number].device_id: liar.given[number].contribution for number in chosen}
            liar.sets.append(liar.cohort.freeze(given))

    @rule(numbers=st.permutations(range(DEVICES)), which=WHICH, silent=st.integers(0, 2), data=st.data())
    def ask_members(self, numbers: list[int], which: int, silent: int, data: st.DataObject) -> None:
        """Some in any order, each about any set that was ever frozen, in a bundle with or without a lie in it."""
        liar = self.cohorts[which]
        if not liar.sets:
            return
        same = data.draw(st.sampled_from([True, True, False]))
        shown = data.draw(st.integers(0, len(liar.sets) - 1))
        for number in numbers[silent:]:
            shown = shown if same else data.draw(st.integers(0, len(liar.sets) - 1))
            self.ask(number, liar, liar.sets[shown], data.draw(st.sampled_from(["", "", "", "drop", "swap"])))

    def ask(self, number: int, liar: CohortOfLiar, frozen: FrozenSet, lie: str) -> None:
        header, entries = frozen.header(), frozen.entries(self.index_of(number, liar))
        if lie == "drop":
            entries.pop()
        elif lie == "swap":
            entries[0].sealed = entries[-1].sealed

        def bundle(request: device_pb2.GetBundleRequest) -> Iterator[device_pb2.GetBundleResponse]:
            if request.log_size:
                header.consistency_path.extend(self.world.tree.consistency_path(request.log_size))
            yield device_pb2.GetBundleResponse(header=header)
            yield from (device_pb2.GetBundleResponse(entry=entry) for entry in entries)

        coordinator = ScriptedCoordinator(bundle=bundle)
        with self.agent(number, coordinator) as session, suppress(NightshiftError):
            serve(session, liar.cohort.message.cohort_id)
        for answer in coordinator.answers:
            sent = liar.answers.setdefault(number, {}).setdefault(answer.set_hash, set())
            sent.add(answer.SerializeToString(deterministic=True))
        assert not coordinator.refusals, "every share here opens; a lie is no reason to accuse a contributor"

    # Voids, true and false.

    @rule(which=WHICH)
    def log_a_void(self, which: int) -> None:
        """Whatever the members have done or will do."""
        liar = self.cohorts[which]
        if liar.void_index is None:
            liar.void_index = self.world.append(
                log_pb2.LOG_ENTRY_KIND_VOID, subject=liar.cohort.message.cohort_id, digest=liar.cohort.plan_hash
            )

    @rule(numbers=st.permutations(range(DEVICES)), which=WHICH, silent=st.integers(0, 3))
    def tell_members_that_it_is_void(self, numbers: list[int], which: int, silent: int) -> None:
        """With the log's proof, or with that of another entry."""
        liar = self.cohorts[which]
        offer = liar.cohort.offer()
        proof = self.world.proof(liar.cohort.plan_index if liar.void_index is None else liar.void_index)

        def void(request: device_pb2.GetVoidRequest) -> device_pb2.GetVoidResponse:
            return device_pb2.GetVoidResponse(
                plan=offer.plan,
                signature=offer.signature,
                plan_proof=offer.plan_proof,
                void_proof=proof,
                checkpoint=self.world.checkpoint(),
                consistency_path=self.world.tree.consistency_path(request.log_size) if request.log_size else [],
            )

        for number in numbers[silent:]:
            coordinator = ScriptedCoordinator(void=void)
            with self.agent(number, coordinator) as session, suppress(NightshiftError):
                lay_to_rest(session, liar.cohort.message.cohort_id)
            for sent in coordinator.erasures:
                assert liar.void_index is not None, "a member laid a cohort to rest on the coordinator's word"
                device = self.world.devices[number]
                liar.statements[number] = device_pb2.ErasureStatement(member=device.device_id, signature=sent.signature)

    @rule(number=NUMBER, which=WHICH, repeated=st.booleans())
    def tell_a_contributor_that_it_is_void(self, number: int, which: int, *, repeated: bool) -> None:
        """With the statements that there are, or with one of them many times."""
        liar = self.cohorts[which]
        proof = self.world.proof(liar.cohort.plan_index if liar.void_index is None else liar.void_index)
        statements = list(liar.statements.values())
        void = device_pb2.VoidCohort(proof=proof, erasures=statements[:1] * 4 if repeated else statements)
        view = self.world.view()
        with self.agent(number, ScriptedCoordinator()) as session, suppress(NightshiftError):
            note_voids(session, device_pb2.CheckInResponse(voids=[void]), view)

    @rule(numbers=st.permutations(range(DEVICES)), which=WHICH, silent=st.integers(0, DEVICES))
    def lie_to_get_a_second_sum(self, numbers: list[int], which: int, silent: int) -> None:
        """The whole of it: log a void, have some members lay it to rest, and offer everybody the other plan."""
        self.log_a_void(which)
        self.tell_members_that_it_is_void(numbers, which, silent)
        for number in numbers:
            self.tell_a_contributor_that_it_is_void(number, which, repeated=silent == DEVICES - 1)
            self.offer_a_plan(number, 1 - which, arrives=True)

    # Time.

    @rule(hours=st.sampled_from([1, 9, 60]))
    def let_time_pass(self, hours: int) -> None:
        self.now_unix_s += hours * 3600
        (self.directory / "clock").write_text(str(self.now_unix_s - time.time()), "ascii")

    @rule(number=NUMBER)
    def check_in(self, number: int) -> None:
        """What a check-in does about prekeys first."""
        with self.agent(number, ScriptedCoordinator()) as session:
            session.store.prekeys.erase_expired(session.now_unix_s)
        for which, liar in enumerate(self.cohorts):
            if self.now_unix_s > liar.prekeys[number].not_after:
                assert not self.holds[number, which]

    # What must hold, whatever the coordinator does.

    @invariant()
    def nobody_answers_two_sets(self) -> None:
        for liar in self.cohorts:
            for answers in liar.answers.values():
                assert len(answers) == 1
                assert all(len(messages) == 1 for messages in answers.values()), "a retry of other bytes"

    @invariant()
    def nobody_answers_what_it_laid_to_rest(self) -> None:
        for liar in self.cohorts:
            assert not set(liar.answers) & set(liar.statements)

    @invariant()
    def no_prekey_survives_its_use(self) -> None:
        for which, liar in enumerate(self.cohorts):
            for number in {*liar.answers, *liar.statements}:
                assert not self.holds[number, which]

    @invariant()
    def nobody_contributes_to_a_parent_twice_while_a_sum_may_open(self) -> None:
        """Twice only where fewer than T members, f of them corrupt, could ever answer for one of the two cohorts."""
        for number in range(DEVICES):
            if all(number in liar.given for liar in self.cohorts):
                event("a device contributed twice, after the first cohort was laid to rest or had expired")
                assert any(self.can_never_open(which) for which in COHORTS)

    def can_never_open(self, which: int) -> bool:
        liar = self.cohorts[which]
        parameters = liar.cohort.document.parameters
        able = sum(number in liar.answers or self.holds[number, which] for number in range(DEVICES))
        return able + parameters.corrupt < parameters.threshold

    @invariant()
    def sums_are_exact_or_absent(self) -> None:
        for liar in self.cohorts:
            for frozen in liar.sets:
                self.open(liar, frozen)

    def open(self, liar: CohortOfLiar, frozen: FrozenSet) -> None:
        """Open one set with the answers that came for it; the sum has been through its bytes after every fold."""
        document = liar.cohort.document
        messages = [
            device_pb2.AnswerRequest.FromString(next(iter(answers[frozen.set_hash])))
            for answers in liar.answers.values()
            if frozen.set_hash in answers
        ]
        chosen = [n for n in liar.received if self.world.devices[n].device_id in frozen.contributions]
        running = RunningSum.new(document.parameters, document.vector.length)
        for number in chosen:
            running.add(liar.given[number].contribution.ciphertext)
            running = RunningSum.from_bytes(running.to_bytes())
        try:
            opened = open_sum(
                parameters=document.parameters,
                plan_hash=liar.cohort.plan_hash,
                running=running,
                answers=[Answer(message.index, message.vector, message.signature) for message in messages],
            )
        except SumAbsentError:
            assert len(messages) < document.parameters.threshold
            return
        total = np.sum([liar.given[number].values for number in chosen], axis=0, dtype=np.uint64)
        np.testing.assert_array_equal(opened.values, total)
        event("a sum opened", "the first" if liar is self.cohorts[0] else "the second")


AgentsAgainstALiar.TestCase.settings = settings(max_examples=15, stateful_step_count=10, deadline=None)
TestAgentsAgainstALiar = AgentsAgainstALiar.TestCase
