"""The log's keeper and the authority: what survives a rollback, another process, another day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy.orm import Session

from coordinator.deployment import Deployment
from coordinator.enrolment.authority import Authority
from coordinator.log import TransparencyLog
from nightshift.protocol.certificates import verify_device_certificate, verify_signing_certificate
from nightshift.protocol.errors import UsageError, VerificationError
from nightshift.protocol.identity import verify
from nightshift.protocol.log import LogView
from nightshift.v1 import log_pb2

DAY_S = 86_400
NOW = 1_800_000_000


def append(log: TransparencyLog, session: Session, count: int = 1) -> None:
    for _ in range(count):
        log.append(
            session,
            log_pb2.LOG_ENTRY_KIND_POOL,
            time_unix_s=NOW,
            subject=os.urandom(32),
            digest=os.urandom(32),
        )


def test_every_size_extends_every_earlier_one(deployment: Deployment) -> None:
    view = None
    for _ in range(9):
        with deployment.database.transaction() as session:
            append(deployment.log, session)
        with deployment.database.reading() as session:
            snapshot = deployment.log.snapshot(session)
            last = view.head if view is not None else None
            path = snapshot.consistency_path(last.size if last is not None else 0)
            view = LogView.verify(snapshot.checkpoint(), trust=deployment.trust, last=last, consistency_path=path)
            for position in range(snapshot.size):
                proof = snapshot.proof(session, position)
                entry = log_pb2.LogEntry.FromString(proof.entry)
                view.require(proof, kind=entry.kind, subject=entry.subject, digest=entry.digest)
    assert view is not None
    assert view.head.size == 9


def test_what_was_rolled_back_leaves_no_trace_in_the_tree(deployment: Deployment) -> None:
    with deployment.database.transaction() as session:
        append(deployment.log, session, 3)
        inside = deployment.log.snapshot(session)
    with deployment.database.reading() as session:
        assert deployment.log.snapshot(session).root == inside.root

    def fail(session: Session) -> None:
        append(deployment.log, session, 2)
        assert deployment.log.snapshot(session).size == 5
        raise RuntimeError

    with pytest.raises(RuntimeError), deployment.database.transaction() as session:
        fail(session)
    with deployment.database.transaction() as session:
        append(deployment.log, session)
    fresh = TransparencyLog(deployment.log.origin, deployment.authority.sign)
    with deployment.database.reading() as session:
        assert deployment.log.snapshot(session).size == 4
        assert deployment.log.snapshot(session).root == fresh.snapshot(session).root


def test_two_processes_append_to_one_log(deployment: Deployment) -> None:
    other = TransparencyLog(deployment.log.origin, deployment.authority.sign)
    for turn in range(6):
        with deployment.database.transaction() as session:
            append((deployment.log, other)[turn % 2], session)
    with deployment.database.reading() as session:
        assert deployment.log.snapshot(session).root == other.snapshot(session).root
        assert other.snapshot(session).size == 6


def test_a_snapshot_keeps_its_size_while_the_log_grows(deployment: Deployment) -> None:
    with deployment.database.transaction() as session:
        append(deployment.log, session, 3)
    with deployment.database.reading() as reader:
        before = deployment.log.snapshot(reader)
        root = before.root
        with deployment.database.transaction() as session:
            append(deployment.log, session, 2)
        with deployment.database.reading() as session:
            assert deployment.log.snapshot(session).size == 5
        assert (before.size, before.root) == (3, root)
        assert deployment.log.snapshot(reader).size == 3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path, NOW)


def test_each_certificate_serves_one_purpose(authority: Authority, tmp_path: Path) -> None:
    key = verify_signing_certificate(authority.signing_certificate_der, authority.root)
    verify(key, authority.sign(b"message"), b"message", what="a test")
    with pytest.raises(VerificationError):
        verify_device_certificate(authority.signing_certificate_der, authority.root, NOW)
    device = authority.issue_device_certificate(key, NOW)
    assert verify_device_certificate(device, authority.root, NOW).not_after_unix_s == NOW + 30 * DAY_S
    with pytest.raises(VerificationError):
        verify_signing_certificate(device, authority.root)
    authority.server_credentials(["localhost"], NOW)
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_server_certificate_carries_names_and_addresses(authority: Authority, tmp_path: Path) -> None:
    authority.server_credentials(["coordinator.example", "192.0.2.7", "2001:db8::1"], NOW)
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coordinator.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::1"]


def test_the_server_certificate_is_made_anew_when_it_ages_or_its_names_change(authority: Authority) -> None:
    first = authority.server_credentials(["localhost"], NOW)
    assert authority.server_credentials(["localhost"], NOW + 300 * DAY_S) == first
    assert authority.server_credentials(["localhost"], NOW + 340 * DAY_S) != first
    second = authority.server_credentials(["other.example"], NOW)
    assert second.chain_pem != first.chain_pem


@pytest.mark.parametrize("name", ["intermediate.pem", "signing.key", "root.crt", "signing.crt"])
def test_a_missing_or_damaged_key_is_named(authority: Authority, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"garbage")
    with pytest.raises(UsageError, match=name):
        Authority.load(tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=name):
        Authority.load(tmp_path)


def test_the_authority_never_shows_its_keys(authority: Authority) -> None:
    assert "PRIVATE" not in repr(authority) + str(vars(authority))
