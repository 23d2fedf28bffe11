from __future__ import annotations

import math

import numpy as np
import pytest

from edge_client.training.adamw import AdamW, Schedule, clip_to_norm


def scalar_adamw(start: float, gradients: list[float], rates: list[float], *, decay: float) -> list[float]:
    """Algorithm 2 of Loshchilov and Hutter (2019) for one number, as the paper writes it."""
    theta, m, v, path = start, 0.0, 0.0, []
    for t, (g, eta) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        m_hat = m / (1 - 0.9**t)
        v_hat = v / (1 - 0.999**t)
        # The decay acts on theta before the step, as in torch; the paper's eta * lambda * theta.
        theta = theta - eta * decay * theta - eta * m_hat / (math.sqrt(v_hat) + 1e-8)
        path.append(theta)
    return path


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_follows_the_paper_number_by_number(decay: float) -> None:
    random = np.random.default_rng(1)
    gradients = random.normal(size=(50, 7)).astype(np.float32)
    start = random.normal(size=7).astype(np.float32)
    rates = [0.01 * (1 + step % 3) for step in range(50)]
    parameters, optimiser = start.copy(), AdamW(7, weight_decay=decay)
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimiser.update(parameters, gradient.copy(), rate)
        path.append(parameters.copy())
    for index in range(7):
        expected = scalar_adamw(float(start[index]), gradients[:, index].tolist(), rates, decay=decay)
        np.testing.assert_allclose(np.array(path)[:, index], expected, rtol=2e-5, atol=2e-6)


def test_the_first_step_is_the_rate_against_the_sign() -> None:
    """With one gradient the moments cancel: g / sqrt(g^2) is the sign, whatever the size."""
    parameters = np.zeros(4, np.float32)
    AdamW(4).update(parameters, np.array([1e-3, -5, 70, 0], np.float32), 0.25)
    np.testing.assert_allclose(parameters, [-0.25, 0.25, -0.25, 0], rtol=2e-5)


def test_decay_alone_shrinks_geometrically() -> None:
    parameters, optimiser = np.ones(2, np.float32), AdamW(2, weight_decay=0.5)
    for _ in range(3):
        optimiser.update(parameters, np.zeros(2, np.float32), 0.1)
    np.testing.assert_allclose(parameters, 0.95**3, rtol=1e-6)


@pytest.mark.publisher
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_it_follows_torch_for_a_hundred_clipped_steps(decay: float) -> None:
    torch = pytest.importorskip("torch", reason="needs the publisher extra (torch)")
    random = np.random.default_rng(2)
    start = random.normal(size=500).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = torch.optim.AdamW([theirs], lr=5e-3, weight_decay=decay, foreach=False)
    ours, our_optimiser = start.copy(), AdamW(500, weight_decay=decay)
    for step in range(100):
        gradient = (random.normal(size=500) * 10 ** random.uniform(-4, 1)).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient.copy())
        their_norm = float(torch.nn.utils.clip_grad_norm_([theirs], 1.0))
        our_gradient = gradient.copy()
        assert clip_to_norm(our_gradient, 1.0) == pytest.approx(their_norm, rel=1e-5)
        rate = Schedule.COSINE.rate(5e-3, step, 100)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        our_optimiser.update(ours, our_gradient, rate)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_norm_and_keeps_the_direction() -> None:
    gradient = np.array([3, 4], np.float32)
    assert clip_to_norm(gradient, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(gradient, [0.6, 0.8], rtol=1e-5)
    small = np.array([0.3, 0.4], np.float32)
    clip_to_norm(small, 1.0)
    np.testing.assert_array_equal(small, np.array([0.3, 0.4], np.float32))
    unbounded = np.array([30, 40], np.float32)
    assert clip_to_norm(unbounded, 0.0) == pytest.approx(50.0)
    np.testing.assert_array_equal(unbounded, [30, 40])


def test_the_norm_of_a_large_gradient_does_not_overflow_and_of_a_broken_one_is_not_finite() -> None:
    assert clip_to_norm(np.full(100, 1e30, np.float32), 0.0) == pytest.approx(1e31)
    for value in (np.nan, np.inf):
        gradient = np.array([1, value], np.float32)
        assert not math.isfinite(clip_to_norm(gradient, 1.0))


def test_schedules() -> None:
    assert [Schedule.CONSTANT.rate(0.1, step, 10) for step in (0, 5, 9)] == [0.1] * 3
    assert Schedule.COSINE.rate(0.1, 0, 10) == pytest.approx(0.1)
    assert Schedule.COSINE.rate(0.1, 5, 10) == pytest.approx(0.05)
    assert Schedule.COSINE.rate(0.1, 10, 10) == pytest.approx(0.0)
