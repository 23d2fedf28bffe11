"""One at a time, in the order of arrival."""

from __future__ import annotations

import asyncio

import pytest

from edge_client.serving.turnstile import Turnstile, TurnstileFullError


def test_order_of_arrival_whoever_gives_up() -> None:
    async def scene() -> list[int]:
        turnstile = Turnstile(10)
        done: list[int] = []

        async def visit(number: int) -> None:
            place = turnstile.enter()
            try:
                await place.turn()
                await asyncio.sleep(0)
                done.append(number)
            finally:
                place.leave()

        tasks = [asyncio.create_task(visit(number)) for number in range(8)]
        await asyncio.sleep(0)
        assert turnstile.running
        assert turnstile.waiting == 7
        for given_up in (0, 3, 6):
            tasks[given_up].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not turnstile.running
        return done

    assert asyncio.run(scene()) == [1, 2, 4, 5, 7]


def test_full_means_full_until_one_leaves() -> None:
    async def scene() -> None:
        turnstile = Turnstile(2)
        places = [turnstile.enter() for _ in range(3)]
        with pytest.raises(TurnstileFullError):
            turnstile.enter()
        places[1].leave()
        places[1].leave()  # twice is once
        turnstile.enter()
        with pytest.raises(TurnstileFullError):
            turnstile.enter()

    asyncio.run(scene())


def test_nobody_may_wait() -> None:
    async def scene() -> None:
        turnstile = Turnstile(0)
        first = turnstile.enter()
        await first.turn()
        with pytest.raises(TurnstileFullError):
            turnstile.enter()
        first.leave()
        await turnstile.enter().turn()

    asyncio.run(scene())
