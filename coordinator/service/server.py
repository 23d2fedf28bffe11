"""The life of the serving process: everything begins, answers, and ends in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.enrolment.addresses import record_addresses
from coordinator.enrolment.authority import INTERMEDIATE_WARNING_DAYS
from coordinator.metrics import CallMetrics, offered
from coordinator.rounds.advance import Ticker
from coordinator.service.admin import LongAnswers
from coordinator.service.listeners import Listener, admin_listener, device_listener, join_listener
from coordinator.service.memory import free_pages_given_back
from nightshift.host.clock import now_unix_s
from nightshift.host.files import exclusive_lock

LOOK_EVERY_S = 0.2


@contextmanager
def serving(deployment: Deployment) -> Iterator[None]:
    """Serve all listeners for the length of a block, then let the calls that are under way end.

    Raises:
        BusyError: another process serves this directory.
        UsageError: a port is taken, or the authority's certificate has ended.
    """
    configuration = deployment.configuration
    deployment.authority.require_valid(now_unix_s())
    metrics, long_answers = CallMetrics(), LongAnswers()
    with exclusive_lock(deployment.home.lock_file), offered(deployment, metrics, configuration.metrics):
        with deployment.database.transaction() as session:
            record_addresses(session, configuration, now_unix_s())
        days = deployment.authority.intermediate_days_left(now_unix_s())
        if days < INTERMEDIATE_WARNING_DAYS:
            log.warning("the intermediate certificate ends soon; see: coordinator ca --help", days=days)
        listeners = [join_listener(deployment, metrics), device_listener(deployment, metrics)]
        if configuration.listen.admin_port:
            listeners.append(admin_listener(deployment, metrics, long_answers))
        ticker = Ticker(deployment)
        for listener in listeners:
            listener.start()
        ticker.start()
        try:
            with free_pages_given_back():
                yield
        finally:
            _drain(listeners, long_answers, configuration.listen.drain_s)
            ticker.stop()
            log.info("stopped")


def _drain(listeners: list[Listener], long_answers: LongAnswers, limit_s: float) -> None:
    """Take no new calls, let those under way end, and cut after so many seconds what has not; all of it resumes."""
    log.info("stopping", at_most_s=limit_s)
    for listener in listeners:
        listener.refuse()
    long_answers.end()
    stopped = [listener.server.stop(limit_s) for listener in listeners]
    for event in stopped:
        event.wait()
    for listener in listeners:
        listener.close()


class EndSignal:
    """From its making on, SIGTERM and SIGINT end the process in good order; the second one ends it at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def wait(self) -> None:
        """Return when the process was asked to end."""
        # The kernel may hand the signal to one of gRPC's threads. Python then runs the handler in this one, but only
        # once it comes out of a wait by itself.
        while not self._asked.wait(LOOK_EVERY_S):
            continue

    def _ask(self, *_: object) -> None:
        self._asked.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
