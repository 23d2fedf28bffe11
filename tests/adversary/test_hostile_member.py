"""A hostile committee member, against the real coordinator over real TLS: what it tries, what stops it, and where.

Its seat and its key are real, so that its answers are signed as they must be. The sum is
right or absent, whatever it says; and more than C - T members must work together to keep it absent.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import pytest

from coordinator.storage.rows import CohortState
from nightshift.protocol.errors import (
    MalformedError,
    NightshiftError,
    NotFoundError,
    SignatureInvalidError,
    StateConflictError,
)
from nightshift.protocol.secagg.member import answer_message
from nightshift.protocol.secagg.sharing import lagrange
from nightshift.v1 import device_pb2
from tests.adversary.conftest import NightOf
from tests.support.nights import Night
from tests.support.scripted_device import Prepared, ScriptedDevice

FIELD_PRIME = 65521


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A night whose set is frozen: three contributed, nobody has answered yet."""

    night: Night
    prepared: list[Prepared]

    @property
    def members(self) -> list[ScriptedDevice]:
        return self.night.members()

    def sign_again(self, request: device_pb2.AnswerRequest, member: ScriptedDevice) -> device_pb2.AnswerRequest:
        """Sign an altered answer as this member."""
        plan_hash = self.night.plan.plan_hash
        request.signature = member.sign(answer_message(plan_hash, request.set_hash, request.index, request.vector))
        return request

    def wrong(self, member: ScriptedDevice, error: Callable[[int], int]) -> device_pb2.AnswerRequest:
        """A member's answer with `error` of its index added to the first element, signed."""
        request = self.night.make_answer(member)
        vector = np.frombuffer(request.vector, dtype="<u2").copy()
        vector[0] = (int(vector[0]) + error(request.index)) % FIELD_PRIME
        request.vector = vector.tobytes()
        return self.sign_again(request, member)


def freeze(night: Night) -> Frozen:
    prepared = night.contribute(*night.devices[:3])
    assert night.end_uploads().state is CohortState.FROZEN
    return Frozen(night, prepared)


@pytest.fixture
def frozen(night: Night) -> Frozen:
    """C = 6, f = 1, T = 5: one may be silent or wrong."""
    return freeze(night)


@pytest.fixture
def nine(night_of: NightOf) -> Frozen:
    """C = 9, f = 2, T = 7: two may be silent or wrong."""
    made = night_of(devices=9)
    parameters = made.plan.document.parameters
    assert (parameters.committee_size, parameters.corrupt, parameters.threshold) == (9, 2, 7)
    return freeze(made)


# Answers that are refused when they arrive.


