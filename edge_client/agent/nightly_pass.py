"""One pass: the device is locked and asked whether it may, then everything that is due is done (`steps`).

Before it connects a pass asks its conditions, and, where the timer called it,
whether the coordinator expects it already (`pace`). While it trains it asks them on.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from edge_client.agent import pace
from edge_client.agent.eligibility import checklist
from edge_client.agent.report import PassReport
from edge_client.agent.session import Session
from edge_client.agent.steps import Steps, Watcher
from edge_client.agent.stopping import stopping
from edge_client.conditions import require
from edge_client.conditions.watch import Watch
from edge_client.configuration import Configuration
from edge_client.connection import connect
from edge_client.home import Home
from edge_client.identity import require_joined
from edge_client.ledger import readable_time
from edge_client.store import Store, open_store
from edge_client.traffic_meter import Meter
from nightshift.host.clock import now_unix_s
from nightshift.host.files import exclusive_lock, remove_temporaries
from nightshift.protocol.errors import DeclinedError, NightshiftError, NotJoinedError

if TYPE_CHECKING:
    from edge_client.identity import Membership


def run_pass(
    home: Home, configuration: Configuration, *, now: bool, dry_run: bool, watcher: Watcher | None = None
) -> PassReport:
    """Run one pass.

    Args:
        home: the device's directories.
        configuration: the owner's settings.
        now: skip the conditions, all but the clock, and the coordinator's pace.
        dry_run: ask what would be done, and do none of it.
        watcher: told how far it is.

    Raises:
        BusyError: another run holds the lock.
        NotJoinedError: this device has not joined.
    """
    if not home.state.is_dir():
        raise NotJoinedError(f"there is no device in {home.state}; run: edge-client join TOKEN")
    with exclusive_lock(home.lock_file):
        for directory in (home.state, home.adapters, home.uploads):
            if directory.is_dir():
                remove_temporaries(directory)
        identity, membership = require_joined(home)
        report = PassReport()
        with open_store(home) as store:
            # A dry run is no pass: `status` goes on telling of the last real one.
            number = None if dry_run else store.records.begin_pass(now_unix_s())
            try:
                with ExitStack() as stack:
                    if not _may_connect(home, configuration, membership, store, report, now=now, dry_run=dry_run):
                        return report
                    limit_mb = 0 if now else configuration.conditions.nightly_limit_mb
                    meter = Meter(store.traffic, limit_mb * 2**20)
                    connection = stack.enter_context(connect(identity, membership, meter))
                    watched = checklist(home, configuration, membership, store).while_training()
                    watch = Watch([] if now else watched)
                    stack.enter_context(stopping(watch))
                    session = Session(
                        home,
                        configuration,
                        identity,
                        membership,
                        store,
                        connection,
                        notes=report.notes,
                        should_stop=watch,
                    )
                    Steps(session, report, watcher or Watcher(), stack, meter, dry_run=dry_run).run()
            except KeyboardInterrupt:
                report.add_problem(DeclinedError("stopped by a person or by the system; the next pass goes on"))
                raise
            except Exception as error:
                # Not a problem of a step but a defect of this program: `status` must not call it a success.
                report.add_problem(NightshiftError(f"stopped by an unexpected {type(error).__name__}"))
                raise
            finally:
                moment = store.database.number(pace.NEXT_CHECK_IN)
                report.next_check_in = None if moment is None else readable_time(moment)
                if number is not None:
                    store.records.end_pass(
                        number, now_unix_s=now_unix_s(), exit_code=int(report.exit_code), summary=report.summary
                    )
    return report


def _may_connect(
    home: Home,
    configuration: Configuration,
    membership: Membership,
    store: Store,
    report: PassReport,
    *,
    now: bool,
    dry_run: bool,
) -> bool:
    """Whether conditions and pace let this pass connect; what they said goes into the report."""
    conditions = checklist(home, configuration, membership, store)
    asked = conditions.always() if now else conditions.before_a_pass()
    report.conditions += [condition.read() for condition in asked]
    try:
        require(report.conditions, advice="" if now else "`edge-client run --now` skips all of these but the clock")
    except DeclinedError as error:
        report.add_problem(error)
        return False
    if now or dry_run:
        return True
    later = pace.wait_until(store.database, now_unix_s(), work_waits=bool(store.contributions.unfinished()))
    report.waiting_until = None if later is None else readable_time(later)
    return later is None
