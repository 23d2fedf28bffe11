"""The join listener: who gets a certificate, and which of the many refusals the others see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sqlalchemy import select

from coordinator.deployment import Deployment
from coordinator.enrolment.tokens import revoke_token
from coordinator.storage.rows import Device, Token
from nightshift.host.rpc import CHANNEL_OPTIONS, from_rpc_error
from nightshift.protocol.certificates import verify_device_certificate
from nightshift.protocol.errors import (
    IncompatibleError,
    MalformedError,
    RevokedError,
    TokenError,
    UnreachableError,
    VerificationError,
)
from nightshift.v1 import device_pb2, device_pb2_grpc
from tests.support.coordinators import make_home, make_token, open_home
from tests.support.scripted_device import ScriptedDevice

Clock = Callable[[float], None]


def test_a_device_gets_a_certificate_for_its_own_key(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served), name="kitchen\x1b[31m\nbox")
    device.join()
    with served.database.reading() as session:
        row = session.scalars(select(Device)).one()
    certificate = verify_device_certificate(device.certificate, device.trust.root, row.enrolled_unix_s)
    assert certificate.device_id == device.device_id == row.device_id
    assert certificate.not_before_unix_s == row.enrolled_unix_s - 3600
    assert certificate.not_after_unix_s == row.enrolled_unix_s + 30 * 86_400
    assert row.name.isprintable()


def test_joining_again_with_the_same_key_and_token_costs_nothing(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served, uses=1))
    device.join()
    first = device.certificate
    device.join()
    assert device.certificate == first
    with served.database.reading() as session:
        assert session.scalars(select(Token)).one().uses == 1


def test_an_ageing_certificate_is_renewed_by_joining_again(served: Deployment, clock: Clock) -> None:
    device = ScriptedDevice(make_token(served, uses=1, ttl_s=90 * 86_400))
    device.join()
    first = device.certificate
    clock(25 * 86_400)
    device.join()
    assert device.certificate != first


def test_a_used_token_is_refused(served: Deployment) -> None:
    token = make_token(served, uses=1)
    ScriptedDevice(token).join()
    with pytest.raises(TokenError, match="used up"):
        ScriptedDevice(token).join()


def test_an_expired_token_is_refused(served: Deployment, clock: Clock) -> None:
    token = make_token(served, ttl_s=60)
    clock(61)
    with pytest.raises(TokenError, match="expired"):
        ScriptedDevice(token).join()


def test_a_revoked_token_is_refused(served: Deployment) -> None:
    token = make_token(served)
    with served.database.transaction() as session:
        revoke_token(session, session.scalars(select(Token)).one().token_id, 1)
    with pytest.raises(TokenError, match="revoked"):
        ScriptedDevice(token).join()


def test_an_unknown_secret_is_refused(served: Deployment) -> None:
    with pytest.raises(TokenError, match="does not know"):
        ScriptedDevice(replace(make_token(served), secret=bytes(32))).join()
    with pytest.raises(MalformedError):
        ScriptedDevice(replace(make_token(served), secret=b"short")).join()


def test_a_token_of_another_coordinator_does_not_even_connect(served: Deployment, tmp_path) -> None:
    with open_home(make_home(tmp_path / "other")) as other:
        theirs = make_token(other)
    mixed = replace(make_token(served), root_der=theirs.root_der)
    with pytest.raises(VerificationError, match="expected root"):
        ScriptedDevice(mixed).join()
    with pytest.raises(UnreachableError):
        ScriptedDevice(theirs).join()


@pytest.mark.parametrize("request_der", [b"", b"garbage", bytes(5000)])
def test_garbage_for_a_signing_request_is_refused(served: Deployment, request_der: bytes) -> None:
    with pytest.raises(MalformedError, match="signing request"):
        ScriptedDevice(make_token(served)).join(request=request_der)


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_a_request_for_another_kind_of_key_is_refused(served: Deployment, key: object) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, algorithm)
    with pytest.raises(MalformedError, match="P-256"):
        ScriptedDevice(make_token(served)).join(request=request.public_bytes(serialization.Encoding.DER))


def test_a_request_whose_signature_is_wrong_is_refused(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served))
    request = bytearray(device.certificate_request())
    request[-1] ^= 1
    with pytest.raises(MalformedError, match=r"signed by its own key|could not be read"):
        device.join(request=bytes(request))


@pytest.mark.parametrize(("versions", "who"), [((2, 9), "coordinator"), ((0, 0), "client")])
def test_versions_that_do_not_meet_are_refused(served: Deployment, versions: tuple[int, int], who: str) -> None:
    with pytest.raises(IncompatibleError, match=f"{who}"):
        ScriptedDevice(make_token(served)).join(versions=versions)


def test_a_revoked_key_does_not_join_again(served: Deployment) -> None:
    from coordinator.enrolment.devices import find_device, revoke

    device = ScriptedDevice(make_token(served))
    device.join()
    device.check_in()
    with served.database.transaction() as session:
        row = find_device(session, device.device_id.hex())
        revoke(session, served.log, row, reason="lost", now_unix_s=row.enrolled_unix_s)
    with pytest.raises(RevokedError, match="revoked"):
        device.check_in()
    with pytest.raises(RevokedError, match="revoked"):
        device.join()
    other = ScriptedDevice(make_token(served))
    other.join()
    assert list(other.check_in().reply.revocation.device_ids) == [device.device_id]
    device.close()
    other.close()


def test_the_device_listener_wants_a_certificate(served: Deployment) -> None:
    token = make_token(served)
    root = x509.load_der_x509_certificate(token.root_der).public_bytes(serialization.Encoding.PEM)
    with grpc.secure_channel(token.device_address, grpc.ssl_channel_credentials(root), CHANNEL_OPTIONS) as channel:
        stub = device_pb2_grpc.DeviceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CheckIn(device_pb2.CheckInRequest(), timeout=5)
    assert isinstance(from_rpc_error(caught.value, "here"), UnreachableError)


def test_a_certificate_of_another_root_is_not_let_in(served: Deployment, tmp_path) -> None:
    from coordinator.service.server import serving

    with open_home(make_home(tmp_path / "other")) as other, serving(other):
        stranger = ScriptedDevice(make_token(other))
        stranger.join()
    stranger.token = make_token(served)
    with pytest.raises(UnreachableError):
        stranger.check_in()
    stranger.close()


def test_enrolment_is_logged(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served))
    device.join()
    greeting = device.check_in()
    with served.database.reading() as session:
        snapshot = served.log.snapshot(session)
        proof = snapshot.proof(session, 0)
    greeting.view.require(proof, kind=6, subject=device.device_id, digest=hashlib.sha256(device.certificate).digest())
    device.close()


def test_no_secret_and_no_private_key_is_in_the_database(served: Deployment) -> None:
    token = make_token(served)
    device = ScriptedDevice(token)
    device.join()
    device.check_in(new_prekeys=2)
    device.close()
    files = [served.home.database_file, *served.home.directory.glob("coordinator.sqlite3-*")]
    stored = b"".join(file.read_bytes() for file in files)
    assert device.certificate in stored, "the search must be able to find something"
    assert token.secret not in stored
    assert b"PRIVATE KEY" not in stored
    private = [file for file in served.home.keys_directory.rglob("*.*") if b"PRIVATE KEY" in file.read_bytes()]
    names = {file.name.partition("-")[0] if file.parent.name.startswith("release") else file.name for file in private}
    # Of the certificate authority, of the operators' admin API, and of the release metadata's roles.
    assert names == {"root.key", "intermediate.pem", "signing.key", "server.pem", "admin-authority.pem"} | {
        "root",
        "adapters",
        "packages",
        "snapshot",
        "timestamp",
    }
    for file in private:
        assert file.stat().st_mode & 0o777 == 0o600
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        scalar = key.private_numbers().private_value.to_bytes(32, "big")
        assert scalar not in stored
