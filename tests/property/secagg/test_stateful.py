"""Many devices, members and a coordinator through drops, duplicates, replays, restarts and lies.

The stores are the least that the docstrings of `device`, `member`, `running_sum` and `erasure`
demand of a caller: bytes that survive a restart, written before anything is sent. The rules of
hypothesis play the network and a coordinator that lies where it can.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from secagg_cohort import Cohort, Upload, total

from nightshift.protocol.errors import DeclinedError, MalformedError, NightshiftError, StateConflictError
from nightshift.protocol.secagg.erasure import ErasureStatement, sign_erasure, verify_void
from nightshift.protocol.secagg.errors import SumAbsentError
from nightshift.protocol.secagg.member import Answer, verify_answer
from nightshift.protocol.secagg.opener import OpenedVector, RunningSum, open_sum
from nightshift.protocol.secagg.parameters import CohortParameters
from nightshift.protocol.secagg.refusal import Refusal, ShareFault, UnusableShare, sign_refusal, verify_refusal

DEVICES = 6
COMMITTEE = 5
MINIMUM = 3


@cache
def prepared() -> tuple[Cohort, list[Upload]]:
    parameters = CohortParameters.derive(n_max=DEVICES, value_bits=8, committee_size=COMMITTEE)
    cohort = Cohort(parameters, length=60, seed=4)
    return cohort, [cohort.upload(number) for number in range(DEVICES)]


@dataclass
class MemberStore:
    """What a member keeps on disk."""

    prekey: bytes | None
    answered: tuple[bytes, Answer] | None = None
    erased: ErasureStatement | None = None
    refused: Refusal | None = None


@dataclass
class Coordinator:
    """What a coordinator keeps on disk: one transaction for the sum and the list of the folded."""

    running: bytes
    folded: list[int] = field(default_factory=list)
    frozen: bytes | None = None
    answers: dict[int, Answer] = field(default_factory=dict)


class OneCohort(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cohort, self.uploads = prepared()
        empty = RunningSum.new(self.cohort.parameters, self.cohort.length)
        self.coordinator = Coordinator(running=empty.to_bytes())
        self.members = {
            index: MemberStore(prekey=member.prekey_private)
            for index, member in enumerate(self.cohort.members, start=1)
        }
        # Sets that members of this cohort ever signed an answer for, member by member.
        self.signed: dict[int, set[bytes]] = {index: set() for index in self.members}
        self.opened: list[OpenedVector] = []
        self.lies_left = 0

    @initialize(lies=st.sampled_from([0, 0, 1, 1, 2, COMMITTEE]))
    def choose_how_often_to_lie(self, lies: int) -> None:
        """Lies that cost a member its only answer; without a limit hardly any run would ever open."""
        self.lies_left = lies

    # The network and the devices.

    @rule(numbers=st.permutations([0, 0, *range(DEVICES)]), lost=st.integers(0, 4))
    def upload_some_perhaps_twice(self, numbers: list[int], lost: int) -> None:
        """A retry sends identical bytes; the second time they are acknowledged, not folded."""
        for number in numbers[lost:]:
            self.receive(number, self.uploads[number])

    def receive(self, number: int, upload: Upload) -> None:
        self.cohort.verify(upload.sender, upload.contribution)
        if self.coordinator.frozen is not None or number in self.coordinator.folded:
            return
        running = RunningSum.from_bytes(self.coordinator.running)
        running.add(upload.contribution.ciphertext)
        self.coordinator.running = running.to_bytes()
        self.coordinator.folded.append(number)

    @rule(number=st.integers(0, DEVICES - 1), where=st.integers(0, 5000), cut=st.booleans())
    def upload_garbled(self, number: int, where: int, cut: bool) -> None:
        good = self.uploads[number].contribution
        bad = bytearray(good.ciphertext)
        bad[where % len(bad)] ^= 0x40
        contribution = replace(good, ciphertext=bytes(bad[:-1] if cut else bad))
        try:
            self.cohort.verify(self.uploads[number].sender, contribution)
        except NightshiftError:
            return
        raise AssertionError("a garbled upload was accepted")

    # An honest coordinator's steps.

    @precondition(lambda self: self.coordinator.frozen is None and len(self.coordinator.folded) >= MINIMUM)
    @rule()
    def freeze(self) -> None:
        self.coordinator.frozen = self.cohort.set_hash(self.chosen())

    def chosen(self) -> list[Upload]:
        return [self.uploads[number] for number in self.coordinator.folded]

    @precondition(lambda self: self.coordinator.frozen is not None)
    @rule(indexes=st.permutations([1, 1, *range(1, COMMITTEE + 1)]), silent=st.integers(0, 4))
    def ask_some_perhaps_twice(self, indexes: list[int], silent: int) -> None:
        for index in indexes[silent:]:
            self.ask(index)

    def ask(self, index: int) -> None:
        """The member answers once; asked again for the same set it sends the same bytes."""
        before = self.members[index].answered
        answer = self.member_answers(index, self.chosen())
        if answer is None:
            return
        if before is not None:
            assert before[1] == answer
        frozen = self.coordinator.frozen
        assert frozen is not None
        verify_answer(
            parameters=self.cohort.parameters,
            plan_hash=self.cohort.plan_hash,
            set_hash=frozen,
            answer=answer,
            public_key=self.cohort.members[index - 1].identity.public_key,
        )
        self.coordinator.answers[index] = answer

    def member_answers(self, index: int, shown: list[Upload]) -> Answer | None:
        """A member's whole duty: what it stored decides; then verify, store and erase, send."""
        store = self.members[index]
        wanted = self.cohort.set_hash(shown)
        if store.answered is not None:
            return store.answered[1] if store.answered[0] == wanted else None
        if store.prekey is None:
            return None
        answer = self.cohort.answer(index, shown, prekey_private=store.prekey, set_hash=wanted)
        self.members[index] = MemberStore(prekey=None, answered=(wanted, answer))
        self.signed[index].add(wanted)
        return answer

    @precondition(lambda self: self.coordinator.frozen is not None)
    @rule(order=st.permutations(range(1, COMMITTEE + 1)), spoilt=st.sets(st.integers(1, COMMITTEE), max_size=1))
    def open(self, order: list[int], spoilt: set[int]) -> None:
        """Open with what has arrived, in any order, some of it spoilt."""
        answers = []
        for index in order:
            if index in self.coordinator.answers:
                answer = self.coordinator.answers[index]
                if index in spoilt:
                    vector = np.frombuffer(answer.vector, dtype="<u2").copy()
                    vector[0] = (int(vector[0]) + 11 * index) % 65521
                    answer = replace(answer, vector=vector.tobytes())
                answers.append(answer)
        good = len({answer.index for answer in answers} - spoilt)
        try:
            opened = open_sum(
                parameters=self.cohort.parameters,
                plan_hash=self.cohort.plan_hash,
                running=RunningSum.from_bytes(self.coordinator.running),
                answers=answers,
            )
        except SumAbsentError:
            assert good < self.cohort.parameters.threshold
            return
        assert good >= self.cohort.parameters.threshold
        self.opened.append(opened)

    # A lying coordinator's.

    @precondition(lambda self: self.lies_left)
    @rule(index=st.integers(1, COMMITTEE), numbers=st.sets(st.integers(0, DEVICES - 1)))
    def show_another_set(self, index: int, numbers: set[int]) -> None:
        """Ask a member about any set at all. The stored record is what stops a second answer."""
        self.lies_left -= 1
        shown = [self.uploads[number] for number in sorted(numbers)]
        before = self.members[index].answered
        try:
            answer = self.member_answers(index, shown)
        except DeclinedError:
            assert len(shown) < MINIMUM
            return
        assert len(shown) >= MINIMUM or answer is None
        if before is not None and before[0] != self.cohort.set_hash(shown):
            assert answer is None

    @precondition(lambda self: self.coordinator.frozen is not None)
    @rule(index=st.integers(1, COMMITTEE), victim=st.integers(0, DEVICES - 1), other=st.integers(0, DEVICES - 1))
    def swap_a_share(self, index: int, victim: int, other: int) -> None:
        """Give a member one contributor's share in another's name."""
        store = self.members[index]
        if store.prekey is None or victim == other:
            return
        shares = [
            replace(upload.share(index), sealed=self.uploads[other].share(index).sealed)
            if upload is self.uploads[victim]
            else upload.share(index)
            for upload in self.chosen()
        ]
        if victim not in self.coordinator.folded:
            return
        try:
            self.cohort.answer(index, self.chosen(), shares=shares, prekey_private=store.prekey)
        except NightshiftError:
            return
        raise AssertionError("a swapped share was added")

    @precondition(lambda self: self.lies_left)
    @rule(index=st.integers(1, COMMITTEE))
    def say_it_is_void(self, index: int) -> None:
        """A member that did not answer erases its prekey, then says so; one that answered never does."""
        self.lies_left -= 1
        store = self.members[index]
        if store.answered is not None or store.erased is not None:
            return
        member = self.cohort.members[index - 1].identity
        self.members[index] = MemberStore(prekey=None)
        self.members[index].erased = sign_erasure(
            plan_hash=self.cohort.plan_hash, cohort_id=b"cohort", member=member.device_id, sign=member.sign
        )

    @precondition(lambda self: self.lies_left and self.coordinator.frozen is not None)
    @rule(index=st.integers(1, COMMITTEE), culprit=st.integers(0, DEVICES - 1))
    def refuse_a_share(self, index: int, culprit: int) -> None:
        """A member cannot use a share, or says so: it keeps its word and its erasure, and loses its prekey."""
        self.lies_left -= 1
        store = self.members[index]
        if store.prekey is None or culprit not in self.coordinator.folded:
            return
        frozen = self.coordinator.frozen
        assert frozen is not None
        member = self.cohort.members[index - 1].identity
        share = UnusableShare(self.uploads[culprit].sender.device_id, ShareFault.DOES_NOT_OPEN)
        refused = sign_refusal(plan_hash=self.cohort.plan_hash, set_hash=frozen, shares=[share], sign=member.sign)
        erased = sign_erasure(
            plan_hash=self.cohort.plan_hash, cohort_id=b"cohort", member=member.device_id, sign=member.sign
        )
        self.members[index] = MemberStore(prekey=None, erased=erased, refused=refused)
        verify_refusal(refused, plan_hash=self.cohort.plan_hash, public_key=member.public_key)

    @rule()
    def replay_a_fold_into_a_full_sum(self) -> None:
        running = RunningSum.from_bytes(self.coordinator.running)
        if running.contributors < DEVICES:
            return
        try:
            running.add(self.uploads[0].contribution.ciphertext)
        except StateConflictError:
            return
        raise AssertionError("a full cohort took another contribution")

    @rule(cut=st.integers(1, 60))
    def tear_the_running_sum(self, cut: int) -> None:
        try:
            RunningSum.from_bytes(self.coordinator.running[:-cut])
        except MalformedError:
            return
        raise AssertionError("a torn running sum was read")

    # What must hold at every moment.

    @invariant()
    def sums_are_exact(self) -> None:
        for opened in self.opened:
            np.testing.assert_array_equal(opened.values, total(self.chosen()))
        self.opened.clear()

    @invariant()
    def nobody_answers_two_sets(self) -> None:
        assert all(len(sets) <= 1 for sets in self.signed.values())

    @invariant()
    def no_prekey_outlives_its_use(self) -> None:
        for store in self.members.values():
            assert store.prekey is None or (store.answered is None and store.erased is None)

    @invariant()
    def a_member_says_one_thing(self) -> None:
        for index, store in self.members.items():
            assert store.erased is None or (store.answered is None and not self.signed[index])
            assert store.refused is None or store.erased is not None

    @invariant()
    def a_cohort_that_is_laid_to_rest_never_opens(self) -> None:
        """Once the statements suffice, too few members can answer, whatever happens next."""
        statements = [store.erased for store in self.members.values() if store.erased is not None]
        keys = {m.identity.device_id: m.identity.public_key for m in self.cohort.members}
        try:
            verify_void(
                required=self.cohort.parameters.erasures_required,
                plan_hash=self.cohort.plan_hash,
                cohort_id=b"cohort",
                committee=keys,
                statements=statements,
            )
        except NightshiftError:
            return
        able = sum(store.prekey is not None or store.answered is not None for store in self.members.values())
        assert able + self.cohort.parameters.corrupt < self.cohort.parameters.threshold


OneCohort.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestOneCohort = OneCohort.TestCase
