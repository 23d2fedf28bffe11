"""Many devices in one process: each with its own key, certificate and connection, their calls on a few threads.

A device is the one that the tests drive (`tests.support.scripted_device`): real gRPC over mutual TLS, every
reply verified, every contribution encoded, encrypted and signed. It has no store and trains nothing:
what it contributes is random.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nightshift.host.tokens import JoinToken
from tests.support.scripted_device import Greeting, Prepared, ScriptedDevice

JOINS_AT_ONCE = 3
"""The join listener lets one network address do four at a time, and counts a call for a moment after its reply; here
one address plays all devices."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What a step of many devices took.

    Attributes:
        count: calls, or passes of a device.
        wall_s: from the first to the last.
        latencies_s: of each.
    """

    count: int
    wall_s: float
    latencies_s: Sequence[float]

    @property
    def per_s(self) -> float:
        """How many a second."""
        return self.count / self.wall_s

    def quantile_s(self, share: float) -> float:
        """The latency that this share of them did not exceed."""
        return float(np.quantile(self.latencies_s, share))


@dataclass
class LoadFleet:
    """Devices that join, check in, contribute and answer, many at a time.

    Attributes:
        size: devices.
        at_once: threads, and so calls under way.
    """

    size: int
    at_once: int
    devices: list[ScriptedDevice] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(init=False)
    _plans: dict[int, Greeting] = field(default_factory=dict)
    _prepared: dict[int, Prepared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.at_once)

    def join(self, token: JoinToken) -> Timed:
        """Enrol everyone, and have everyone check in with one prekey."""
        self.devices = [ScriptedDevice(token, name=f"load-{number}") for number in range(self.size)]
        with ThreadPoolExecutor(JOINS_AT_ONCE) as pool:
            joined = _each(pool, self.devices, ScriptedDevice.join)
        self._each(self.devices, lambda device: device.check_in(new_prekeys=1))
        return joined

    def idle_check_ins(self, *, duration_s: float, reconnect: bool) -> Timed:
        """Check in for so long, everyone in turn, with nothing to fetch and nothing to do.

        Args:
            duration_s: when to stop beginning another one.
            reconnect: each with a TLS connection of its own, as a device's pass has; else over one that is kept.
        """
        threads = min(self.at_once, self.size)
        end = time.monotonic() + duration_s

        def work(thread: int) -> list[float]:
            latencies = []
            # A device must not speak twice at once, since its nonces follow from each other: each has one thread.
            for device in itertools.cycle(self.devices[thread::threads]):
                began = time.monotonic()
                if began > end:
                    break
                if reconnect:
                    device.close()
                device.check_in(no_plan=True)
                latencies.append(time.monotonic() - began)
            return latencies

        began = time.monotonic()
        latencies = [latency for part in self._pool.map(work, range(threads)) for latency in part]
        return Timed(len(latencies), time.monotonic() - began, latencies)

    def usual_check_ins(self, *, devices: int, each: int) -> Timed:
        """A few devices check in by turns, one call at a time, each with a TLS connection of its own.

        Args:
            devices: how many of them; all, where there are fewer.
            each: check-ins of each, no more than one certificate may make at once.
        """

        def check_in(device: ScriptedDevice) -> None:
            device.close()
            device.check_in(no_plan=True)

        with ThreadPoolExecutor(1) as alone:
            return _each(alone, self.devices[:devices] * each, check_in)

    def fetch_plans(self) -> Timed:
        """Everyone checks in and verifies the plan of its cohort.

        Raises:
            RuntimeError: a device got none.
        """

        def fetch(number: int) -> None:
            self.devices[number].close()
            greeting = self.devices[number].check_in()
            if greeting.plan is None:
                raise RuntimeError(f"device {number} of {self.size} got no plan")
            self._plans[number] = greeting

        return self._each(range(self.size), fetch)

    def contribute(self, *, batch: int) -> tuple[Timed, int]:
        """Everyone uploads a random contribution; only the sending is timed.

        Args:
            batch: devices whose bodies are made, and held in memory, at a time.

        Returns:
            The time of the uploads, and their bytes.
        """
        wall_s, sent = 0.0, 0
        latencies: list[float] = []
        for start in range(0, self.size, batch):
            numbers = range(start, min(start + batch, self.size))
            self._each(numbers, self._prepare)
            timed = self._each(numbers, lambda number: self.devices[number].upload(self._prepared[number]))
            wall_s += timed.wall_s
            latencies += timed.latencies_s
            sent += sum(len(prepared.body) for prepared in self._prepared.values())
            self._prepared.clear()
        return Timed(self.size, wall_s, latencies), sent

    def _prepare(self, number: int) -> None:
        plan = self._plans[number].plan
        assert plan is not None, "fetch_plans looked"
        delta = np.random.default_rng(number).standard_normal(plan.document.vector.delta_length, dtype=np.float32)
        self._prepared[number] = self.devices[number].prepare(plan, delta * np.float32(1e-3))

    def answer(self) -> Timed:
        """Every committee member answers, one after the other; the call that completes a sum opens it.

        Raises:
            RuntimeError: nobody had anything to answer.
        """
        latencies: list[float] = []
        began = time.monotonic()
        for device in self.devices:
            for cohort_id in device.check_in(no_plan=True).duties:
                request = device.make_answer(cohort_id)
                before = time.monotonic()
                device.send_answer(request)
                latencies.append(time.monotonic() - before)
        if not latencies:
            raise RuntimeError("no committee member has a duty: the cohorts did not close")
        return Timed(len(latencies), time.monotonic() - began, latencies)

    def close(self) -> None:
        """Let go of connections and threads."""
        for device in self.devices:
            device.close()
        self._pool.shutdown()

    def _each(self, items: Sequence[Any] | range, step: Callable[[Any], object]) -> Timed:
        return _each(self._pool, items, step)


def _each(pool: ThreadPoolExecutor, items: Sequence[Any] | range, step: Callable[[Any], object]) -> Timed:
    """Take a step for every item, as many at once as the pool has threads."""

    def timed(item: Any) -> float:
        began = time.monotonic()
        step(item)
        return time.monotonic() - began

    began = time.monotonic()
    latencies = list(pool.map(timed, items))
    return Timed(len(latencies), time.monotonic() - began, latencies)