def bad_signature(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """nightshift/protocol/secagg/member.py, `verify_answer`: the right vector, signed by nobody."""
    request = frozen.night.make_answer(liar)
    request.signature = bytes(64)
    return request


def signature_of_another_key(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`verify_answer`: the key is that of the member in the plan."""
    return frozen.sign_again(frozen.night.make_answer(liar), frozen.members[1])


def index_of_another_member(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """coordinator/aggregation/answers.py, `receive`: the seat is that of the TLS connection's certificate."""
    request = frozen.night.make_answer(liar)
    request.index = request.index % 6 + 1
    return frozen.sign_again(request, liar)


def answer_of_another_member(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`receive`: what another member made and signed counts for nobody else."""
    return frozen.night.make_answer(frozen.members[1])


def index_beyond_the_committee(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`receive`."""
    request = frozen.night.make_answer(liar)
    request.index = 2**32 - 1
    return frozen.sign_again(request, liar)


def another_set(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`receive`: there is one frozen set."""
    request = frozen.night.make_answer(liar)
    request.set_hash = os.urandom(32)
    return frozen.sign_again(request, liar)


def another_cohort(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """coordinator/aggregation/answers.py, `seat_of`."""
    request = frozen.night.make_answer(liar)
    request.cohort_id = os.urandom(32)
    return request


def elements_outside_the_field(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """nightshift/protocol/secagg/sharing.py, `from_bytes`."""
    request = frozen.night.make_answer(liar)
    request.vector = b"\xff" * len(request.vector)
    return frozen.sign_again(request, liar)


def one_element_too_few(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`from_bytes`."""
    request = frozen.night.make_answer(liar)
    request.vector = request.vector[:-2]
    return frozen.sign_again(request, liar)


def a_megabyte(frozen: Frozen, liar: ScriptedDevice) -> device_pb2.AnswerRequest:
    """`from_bytes`, before anything is made of it."""
    request = frozen.night.make_answer(liar)
    request.vector = bytes(1 << 20)
    return frozen.sign_again(request, liar)


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (bad_signature, SignatureInvalidError),
        (signature_of_another_key, SignatureInvalidError),
        (index_of_another_member, MalformedError),
        (answer_of_another_member, MalformedError),
        (index_beyond_the_committee, MalformedError),
        (another_set, MalformedError),
        (another_cohort, NotFoundError),
        (elements_outside_the_field, MalformedError),
        (one_element_too_few, MalformedError),
        (a_megabyte, MalformedError),
    ],
    ids=lambda value: value.__name__,
)
def test_an_answer_that_is_refused(
    frozen: Frozen,
    attack: Callable[[Frozen, ScriptedDevice], device_pb2.AnswerRequest],
    error: type[NightshiftError],
) -> None:
    """Tries: what its name says. Stopped where its docstring says; the other five open the exact sum."""
    liar, *others = frozen.members
    with pytest.raises(error):
        liar.send_answer(attack(frozen, liar))
    assert frozen.night.answers_kept() == []
    frozen.night.answer(*others)
    frozen.night.require_exact_sum(frozen.prepared)


def test_two_answers(frozen: Frozen) -> None:
    """Tries: a second answer, to have the choice when it has seen what others say.

    Stopped by coordinator/aggregation/answers.py, `_require_same`: an answer never changes. The same one again is
    acknowledged.
    """
    liar, *others = frozen.members
    honest = frozen.night.make_answer(liar)
    liar.send_answer(honest)
    with pytest.raises(StateConflictError, match="never changes"):
        liar.send_answer(frozen.wrong(liar, lambda index: index))
    liar.send_answer(honest)
    frozen.night.answer(*others[:4])
    frozen.night.require_exact_sum(frozen.prepared)


def test_a_late_answer(frozen: Frozen) -> None:
    """Tries: to be the fifth, but after the deadline, when devices may already be told that the cohort is void.

    Stopped by coordinator/aggregation/answers.py and the cohort's state, which never goes back.
    """
    *others, late, _ = frozen.members
    request = frozen.night.make_answer(late)
    frozen.night.answer(*others)
    assert frozen.night.end_answers().state is CohortState.VOID
    with pytest.raises(StateConflictError, match="void"):
        late.send_answer(request)
    frozen.night.require_no_sum()


# Silence.


def test_as_many_silent_members_as_may_be(nine: Frozen) -> None:
    """Tries: C - T = 2 members never answer. The sum opens all the same."""
    nine.night.answer(*nine.members[2:])
    nine.night.require_exact_sum(nine.prepared)


def test_one_silent_member_more(nine: Frozen) -> None:
    """Tries: C - T + 1 = 3 members never answer. That denies the sum and shows nothing of it: the cohort is void."""
    nine.night.answer(*nine.members[3:])
    cohort = nine.night.end_answers()
    assert cohort.state is CohortState.VOID
    assert cohort.reason == "6 committee members answered before the deadline, 7 are needed"
    nine.night.require_no_sum()


# Wrong answers.


def test_one_liar_delays_the_sum(frozen: Frozen) -> None:
    """Tries: a wrong answer among the first five.

    Stopped by the residual check (nightshift/protocol/secagg/opener.py): five answers that do not
    fit open nothing; the sixth brings a subset that does.
    """
    liar, *others = frozen.members
    liar.send_answer(frozen.wrong(liar, lambda index: 7))
    frozen.night.answer(*others[:4])
    frozen.night.require_no_sum()
    frozen.night.answer(others[4])
    frozen.night.require_exact_sum(frozen.prepared)


def independent(index: int) -> int:
    """Each liar errs by itself."""
    return 1000 * index + 17


def vanishing_at_zero(index: int) -> int:
    """The liars' errors are those of one polynomial without a constant: as near to consistent as lies can be."""
    return 3 * index + 5 * index**2


@pytest.mark.parametrize("error", [independent, vanishing_at_zero], ids=lambda f: f.__name__)
@pytest.mark.parametrize("liars", [(0, 1), (3, 8), (7, 8)])
def test_as_many_colluding_liars_as_may_be(nine: Frozen, liars: tuple[int, ...], error: Callable[[int], int]) -> None:
    """Tries: f = C - T = 2 liars, so that of all 36 subsets of seven answers only one fits.

    Stopped by nightshift/protocol/secagg/opener.py, which searches the subsets. With f liars seven others agree, fewer
    than T + f - 1 = 8: the sum is exact and nobody is named (`_judge`).
    """
    for place in liars:
        nine.members[place].send_answer(nine.wrong(nine.members[place], error))
    honest = [member for place, member in enumerate(nine.members) if place not in liars]
    nine.night.answer(*honest[:-1])
    nine.night.require_no_sum()
    nine.night.answer(honest[-1])
    nine.night.require_exact_sum(nine.prepared)


def test_liars_who_know_the_subset_that_is_tried_first(nine: Frozen) -> None:
    """Tries: errors of three liars that cancel in the interpolation from members 1 to 7, so that lies are used.

    They gain nothing: what cancels leaves the key as it is, and the sum exact.
    """
    weights = lagrange(range(1, 8), 0, FIELD_PRIME)
    errors = {1: 5, 2: 9}
    rest = sum(weights[index - 1] * error for index, error in errors.items())
    errors[3] = -rest * pow(weights[2], -1, FIELD_PRIME) % FIELD_PRIME
    for index in errors:
        nine.members[index - 1].send_answer(nine.wrong(nine.members[index - 1], errors.__getitem__))
    nine.night.answer(*nine.members[3:7])
    nine.night.require_exact_sum(nine.prepared)


@pytest.mark.parametrize("liars", [3, 9])
def test_more_liars_than_may_be(nine: Frozen, liars: int) -> None:
    """Tries: C - T + 1 members lie, or all of them. The sum is absent, not wrong; nobody is blamed or revoked."""
    for member in nine.members[:liars]:
        member.send_answer(nine.wrong(member, independent))
    nine.night.answer(*nine.members[liars:])
    assert len(nine.night.answers_kept()) == 9
    cohort = nine.night.end_answers()
    assert cohort.state is CohortState.VOID
    assert cohort.reason == "9 committee members answered, but no 7 of their answers fit together"
    nine.night.require_no_sum()
    for member in nine.members:
        member.check_in()


# Restored from an old image of its disk.


def test_an_image_from_before_its_answer(frozen: Frozen) -> None:
    """Tries: the same member again, with the prekey that it had erased, and without the record of its answer.

    An honest coordinator has no duty for it any more. Asked for the bundle all the same it computes the
    same answer, to the byte: there is one frozen set, and an answer has no randomness.
    """
    restored, *others = frozen.members
    first = frozen.night.make_answer(restored)
    restored.send_answer(first)
    assert restored.check_in().duties == []
    again = frozen.night.make_answer(restored)
    assert again == first
    restored.send_answer(again)
    frozen.night.answer(*others[:4])
    frozen.night.require_exact_sum(frozen.prepared)


def test_an_image_of_an_older_epoch(frozen: Frozen) -> None:
    """Tries: prekeys of a store that was lost, and is back: what it answered since nobody knows.

    Stopped by coordinator/rounds/prekeys.py, `receive`, which has seen the newer epoch.
    """
    restored = frozen.members[0]
    old = restored.epoch
    restored.epoch += 1
    restored.check_in(new_prekeys=1)
    restored.epoch = old
    with pytest.raises(StateConflictError, match="its store is an old copy"):
        restored.check_in()
    with pytest.raises(StateConflictError, match="its store is an old copy"):
        restored.check_in(new_prekeys=1)
