"""What Prometheus may ask: base units, counters that end in `_total`, and never a device's id as a label.

Two kinds. What happens in this process is counted as it happens (`CallMetrics`).
How the coordinator stands is read from the rows when somebody asks
(`Standing`), so that it is right after a restart and the same from every
replica.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session

from coordinator.configuration import Metrics
from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.storage.rows import Cohort, CohortState, Contribution, Device, LogEntryRow, ReleaseRow, Round
from nightshift.host.clock import now_unix_s
from nightshift.protocol.chains import not_after_unix_s
from nightshift.protocol.errors import NightshiftError, UsageError

SEEN_S = 48 * 3600
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CallMetrics:
    """Counts of this process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "nightshift_calls",
            "Calls that ended, by status code.",
            ("listener", "method", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "nightshift_call_duration_seconds",
            "From admission to the last reply.",
            ("listener", "method"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._under_way = Gauge(
            "nightshift_calls_under_way", "Calls that have not ended.", ("listener",), registry=self.registry
        )
        self._shed = Counter(
            "nightshift_calls_shed",
            "Calls turned away with RESOURCE_EXHAUSTED and a time to come back.",
            ("listener",),
            registry=self.registry,
        )
        self._uploaded = Counter(
            "nightshift_uploaded_bytes", "Bytes of contributions that came.", registry=self.registry
        )
        self._downloaded = Counter(
            "nightshift_downloaded_bytes", "Bytes of models and adapters that were sent.", registry=self.registry
        )

    def begin(self, listener: str) -> None:
        """A call begins."""
        self._under_way.labels(listener).inc()

    def end(self, listener: str, method: str, code: str, seconds: float) -> None:
        """It ends."""
        self._under_way.labels(listener).dec()
        self._calls.labels(listener, method, code).inc()
        self._seconds.labels(listener, method).observe(seconds)
        if code == "RESOURCE_EXHAUSTED":
            self._shed.labels(listener).inc()

    def uploaded(self, size_bytes: int) -> None:
        """Bytes of a contribution came."""
        self._uploaded.inc(size_bytes)

    def downloaded(self, size_bytes: int) -> None:
        """Bytes of an artefact were sent."""
        self._downloaded.inc(size_bytes)


class Standing(Collector):
    """How the coordinator stands, read from its rows at each scrape."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def collect(self) -> Iterator[Metric]:
        """All metrics; without a database, only that it is down."""
        built = GaugeMetricFamily("nightshift_build_info", "Always 1.", labels=("version",))
        built.add_metric((version("nightshift"),), 1)
        yield built
        yield from self._certificates()
        try:
            with self._deployment.database.reading() as session:
                found = list(_rows(session))
        except (NightshiftError, SQLAlchemyError) as error:
            log.warning("metrics: no rows", reason=str(error))
            found = []
        yield GaugeMetricFamily("nightshift_database_up", "Whether the rows could be read.", value=bool(found))
        yield from found

    def _certificates(self) -> Iterator[Metric]:
        ends = GaugeMetricFamily(
            "nightshift_certificate_expiry_timestamp_seconds", "When a certificate ends.", labels=("role",)
        )
        for role, certificate in self._deployment.authority.certificates().items():
            ends.add_metric((role,), not_after_unix_s(certificate))
        yield ends


def _rows(session: Session) -> Iterator[Metric]:
    now = now_unix_s()
    yield _by_state(session, "nightshift_devices", "Devices that ever joined.", Device.state)
    seen = select(func.count()).select_from(Device).where(Device.last_seen_unix_s >= now - SEEN_S)
    yield GaugeMetricFamily(
        "nightshift_devices_seen_lately", "Devices that checked in within 48 hours.", value=session.scalar(seen) or 0
    )
    yield _by_state(session, "nightshift_rounds", "Rounds that were ever opened.", Round.state)
    yield _by_state(session, "nightshift_cohorts", "Cohorts that were ever opened.", Cohort.state)
    yield _by_state(session, "nightshift_contributions", "Contributions that were ever announced.", Contribution.state)
    yield _total(session, "nightshift_releases", "Published adapters.", ReleaseRow.release_id)
    yield _total(session, "nightshift_log_entries", "Entries of the transparency log.", LogEntryRow.position)
    yield GaugeMetricFamily(
        "nightshift_deadline_overdue_seconds",
        "How long the latest step that time alone takes is due; more than a few: nothing advances the cohorts.",
        value=overdue_s(session, now),
    )


def _by_state(session: Session, name: str, text: str, state: InstrumentedAttribute[Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("state",))
    counts = {row[0]: row[1] for row in session.execute(select(state, func.count()).group_by(state))}
    for each in state.type.enum_class:
        family.add_metric((each.value,), counts.get(each, 0))
    return family


def _total(session: Session, name: str, text: str, key: InstrumentedAttribute[Any]) -> Metric:
    return CounterMetricFamily(name, text, value=session.scalar(select(func.count(key))) or 0)


def overdue_s(session: Session, now: int) -> int:
    """How long the latest step that time alone takes is due; 0 if none is."""
    deadlines = [
        session.scalar(select(func.min(Cohort.latest_upload_deadline_unix_s)).where(Cohort.state == CohortState.OPEN)),
        session.scalar(select(func.min(Cohort.answer_deadline_unix_s)).where(Cohort.state == CohortState.FROZEN)),
    ]
    return max([0, *(now - deadline for deadline in deadlines if deadline is not None)])


@contextmanager
def offered(deployment: Deployment, metrics: CallMetrics, where: Metrics) -> Iterator[None]:
    """Answer Prometheus for the length of a block, if the configuration names a port.

    Raises:
        UsageError: the port is taken.
    """
    if not where.port:
        yield
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own
    registry = metrics.registry
    registry.register(Standing(deployment))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    try:
        server, thread = start_http_server(where.port, addr=where.host, registry=registry)
    except OSError as error:
        raise UsageError(
            f"port {where.port} on {where.host} cannot be used for metrics: {error.strerror}; "
            "change metrics.port in coordinator.toml, or 0 for none"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
