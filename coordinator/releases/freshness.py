"""Release metadata that would end is signed again by itself; what needs the keys in the safes is announced."""

from __future__ import annotations

from tuf.api.metadata import Root

from coordinator.deployment import Deployment
from coordinator.diagnostics import log
from coordinator.releases.documents import unix_s
from coordinator.releases.repository import latest, refresh_metadata
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.targets import Role

LOOK_EVERY_S = 60
ROOT_WARNING_DAYS = 60
_WARN_EVERY_S = 86_400


class Freshness:
    """Looks once a minute; several processes may, the rows decide who signs.

    The first look signs everything again: were this database a backup that was brought back, devices would know
    newer metadata than it has, and take it for a rollback.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._look_at_unix_s = 0
        self._warn_at_unix_s = 0
        self._begins = True

    def keep(self, now_unix_s: int) -> None:
        """Sign what has lived half of its life; warn where that is not possible."""
        if now_unix_s < self._look_at_unix_s:
            return
        self._look_at_unix_s = now_unix_s + LOOK_EVERY_S
        try:
            if refresh_metadata(self._deployment, now_unix_s, everything=self._begins):
                log.info("release metadata signed again")
            self._begins = False
            self._warn(now_unix_s)
        except NightshiftError as error:
            # Devices go on with what they serve; at the end of the timestamp they complain, and so does this.
            log.warning("release metadata could not be signed", reason=error.reason, message=str(error))

    def _warn(self, now_unix_s: int) -> None:
        if now_unix_s < self._warn_at_unix_s:
            return
        self._warn_at_unix_s = now_unix_s + _WARN_EVERY_S
        days = root_days_left(self._deployment, now_unix_s)
        if days < ROOT_WARNING_DAYS:
            log.warning("the root of the release metadata ends soon; see: coordinator keys --help", days=days)


def root_days_left(deployment: Deployment, now_unix_s: int) -> int:
    """Whole days until devices take no release any more for want of a new root."""
    with deployment.database.reading() as session:
        return (unix_s(latest(session, Role.ROOT, Root).expires) - now_unix_s) // 86_400
