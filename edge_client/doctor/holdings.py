"""What this device holds: membership and certificates, store, models, adapters, data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_client.adapters_in_use import load_adapter
from edge_client.configuration import Configuration, cache_directory
from edge_client.home import Home
from edge_client.identity import Membership
from edge_client.store import Store
from edge_client.store.records import LEFT
from nightshift.host.clock import now_unix_s
from nightshift.host.findings import Finding
from nightshift.host.wording import number_of
from nightshift.protocol.errors import DeclinedError, ExitCode, NightshiftError
from nightshift.protocol.times import rfc3339


def check_certificates(membership: Membership) -> Iterator[Finding]:
    """The authority that the join token introduced, and this device's certificate under it."""
    from nightshift.protocol.certificates import load_certificate, read_device_certificate, verify_device_certificate

    now = now_unix_s()
    root = load_certificate(membership.root)
    ends = int(root.not_valid_after_utc.timestamp())
    if now > ends:
        yield Finding.problem(
            "certificate authority",
            f"the coordinator's root ended {rfc3339(ends)}",
            "ask the operator for a token of the new one, then: edge-client leave, edge-client join TOKEN",
            ExitCode.REVOKED,
        )
    else:
        yield Finding.ok("certificate authority", f"root until {rfc3339(ends)}")
    try:
        found = read_device_certificate(membership.certificate)
        if now > found.not_after_unix_s:
            yield Finding.problem(
                "certificate",
                f"ended {rfc3339(found.not_after_unix_s)}",
                "edge-client run renews it; if the coordinator refuses: edge-client join TOKEN",
                ExitCode.REVOKED,
            )
            return
        verify_device_certificate(membership.certificate, root, now)
    except NightshiftError as error:
        yield Finding.of_error("certificate", error)
        return
    days = (found.not_after_unix_s - now) // 86_400
    yield Finding.ok(
        "certificate", f"{number_of(days, 'day')} left, renewed by itself from {rfc3339(found.renewal_due_unix_s)}"
    )


def check_holdings(home: Home, configuration: Configuration, store: Store, *, hashes: bool) -> Iterator[Finding]:
    """Store, models, adapters and data; the store has been checked by being opened."""
    lost = store.database.lost_at_unix_s
    if lost is None:
        yield Finding.ok("store", f"{store.database.path} is intact")
    else:
        yield Finding.warning(
            "store",
            f"an earlier one was lost at {rfc3339(lost)}",
            "nothing to do; *.corrupt-* beside it may be deleted when it is no longer wanted",
        )
    yield from _evidence(store)
    yield from _models(cache_directory(home, configuration.cache), hashes=hashes)
    yield from _adapters(home, store)
    yield from _data(store)


def _evidence(store: Store) -> Iterator[Finding]:
    """What the coordinator did that it may not do, since this device last joined one."""
    left_unix_s = store.database.number(LEFT) or 0
    events = [event for event in store.records.security_events() if event.time_unix_s > left_unix_s]
    if not events:
        yield Finding.ok("evidence", "the coordinator did nothing that it may not do")
        return
    last = events[-1]
    yield Finding.problem(
        "evidence",
        f"the coordinator did {number_of(len(events), 'thing')} that it may not do; "
        f"the last at {rfc3339(last.time_unix_s)}: {last.sentence}",
        "show its operator what edge-client status says; to stop taking part: edge-client leave",
        ExitCode.VERIFICATION_FAILED,
    )


def _models(cache: Path, *, hashes: bool) -> Iterator[Finding]:
    from edge_client.model_packages import PackageCache

    packages = PackageCache(cache)
    ids = packages.ids()
    if not ids:
        yield Finding.ok("models", "none here yet; a pass fetches what it needs")
    for package_id in ids:
        name = package_id.hex()[:16]
        try:
            manifest = packages.read(package_id, verify=hashes).manifest
        except NightshiftError as error:
            yield Finding.problem(
                f"model {name}", str(error), f"edge-client model rm {name}; it is fetched again", error.exit_code
            )
            continue
        how = "every hash is right" if hashes else "hashes not asked for"
        yield Finding.ok(f"model {name}", f"{manifest.name}, {how}")


def _adapters(home: Home, store: Store) -> Iterator[Finding]:
    for task in store.adapters.tasks():
        in_use = store.adapters.in_use(task)
        current = None if in_use is None or in_use.current is None else store.adapters.find(in_use.current)
        if current is None:
            continue
        try:
            load_adapter(home, current)
        except NightshiftError as error:
            yield Finding.problem(
                f"adapter {current.name}", str(error), "edge-client run fetches it again", error.exit_code
            )
        else:
            yield Finding.ok(f"adapter {current.name}", "its hash is right, its values are finite")


def _data(store: Store) -> Iterator[Finding]:
    from edge_client.data.errors import DataError
    from edge_client.data.files import resolve

    sources = store.records.sources()
    if not sources:
        yield Finding.warning(
            "data", "there is no text to learn from", "edge-client data add PATH --format chat|prompt|text|csv"
        )
    for source in sources:
        name = f"data source {source.number}"
        try:
            with resolve(Path(source.path)).open("rb") as file:
                file.read(1)
        except (DataError, OSError, DeclinedError) as error:
            yield Finding.problem(
                name,
                str(error),
                f"make it readable for the user that runs the service, or: edge-client data remove {source.number}",
                ExitCode.USAGE,
            )
        else:
            yield Finding.ok(name, f"{source.path} can be read")
