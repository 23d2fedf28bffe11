"""The server's optimisers against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coordinator.aggregation.server_optimisers import ServerMemory, ServerMethod, ServerOptimiser
from nightshift.protocol.errors import UsageError

DELTA = np.array([0.5, -0.25, 0.0], dtype=np.float32)
ALL = np.ones(3, dtype=np.bool_)


def steps(optimiser: ServerOptimiser, deltas: list[np.ndarray]) -> list[np.ndarray]:
    memory, taken = None, []
    for delta in deltas:
        step, memory = optimiser.step(delta, memory, trained=ALL)
        taken.append(step)
    return taken


def test_fedavg_is_the_mean_delta_itself() -> None:
    first, second = steps(ServerOptimiser(), [DELTA, 2 * DELTA])
    np.testing.assert_array_equal(first, DELTA)
    np.testing.assert_array_equal(second, 2 * DELTA)


def test_momentum_over_equal_deltas_is_a_geometric_series() -> None:
    taken = steps(ServerOptimiser(ServerMethod.FEDAVGM, momentum=0.9), [DELTA] * 5)
    for rounds, step in enumerate(taken, start=1):
        np.testing.assert_allclose(step, DELTA * (1 - 0.9**rounds) / (1 - 0.9), rtol=1e-5)


def test_adam_over_equal_deltas_has_a_closed_form() -> None:
    """m_t = (1 - beta_1^t) d and v_t = d^2 + beta_2^t (tau^2 - d^2), without bias correction (Reddi et al. 2021)."""
    optimiser = ServerOptimiser(
        ServerMethod.FEDADAM, learning_rate=0.1, momentum=0.8, second_momentum=0.95, adaptivity=0.01
    )
    for rounds, step in enumerate(steps(optimiser, [DELTA] * 6), start=1):
        for value, delta in zip(step, DELTA.tolist(), strict=True):
            mean = (1 - 0.8**rounds) * delta
            square = delta**2 + 0.95**rounds * (0.01**2 - delta**2)
            assert value == pytest.approx(0.1 * mean / (math.sqrt(square) + 0.01), rel=1e-5, abs=1e-9)


def test_no_momentum_is_fedavg() -> None:
    for plain, without in zip(
        steps(ServerOptimiser(), [DELTA, -DELTA]),
        steps(ServerOptimiser(ServerMethod.FEDAVGM, momentum=0.0), [DELTA, -DELTA]),
        strict=True,
    ):
        np.testing.assert_array_equal(plain, without)


@pytest.mark.parametrize("method", [ServerMethod.FEDAVGM, ServerMethod.FEDADAM])
def test_what_a_round_did_not_train_takes_no_step_and_is_remembered_as_it_was(method: ServerMethod) -> None:
    optimiser = ServerOptimiser(method, learning_rate=0.1, momentum=0.5)
    first = np.array([True, False, True])
    _, before = optimiser.step(DELTA, None, trained=ALL)
    step, between = optimiser.step(np.where(first, DELTA, 0), before, trained=first)
    assert before is not None
    assert between is not None
    assert step[1] == 0
    assert between.mean[1] == before.mean[1] != 0
    assert between.square[1:2].tolist() == before.square[1:2].tolist()
    # The slot that was left out goes on as though there had been no such round; the others went two rounds on.
    step, _ = optimiser.step(DELTA, between, trained=ALL)
    second, after_two = optimiser.step(DELTA, before, trained=ALL)
    third, _ = optimiser.step(DELTA, after_two, trained=ALL)
    assert step[1] == second[1] != third[1]
    assert step[0] == third[0] != second[0]


def test_what_nobody_ever_trained_starts_like_the_first_round() -> None:
    optimiser = ServerOptimiser(ServerMethod.FEDADAM, learning_rate=0.1)
    first = np.array([True, False, True])
    _, memory = optimiser.step(np.where(first, DELTA, 0), None, trained=first)
    late, _ = optimiser.step(DELTA, memory, trained=ALL)
    fresh, _ = optimiser.step(DELTA, None, trained=ALL)
    assert late[1] == fresh[1] != 0


def test_a_memory_of_another_length_is_refused() -> None:
    optimiser = ServerOptimiser(ServerMethod.FEDAVGM)
    with pytest.raises(UsageError, match="remembers 2 values, this round has 3"):
        optimiser.step(DELTA, ServerMemory.empty(2, optimiser), trained=ALL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("momentum", 1.0),
        ("second_momentum", -0.1),
        ("adaptivity", 0.0),
    ],
)
def test_constants_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        ServerOptimiser(**{name: value})  # type: ignore[arg-type]  # one keyword at a time
