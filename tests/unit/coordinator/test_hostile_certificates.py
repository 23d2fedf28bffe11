"""Hostile certificates over real TLS: who is not let in, who is refused later, whom a device does not believe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from coordinator.deployment import Deployment
from coordinator.enrolment import issuing
from coordinator.enrolment.authority import INTERMEDIATE
from coordinator.enrolment.issuing import Issuer
from coordinator.enrolment.key_files import certificates_pem, key_pem, read_pair
from nightshift.host.rpc import CHANNEL_OPTIONS, from_rpc_error
from nightshift.protocol.chains import Chain
from nightshift.protocol.errors import (
    DeclinedError,
    ExitCode,
    NightshiftError,
    RevokedError,
    UnreachableError,
    VerificationError,
    WrongServerError,
)
from nightshift.v1 import device_pb2, device_pb2_grpc
from tests.support.authority import Authority, new_key
from tests.support.coordinators import make_token
from tests.support.scripted_device import ScriptedDevice

CLIENT, SERVER, CODE = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING,
)
NOW = datetime.now(UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def issuer_of(deployment: Deployment) -> Issuer:
    """The coordinator's own intermediate: a certificate that it would never make, made with its key."""
    key, (certificate, *_) = read_pair(deployment.home.keys_directory / INTERMEDIATE)
    return Issuer(certificate, key)


