"""The engine and its queue: requests come in, one answer at a time is written.

The engine works in a thread of its own. A place in the queue is left when
that thread has really finished, not when the client is gone: the next request must
never meet an engine that still writes for somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client.engines.errors import EngineError, EngineUnavailableError
from edge_client.serving.answering import Answer, Language
from edge_client.serving.catalogue import Catalogue, Offer
from edge_client.serving.turnstile import Place, Turnstile
from nightshift.protocol.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_client.engines.isolated import IsolatedEngine
    from edge_client.engines.sampling import SamplingSettings

_ASK_AGAIN_S = 0.25
_FAILURES = (EngineError, EngineUnavailableError, ResourceError)


@dataclass(frozen=True, slots=True)
class Order:
    """What the engine shall write.

    Attributes:
        offer: the model.
        prompt: tokens.
        sampling: how, and how much at most.
        stop: texts before which it ends.
        continues: the answer continues the prompt's last word.
    """

    offer: Offer
    prompt: Sequence[int]
    sampling: SamplingSettings
    stop: tuple[str, ...] = ()
    continues: bool = False


class Desk:
    """One engine for many requests.

    Args:
        engine: started or not; a crash ends one answer and not this.
        language: of the base model.
        catalogue: the models.
        waiting_limit: most requests that wait.

    Attributes:
        failing: the last answer ended because the engine did.
    """

    def __init__(self, engine: IsolatedEngine, language: Language, catalogue: Catalogue, waiting_limit: int) -> None:
        self.engine = engine
        self.language = language
        self.catalogue = catalogue
        self.turnstile = Turnstile(waiting_limit)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._attached = "base"
        self._writing_for: Place | None = None
        self.failing = False

    def answer(self, order: Order) -> Answer:
        """An answer that has not begun; to be iterated over in the engine's thread."""
        return Answer(
            self.engine,
            self.language,
            order.prompt,
            order.sampling,
            stop=order.stop,
            continues=order.continues,
        )

    async def pieces(self, place: Place, order: Order, answer: Answer) -> AsyncGenerator[str, None]:
        """Waits for a place's turn and yields the answer's text.

        The place is left when the engine has finished; `release` it all the same, for
        the case that it never began.

        Raises:
            NightshiftError: whatever the engine raises.
        """
        await place.turn()
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        given_up = threading.Event()

        def deliver(item: str | BaseException | None) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        work = loop.run_in_executor(self._thread, self._write, order, answer, given_up, deliver)
        self._writing_for = place
        work.add_done_callback(lambda _: self._finished(place))
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            given_up.set()
            self._interrupt_until(work)

    def release(self, place: Place) -> None:
        """Gives up a place, unless the engine still works for it: then it is left when that ends."""
        if place is not self._writing_for:
            place.leave()

    def _finished(self, place: Place) -> None:
        self._writing_for = None
        place.leave()

    def close(self) -> None:
        """Ends the engine."""
        self.engine.close()
        self._thread.shutdown(wait=True)

    def _interrupt_until(self, work: asyncio.Future[None]) -> None:
        """Interrupts the engine, again and again: the generation may be about to begin."""
        if not work.done():
            self.engine.interrupt()
            work.get_loop().call_later(_ASK_AGAIN_S, self._interrupt_until, work)

    def _write(
        self,
        order: Order,
        answer: Answer,
        given_up: threading.Event,
        deliver: Callable[[str | BaseException | None], None],
    ) -> None:
        """Runs in the engine's thread."""
        end: BaseException | None = None
        try:
            self._attach(order.offer)
            with contextlib.closing(iter(answer)) as pieces:
                for piece in pieces:
                    if given_up.is_set():
                        break
                    deliver(piece)
            self.failing = False
        except Exception as error:  # noqa: BLE001 - crosses to the request's task, which knows what to do with it
            end = error
            self.failing = isinstance(error, _FAILURES)
        deliver(end)

    def _attach(self, offer: Offer) -> None:
        """Swaps the adapter if the last answer had another one."""
        if offer.fingerprint == self._attached:
            return
        self.catalogue.attach(offer, self.engine)
        self._attached = offer.fingerprint
