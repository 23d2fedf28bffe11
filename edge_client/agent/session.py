"""What the steps of a pass share: who we are, whom we trust, what the log said last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.configuration import Configuration, cache_directory
from edge_client.connection import Connection
from edge_client.home import Home
from edge_client.identity import Identity, Membership
from edge_client.store import Store
from edge_client.store.records import SecurityEvent
from nightshift.host.clock import now_unix_s
from nightshift.protocol.errors import ExitCode, LogInconsistentError, NightshiftError, WrongServerError

if TYPE_CHECKING:
    from edge_client.model_packages import PackageCache
    from nightshift.protocol.log import LogHead, LogView
    from nightshift.protocol.trust import Trust
    from nightshift.v1 import log_pb2

_ANOTHER_HISTORY = (
    "The coordinator shows another history than before, and nothing of it was used. Ask its operator: if it was "
    "restored from an older backup, begin anew with `edge-client leave`, then `edge-client join TOKEN`; if it was not, "
    "it shows different things to different devices"
)


@dataclass(frozen=True)
class Session:
    """One pass, from its connection to its end.

    Attributes:
        home: the device's directories.
        configuration: the owner's settings.
        identity: the device's key.
        membership: certificates and addresses.
        store: the device's memory.
        connection: to the coordinator.
        notes: what a person may want to know beside the outcome; filled by the steps.
        should_stop: asked all the time while training runs; a reason ends it at a checkpoint.
    """

    home: Home
    configuration: Configuration
    identity: Identity
    membership: Membership
    store: Store
    connection: Connection
    notes: list[str] = field(default_factory=list)
    should_stop: Callable[[], str | None] = lambda: None

    @cached_property
    def trust(self) -> Trust:
        """The coordinator as the join token introduced it."""
        return load_trust(self.membership)

    @property
    def now_unix_s(self) -> int:
        """This device's clock."""
        return now_unix_s()

    @property
    def cache(self) -> Path:
        """Where fetched models live."""
        return cache_directory(self.home, self.configuration.cache)

    @property
    def packages(self) -> PackageCache:
        """Model packages; those that adapters in use build on are not removed to make room."""
        from edge_client.adapters_in_use import base_models_in_use
        from edge_client.model_packages import PackageCache

        return PackageCache.of(self.cache, self.configuration.cache, base_models_in_use(self.store))

    @property
    def log_size(self) -> int:
        """Size of the log that was seen last; 0 before the first."""
        return self.store.database.number("log_size") or 0

    def advance_log(self, checkpoint: log_pb2.Checkpoint, consistency_path: Sequence[bytes]) -> LogView:
        """Check that the log extends what was seen, and remember its new head.

        Raises:
            SignatureInvalidError: the checkpoint is not the coordinator's.
            LogInconsistentError: the log forked or shrank.
        """
        from nightshift.protocol.log import LogView, checkpoint_note

        try:
            view = LogView.verify(
                checkpoint, trust=self.trust, last=stored_log_head(self.store), consistency_path=consistency_path
            )
        except LogInconsistentError as error:
            raise LogInconsistentError(f"{error}. {_ANOTHER_HISTORY}") from error
        note = checkpoint_note(checkpoint, self.trust)
        self.store.database.put(log_size=view.head.size, log_root=view.head.root, log_note=note)
        return view

    def report(self, error: NightshiftError) -> None:
        """Keep evidence of what the coordinator may not do; a stranger in its place is not evidence against it."""
        if error.exit_code is ExitCode.VERIFICATION_FAILED and not isinstance(error, WrongServerError):
            self.store.records.add_security_event(SecurityEvent(self.now_unix_s, error.reason, str(error)))


def load_trust(membership: Membership) -> Trust:
    """The coordinator as the join token introduced it.

    Raises:
        VerificationError: the signing certificate is not the root's.
    """
    from nightshift.protocol.certificates import load_certificate, verify_signing_certificate
    from nightshift.protocol.trust import Trust

    root = load_certificate(membership.root)
    return Trust(root, verify_signing_certificate(membership.signing_certificate, root), membership.log_origin)


def stored_log_head(store: Store) -> LogHead | None:
    """The log head that was seen last, None before the first.

    Raises:
        LogInconsistentError: the store holds half of one; a defect of this program.
    """
    from nightshift.protocol.log import LogHead

    size, root = store.database.number("log_size"), store.database.blob("log_root")
    if size is None and root is None:
        return None
    if size is None or root is None:
        raise LogInconsistentError(f"{store.database.path} holds half of a log head; move it away and run again")
    return LogHead(size, root)