def issued(
    issuer: Issuer,
    key: ec.EllipticCurvePrivateKey,
    *,
    usage: x509.ObjectIdentifier = CLIENT,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + DAY,
    names: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    return issuing.leaf(
        issuer,
        key.public_key(),
        subject="hostile",
        usage=usage,
        not_before=not_before,
        not_after=not_after,
        names=names,
    )


def self_signed(key: ec.EllipticCurvePrivateKey, template: x509.Certificate) -> x509.Certificate:
    """A device's certificate of one's own making, with the intermediate's name as issuer."""
    return (
        x509.CertificateBuilder(issuer_name=template.subject, subject_name=template.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.ExtendedKeyUsage([CLIENT]), critical=False)
        .sign(key, hashes.SHA256())
    )


Make = Callable[[Issuer, ScriptedDevice], tuple[x509.Certificate, x509.Certificate]]


def an_expired_one(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    return issued(issuer, device.key, not_before=NOW - 2 * DAY, not_after=NOW - MINUTE), issuer.certificate


def one_not_valid_yet(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    return issued(issuer, device.key, not_before=NOW + DAY / 2), issuer.certificate


def a_servers(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    return issued(issuer, device.key, usage=SERVER), issuer.certificate


def a_signing_keys(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    return issued(issuer, device.key, usage=CODE), issuer.certificate


def one_of_my_own(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    return self_signed(device.key, issuer.certificate), issuer.certificate


def one_of_another_authority(_: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    stranger = Authority.make()
    theirs = Issuer(stranger.root, stranger.root_key)
    return issued(theirs, device.key), stranger.root


def one_by_another_device(issuer: Issuer, device: ScriptedDevice) -> tuple[x509.Certificate, x509.Certificate]:
    """An enrolled device signs for a key of its own making and shows its own certificate as the issuer's."""
    enrolled_key = new_key()
    enrolled = issued(issuer, enrolled_key)
    return issued(Issuer(enrolled, enrolled_key), device.key), enrolled


@pytest.mark.parametrize(
    "make",
    [
        an_expired_one,
        one_not_valid_yet,
        a_servers,
        a_signing_keys,
        one_of_my_own,
        one_of_another_authority,
        one_by_another_device,
    ],
    ids=lambda make: make.__name__.replace("_", " "),
)
def test_tls_lets_no_such_certificate_in(served: Deployment, make: Make) -> None:
    """The device is enrolled and holds its key; only the certificate that it shows is wrong."""
    device = ScriptedDevice(make_token(served))
    device.join()
    device.certificate = Chain(*make(issuer_of(served), device)).der
    with pytest.raises(UnreachableError) as caught:
        device.check_in()
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    device.close()
    with served.database.reading() as session:
        from coordinator.storage.rows import Device

        assert session.get_one(Device, device.device_id).last_seen_unix_s is None


def test_without_its_intermediate_a_certificate_is_not_let_in(served: Deployment) -> None:
    device = ScriptedDevice(make_token(served))
    device.join()
    leaf = issued(issuer_of(served), device.key)
    device.certificate = Chain(leaf, None).der
    with pytest.raises(UnreachableError):
        device.check_in()
    device.close()


def test_a_certificate_that_this_authority_made_for_a_key_nobody_enrolled(served: Deployment) -> None:
    """Say, from a keys directory that was restored beside an older database."""
    device = ScriptedDevice(make_token(served))
    device.join()
    device.key = new_key()
    issuer = issuer_of(served)
    device.certificate = Chain(issued(issuer, device.key), issuer.certificate).der
    with pytest.raises(RevokedError, match="does not know the device") as caught:
        device.check_in()
    assert caught.value.exit_code is ExitCode.REVOKED
    device.close()


def test_two_certificates_of_one_key_both_work(served: Deployment) -> None:
    """Around a renewal a device has two; which device it is, the key says."""
    device = ScriptedDevice(make_token(served))
    device.join()
    device.check_in()
    device.close()
    issuer = issuer_of(served)
    device.certificate = Chain(issued(issuer, device.key), issuer.certificate).der
    device.check_in()
    device.close()


# The other way round: whom a device does not believe.


@contextmanager
def impostor(key: ec.EllipticCurvePrivateKey, *chain: x509.Certificate) -> Iterator[str]:
    """A listener that presents a chain; yields its address."""
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(key_pem(key), certificates_pem(*chain))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def what_the_device_says(served: Deployment, address: str) -> NightshiftError:
    credentials = grpc.ssl_channel_credentials(served.authority.root_pem)
    with grpc.secure_channel(address, credentials, CHANNEL_OPTIONS) as channel:
        stub = device_pb2_grpc.DeviceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        with pytest.raises(grpc.RpcError) as caught:
            stub.CheckIn(device_pb2.CheckInRequest(), timeout=10)
    return from_rpc_error(caught.value, address)


def here() -> x509.SubjectAlternativeName:
    return issuing.server_names(["127.0.0.1"])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(issued, id="a device's certificate"),
        pytest.param(lambda issuer, key: issued(issuer, key, names=here()), id="a device's, with the server's name"),
        pytest.param(lambda issuer, key: issued(issuer, key, usage=CODE, names=here()), id="the signing key's"),
        pytest.param(
            lambda issuer, key: issued(issuer, key, usage=SERVER, names=issuing.server_names(["else.example"])),
            id="of another name",
        ),
        pytest.param(lambda issuer, key: self_signed(key, issuer.certificate), id="self-signed"),
    ],
)
def test_a_device_believes_no_such_server(
    served: Deployment, make: Callable[[Issuer, ec.EllipticCurvePrivateKey], x509.Certificate]
) -> None:
    issuer, key = issuer_of(served), new_key()
    with impostor(key, make(issuer, key), issuer.certificate) as address:
        error = what_the_device_says(served, address)
    assert isinstance(error, WrongServerError), error
    assert error.exit_code is ExitCode.VERIFICATION_FAILED
    assert "nothing was sent to it" in str(error)


def test_an_expired_certificate_may_be_this_devices_clock(served: Deployment) -> None:
    """No device can tell which of the two is wrong; either way it sends nothing and comes again later."""
    issuer, key = issuer_of(served), new_key()
    expired = issued(issuer, key, usage=SERVER, names=here(), not_before=NOW - 2 * DAY, not_after=NOW - MINUTE)
    with impostor(key, expired, issuer.certificate) as address:
        error = what_the_device_says(served, address)
    assert isinstance(error, DeclinedError), error
    assert error.exit_code is ExitCode.NOT_NOW
    assert "set the clock" in str(error)


def test_the_impostor_with_the_right_certificate_would_be_believed(served: Deployment) -> None:
    """The control: it is the certificate that is judged, and not the address."""
    issuer, key = issuer_of(served), new_key()
    with impostor(key, issued(issuer, key, usage=SERVER, names=here()), issuer.certificate) as address:
        error = what_the_device_says(served, address)
    assert "failed" in str(error)
    assert not isinstance(error, VerificationError | UnreachableError)
