"""Adopting releases: verified, checked against its base, then in use as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_client import policy
from edge_client.adapters_in_use import adapter_file, check_fits, read_adapter
from edge_client.agent.session import Session
from edge_client.artefacts import Artefacts
from edge_client.store.adapters import StoredAdapter
from edge_client.store.contributions import State
from nightshift.host.failpoints import failpoint
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import EquivocationError, MalformedError, VerificationError

if TYPE_CHECKING:
    from nightshift.protocol.adapters.layout import Tensors
    from nightshift.protocol.log import LogView
    from nightshift.protocol.release import ReleaseDocument, VerifiedRelease
    from nightshift.v1 import device_pb2

MOST_RELEASES = 64


def verify_offers(
    session: Session, response: device_pb2.CheckInResponse, view: LogView
) -> Mapping[bytes, VerifiedRelease]:
    """Verify every release of a check-in: release id -> release.

    Raises:
        SignatureInvalidError, MalformedError, LogInconsistentError: one of them is not what it must be.
    """
    from nightshift.protocol.release import verify_release

    if len(response.releases) > MOST_RELEASES:
        raise MalformedError(f"the check-in lists {len(response.releases)} releases, at most {MOST_RELEASES} are read")
    verified = [verify_release(offer, view=view, trust=session.trust) for offer in response.releases]
    return {release.release_id: release for release in verified}


def nothing_new(session: Session, response: device_pb2.CheckInResponse) -> bool:
    """Whether all that is shown was verified before and followed, and is complete on this disk.

    A pass with nothing to do asks only this: it needs neither signatures nor numpy.
    """
    from nightshift.protocol.domains import Domain, digest

    adapters = session.store.adapters
    offered: dict[str, int] = {}
    for offer in response.releases:
        seen = adapters.find_release(digest(Domain.RELEASE_ID, offer.release))
        if seen is None:
            return False
        task, number = seen
        offered[task] = max(number, offered.get(task, -1))
    return (
        all(adapters.newest_release(task) == number for task, number in offered.items())
        and all(
            session.store.served.is_followed(digest(Domain.DECISION_ID, offer.decision)) for offer in response.decisions
        )
        and not any(file_is_missing(session, name) for name in names_in_use(session))
    )


def names_in_use(session: Session) -> list[str]:
    """Names of the adapters that answer."""
    pairs = [session.store.adapters.in_use(task) for task in session.store.adapters.tasks()]
    return [pair.current for pair in pairs if pair is not None and pair.current is not None]


def file_is_missing(session: Session, name: str) -> bool:
    """Whether the file of a released adapter has gone from this disk; a personal one cannot be fetched again."""
    stored = session.store.adapters.find(name)
    return (
        stored is not None and stored.release_id is not None and not adapter_file(session.home, stored.sha256).exists()
    )


def chosen_tasks(session: Session, releases: Mapping[bytes, VerifiedRelease]) -> list[str]:
    """The tasks with a release in which the owner takes part."""
    tasks = {release.document.task for release in releases.values()}
    return sorted(task for task in tasks if policy.accepts_task(session.configuration.policy, task))


def note_releases(session: Session, releases: Mapping[bytes, VerifiedRelease]) -> None:
    """Remember every release that was shown, and say what became of contributions.

    Raises:
        EquivocationError: another release under a number that was seen.
        VerificationError: the newest one of a task is older than one seen before.
    """
    adapters = session.store.adapters
    for release in sorted(releases.values(), key=lambda release: release.document.number):
        document = release.document
        known = adapters.release_id_of(document.task, document.number)
        if known is not None and known != release.release_id:
            raise EquivocationError(f"release {document.number} of task {document.task!r} was shown in two versions")
        if known is None:
            adapters.see_release(document.task, document.number, release.release_id, session.now_unix_s)
            _tell_what_became_of_contributions(session, document)
    for task in {release.document.task for release in releases.values()}:
        shown = max(each.document.number for each in releases.values() if each.document.task == task)
        seen = adapters.newest_release(task)
        if seen is not None and shown < seen:
            raise VerificationError(
                f"the newest release of task {task!r} is said to be {shown}, but {seen} was seen before; the one in "
                "use stays"
            )


def fetch(session: Session, release: VerifiedRelease) -> StoredAdapter:
    """The adapter of a release, fetched and checked, on this disk but not in use yet.

    Raises:
        HashMismatchError: other bytes than the release promises.
        IncompatibleError: it does not fit its base model, or has values that are not finite.
    """
    from nightshift.protocol.plan import layout_to_proto

    document = release.document
    obtain_adapter(session, release)
    return StoredAdapter(
        name=f"{document.task}/{document.number}",
        task=document.task,
        sha256=document.adapter_sha256,
        base_model=document.base_model,
        layout=layout_to_proto(document.layout).SerializeToString(deterministic=True),
        release_id=release.release_id,
        adopted_at_unix_s=session.now_unix_s,
    )


def adopt(session: Session, release: VerifiedRelease) -> StoredAdapter:
    """Fetch, check and put in use the adapter of a release; the one before stays for a rollback.

    Raises:
        HashMismatchError, IncompatibleError: as `fetch`.
    """
    adapter = fetch(session, release)
    session.store.adapters.adopt(adapter)
    failpoint("device.release.adopted")
    return adapter


def _tell_what_became_of_contributions(session: Session, document: ReleaseDocument) -> None:
    """Say whether a release that was made from a parent holds what this device gave to that parent.

    The release names the plans whose sums it holds. A contribution whose cohort is void by the log was
    spoken of when the void was shown (`check_in`).
    """
    if document.parent is None:
        return
    name = f"release {document.number} of task {document.task!r}"
    for contribution in session.store.contributions.of_parent(document.task, document.parent, b""):
        if contribution.state is not State.SENT:
            continue
        what = f"what this device contributed in round {contribution.round}"
        if contribution.plan_hash in document.plan_hashes:
            session.store.contributions.note_release(
                contribution.cohort_id, number=document.number, contributors=document.contributors
            )
            cohorts = len(document.plan_hashes)
            several = f" of {cohorts} cohorts" if cohorts > 1 else ""
            session.notes.append(f"{name} holds {what}, in the sum{several} over {document.contributors} devices")
        else:
            why = (
                "though the coordinator took it and showed no void of its cohort"
                if document.restores is None
                else "since learning goes back to an earlier release"
            )
            session.notes.append(f"{name} does not hold {what}, {why}")


def adapter_bytes(session: Session, release: VerifiedRelease) -> bytes:
    """The file of a release's adapter, fetched if it is not here, checked in any case.

    Raises:
        HashMismatchError, IncompatibleError: as `obtain_adapter`.
    """
    obtain_adapter(session, release)
    return adapter_file(session.home, release.document.adapter_sha256).read_bytes()


def obtain_adapter(session: Session, release: VerifiedRelease) -> Tensors:
    """The tensors of a release, fetched if they are not here, checked in any case.

    Raises:
        HashMismatchError: other bytes than the release promises.
        IncompatibleError: it does not fit its base model, or has values that are not finite.
    """
    import hashlib

    document = release.document
    what = f"the adapter of release {document.number} of task {document.task!r}"
    check_fits(document.layout, session.packages.manifest(session.connection, document.base_model), what=what)
    path = adapter_file(session.home, document.adapter_sha256)
    if path.exists():
        data = path.read_bytes()
        if hashlib.sha256(data).digest() == document.adapter_sha256:
            return read_adapter(data, document.layout, what=what)
    artefacts = Artefacts(session.cache)
    fetched = artefacts.fetch(
        session.connection,
        document.adapter_sha256,
        size_bytes=document.adapter_size_bytes,
        size_limit_bytes=document.adapter_size_bytes,
    )
    data = fetched.read_bytes()
    tensors = read_adapter(data, document.layout, what=what)
    write_atomic(path, data)
    # The copy that stays is among the adapters; the cache is for packages.
    fetched.unlink(missing_ok=True)
    return tensors
