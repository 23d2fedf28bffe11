"""Following what is served: the owner's choice first, then this device's own hold-out, then the coordinator's word.

A release comes in use when a logged decision says that it is served and the signed release metadata agree. It does
not where the owner pinned another adapter, nor where it is worse on this device's own text than the adapter in use,
by more than the owner allows (`policy.maximum_loss_increase`). What could not be compared when it came, for want of
the model, is compared later, and goes out of use again if it is worse.

An operator's rollback is followed without a comparison: it takes back what should never have been served, which
may well look better here. That is what a backdoor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from edge_client.adapters_in_use import adapter_file, find_adapter
from edge_client.agent import own_holdout
from edge_client.agent.releases import adopt, fetch, file_is_missing, obtain_adapter
from edge_client.agent.session import Session
from edge_client.store.served import Comparison

if TYPE_CHECKING:
    from edge_client.store.adapters import InUse, StoredAdapter
    from nightshift.protocol.decision import VerifiedDecision
    from nightshift.protocol.release import VerifiedRelease


class Step(Enum):
    """What following a decision takes on this device."""

    NOTHING = "nothing"
    FETCH_AGAIN = "fetch again"
    STAY_PINNED = "stay with what the owner pinned"
    STAY = "stay with what is better here"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a served release: adopted, or another one is kept, or neither because nothing was due."""

    adopted: str | None = None
    kept: str | None = None


def next_step(session: Session, served: VerifiedRelease) -> Step:
    """What there is to do for a served release, by the rows alone."""
    document = served.document
    name = f"{document.task}/{document.number}"
    in_use = session.store.adapters.in_use(document.task)
    if in_use is not None and in_use.current == name:
        return Step.FETCH_AGAIN if file_is_missing(session, name) else Step.NOTHING
    if in_use is not None and in_use.pinned:
        return Step.STAY_PINNED
    found = session.store.served.comparison(served.release_id)
    return Step.STAY if found is not None and found.kept_back else Step.ADOPT


def follow(session: Session, served: VerifiedRelease, decision: VerifiedDecision) -> Followed:
    """Bring a served release into use, unless the owner or this device's own hold-out says otherwise.

    Raises:
        HashMismatchError: other bytes than the release promises.
        IncompatibleError: it does not fit its base model, or has values that are not finite.
    """
    document = served.document
    name = f"{document.task}/{document.number}"
    step = next_step(session, served)
    followed = Followed()
    if step is Step.FETCH_AGAIN:
        obtain_adapter(session, served)
        session.notes.append(f"the file of adapter {name} was gone and has been fetched again")
    elif step is Step.STAY_PINNED:
        session.notes.append(
            f"{name} is served now; the owner's choice stays in use (edge-client adapter follow {document.task})"
        )
    elif step is Step.ADOPT:
        followed = _adopt(session, served, withdrawn=_withdraws(decision))
    session.store.served.follow(document.task)
    return followed


def look_again(session: Session, task: str) -> str | None:
    """Compare an adopted release that could not be compared when it came; returns its name if it went out of use."""
    in_use = session.store.adapters.in_use(task)
    if in_use is None or in_use.pinned or in_use.current is None or in_use.previous is None:
        return None
    current, before = find_adapter(session.store, in_use.current), find_adapter(session.store, in_use.previous)
    if current.release_id is None or session.store.served.comparison(current.release_id) is not None:
        return None
    comparison = _compare(session, current, before)
    if comparison is None:
        return None
    with session.store.database.transaction():
        session.store.served.add_comparison(comparison)
        if comparison.kept_back:
            session.store.adapters.use(task, before.name)
    if not comparison.kept_back:
        return None
    session.notes.append(f"{_worse(current.name, comparison)}; back to {before.name}")
    return current.name


def _adopt(session: Session, served: VerifiedRelease, *, withdrawn: bool) -> Followed:
    adapter = fetch(session, served)
    current = _current(session, session.store.adapters.in_use(adapter.task))
    comparison = None
    if withdrawn:
        comparison = Comparison(
            served.release_id, adapter.task, None, None, None, kept_back=False, compared_at_unix_s=session.now_unix_s
        )
    elif current is not None:
        comparison = _compare(session, adapter, current)
    if comparison is not None:
        session.store.served.add_comparison(comparison)
        if comparison.kept_back:
            session.store.adapters.keep(adapter)
            session.notes.append(f"{_worse(adapter.name, comparison)}; {comparison.against} stays in use")
            return Followed(kept=adapter.name)
    adopt(session, served)
    return Followed(adopted=adapter.name)


def _withdraws(decision: VerifiedDecision) -> bool:
    from nightshift.protocol.decision import DecisionKind

    return decision.document.kind is DecisionKind.ROLLED_BACK


def _current(session: Session, in_use: InUse | None) -> StoredAdapter | None:
    return None if in_use is None or in_use.current is None else find_adapter(session.store, in_use.current)


def _compare(session: Session, new: StoredAdapter, old: StoredAdapter) -> Comparison | None:
    """What this device's own hold-out says of two adapters; None where it cannot be asked."""
    if new.base_model != old.base_model or new.release_id is None:
        return None
    if not own_holdout.can_compare(session, new.base_model):
        return None
    files = [adapter_file(session.home, adapter.sha256) for adapter in (new, old)]
    if not all(file.exists() for file in files):
        return None
    new_bytes, old_bytes = (file.read_bytes() for file in files)
    losses = own_holdout.compare(session, new.task, new.base_model, new=new_bytes, old=old_bytes)
    if losses is None:
        return None
    return Comparison(
        release_id=new.release_id,
        task=new.task,
        against=old.name,
        loss=losses.new,
        loss_against=losses.old,
        kept_back=losses.worse_by_more_than(session.configuration.policy.maximum_loss_increase),
        compared_at_unix_s=session.now_unix_s,
    )


def _worse(name: str, comparison: Comparison) -> str:
    return (
        f"{name} has a loss of {comparison.loss:.3f} on this device's own hold-out, "
        f"{comparison.against} one of {comparison.loss_against:.3f}"
    )
