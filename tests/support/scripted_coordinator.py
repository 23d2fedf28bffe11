"""A coordinator that says what a test tells it, over real gRPC, to the real agent.

Only TLS is left out: the tests here are about what a device makes of the
replies, whoever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from edge_client.agent.session import Session
from edge_client.configuration import Configuration
from edge_client.connection import Connection
from edge_client.home import Home
from edge_client.identity import Identity, Membership
from edge_client.store import Store, open_store
from nightshift.host.rpc import abort
from nightshift.protocol.errors import NightshiftError
from nightshift.v1 import device_pb2, device_pb2_grpc
from tests.support.plans import ORIGIN, EnrolledDevice, World


def _refuse(request: object) -> object:
    raise AssertionError(f"the test did not say what to answer to {type(request).__name__}")


@dataclass
class ScriptedCoordinator(device_pb2_grpc.DeviceServiceServicer):
    """Each call is answered by a function of the test; the last requests are kept."""

    check_in: Callable[[device_pb2.CheckInRequest], device_pb2.CheckInResponse] = _refuse  # type: ignore[assignment]  # fits every call
    bundle: Callable[[device_pb2.GetBundleRequest], Iterator[device_pb2.GetBundleResponse]] = _refuse  # type: ignore[assignment]  # fits every call
    artefact: Callable[[device_pb2.FetchArtefactRequest], Iterator[device_pb2.FetchArtefactResponse]] = _refuse  # type: ignore[assignment]  # fits every call
    open_upload: Callable[[device_pb2.OpenUploadRequest], device_pb2.OpenUploadResponse] = _refuse  # type: ignore[assignment]  # fits every call
    upload: Callable[[Iterator[device_pb2.UploadRequest]], device_pb2.UploadResponse] = _refuse  # type: ignore[assignment]  # fits every call
    void: Callable[[device_pb2.GetVoidRequest], device_pb2.GetVoidResponse] = _refuse  # type: ignore[assignment]  # fits every call
    metadata: Callable[[device_pb2.GetReleaseMetadataRequest], bytes] = _refuse  # type: ignore[assignment]  # fits every call
    answers: list[device_pb2.AnswerRequest] = field(default_factory=list)
    refusals: list[device_pb2.RefuseRequest] = field(default_factory=list)
    erasures: list[device_pb2.StateErasureRequest] = field(default_factory=list)

    def CheckIn(self, request, context):
        return self.check_in(request)

    def OpenUpload(self, request, context):
        return self.open_upload(request)

    def Upload(self, request_iterator, context):
        return self.upload(request_iterator)

    def GetBundle(self, request, context):
        yield from self.bundle(request)

    def Answer(self, request, context):
        self.answers.append(request)
        return device_pb2.AnswerResponse()

    def Refuse(self, request, context):
        self.refusals.append(request)
        return device_pb2.RefuseResponse()

    def GetVoid(self, request, context):
        return self.void(request)

    def StateErasure(self, request, context):
        self.erasures.append(request)
        return device_pb2.StateErasureResponse()

    def FetchArtefact(self, request, context):
        yield from self.artefact(request)

    def GetReleaseMetadata(self, request, context):
        try:
            return device_pb2.GetReleaseMetadataResponse(document=self.metadata(request))
        except NightshiftError as error:
            abort(context, error)


@contextmanager
def connected(coordinator: ScriptedCoordinator) -> Iterator[Connection]:
    """Serve it on a free port of loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    device_pb2_grpc.add_DeviceServiceServicer_to_server(coordinator, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            yield Connection(address, device_pb2_grpc.DeviceServiceStub(channel))
    finally:
        server.stop(None).wait()


def keep_prekey(store: Store, device: EnrolledDevice) -> None:
    """Give a store the private half of a device's prekey."""
    from edge_client.store.prekeys import StoredPrekey
    from nightshift.protocol.plan import prekey_to_proto

    prekey = device.prekey
    message = prekey_to_proto(prekey).SerializeToString()
    store.prekeys.add(
        [
            StoredPrekey(
                prekey.epoch, prekey.serial, device.prekey_private, prekey.public, prekey.not_after, message, None
            )
        ]
    )


@contextmanager
def agent_of(
    world: World,
    device: EnrolledDevice,
    directory: Path,
    coordinator: ScriptedCoordinator,
    configuration: Configuration | None = None,
    *,
    with_prekey: bool = True,
    release_root: bytes = b"",
) -> Iterator[Session]:
    """The real agent of one of the world's devices, with its prekey, talking to the scripted coordinator.

    Without `with_prekey` its store is used as the files have it.
    """
    home = Home(directory / "config.toml", directory, directory / "cache")
    membership = Membership(
        certificate=device.certificate,
        root=world.authority.root.public_bytes(Encoding.DER),
        signing_certificate=_signing_certificate(world),
        join_address="127.0.0.1:1",
        device_address="127.0.0.1:1",
        log_origin=ORIGIN,
        device_name="",
        joined_unix_s=world.now_unix_s,
        release_root=release_root,
    )
    configuration = configuration or Configuration.model_validate({"policy": {"minimum_cohort": 3}})
    with open_store(home) as store, connected(coordinator) as connection:
        if with_prekey:
            keep_prekey(store, device)
        yield Session(home, configuration, Identity(device.key), membership, store, connection)


def _signing_certificate(world: World) -> bytes:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = world.authority.signing_key.public_key()
    return world.authority.issue(key, usages=(ExtendedKeyUsageOID.CODE_SIGNING,))
