"""Plans of stored cohorts as documents; parsed once, since a plan with a large pool takes a while."""

from __future__ import annotations

from functools import lru_cache

from coordinator.storage.rows import Cohort
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.upload import upload_size_bytes


def document_of(cohort: Cohort) -> PlanDocument:
    """The meaning of a cohort's plan."""
    return _parsed(cohort.plan)


def contribution_size_bytes(document: PlanDocument) -> int:
    """The only right size of a contribution."""
    return upload_size_bytes(document.parameters, document.vector.length)


@lru_cache(maxsize=32)
def _parsed(plan: bytes) -> PlanDocument:
    return PlanDocument.parse(plan)
