"""A device that does what a test tells it, over real gRPC and with the real protocol.

It has no store, trains nothing, and forgets everything with the process; what
it verifies and encrypts is what `nightshift.protocol` verifies and encrypts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from nightshift.host.clock import now_unix_s
from nightshift.host.rpc import CHANNEL_OPTIONS, CHUNK_BYTES, from_rpc_error
from nightshift.host.tokens import JoinToken
from nightshift.protocol import identity
from nightshift.protocol.certificates import verify_signing_certificate
from nightshift.protocol.chains import load_chain
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.log import LogHead, LogView
from nightshift.protocol.plan import prekey_to_proto
from nightshift.protocol.plan_checks import (
    VerifiedPlan,
    verify_bundle,
    verify_bundle_entry,
    verify_offer,
)
from nightshift.protocol.release import VerifiedRelease, verify_release
from nightshift.protocol.revocation import verify_revocation
from nightshift.protocol.secagg.contribution import Contribution, entry_of
from nightshift.protocol.secagg.contributors import contribution_message
from nightshift.protocol.secagg.device import contribute
from nightshift.protocol.secagg.erasure import sign_erasure
from nightshift.protocol.secagg.member import Answer, answer
from nightshift.protocol.secagg.prekeys import MAX_LIFETIME_S, SignedPrekey, new_prekey
from nightshift.protocol.trust import Trust
from nightshift.protocol.upload import pack, signature_of
from nightshift.protocol.void_checks import verify_void_of_member
from nightshift.v1 import device_pb2, device_pb2_grpc, join_pb2, join_pb2_grpc

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Prepared:
    """A contribution ready to be sent, and what only its device knows: the encoded vector."""

    plan: VerifiedPlan
    values: NDArray[np.uint64]
    body: bytes

    @property
    def signature(self) -> bytes:
        return signature_of(self.body)


@dataclass
class Greeting:
    """What a check-in brought, verified."""

    reply: device_pb2.CheckInResponse
    view: LogView
    plan: VerifiedPlan | None
    releases: list[VerifiedRelease]

    @property
    def duties(self) -> list[bytes]:
        return [duty.cohort_id for duty in self.reply.duties]


@dataclass
class ScriptedDevice:
    token: JoinToken
    name: str = "scripted"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: bytes = b""
    head: LogHead | None = None
    epoch: int = 1
    rank_limit: int = 0
    night_hours: device_pb2.NightHours | None = None
    next_serial: int = 0
    last_nonce: bytes = b""
    next_nonce: bytes = field(default_factory=lambda: os.urandom(32))
    prekeys: dict[bytes, bytes] = field(default_factory=dict)
    _trust: Trust | None = None
    _channel: grpc.Channel | None = None

    @property
    def device_id(self) -> DeviceId:
        return identity.device_id(self.key.public_key())

    @property
    def trust(self) -> Trust:
        assert self._trust is not None, "join first"
        return self._trust

    def sign(self, message: bytes) -> bytes:
        return identity.sign(self.key, message)

    # Joining

    def certificate_request(self) -> bytes:
        builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def join(self, *, versions: tuple[int, int] = (1, 1), request: bytes | None = None) -> None:
        root = x509.load_der_x509_certificate(self.token.root_der)
        credentials = grpc.ssl_channel_credentials(root.public_bytes(serialization.Encoding.PEM))
        with grpc.secure_channel(self.token.join_address, credentials, CHANNEL_OPTIONS) as channel:
            try:
                reply = join_pb2_grpc.JoinServiceStub(channel).Join(
                    join_pb2.JoinRequest(
                        token_secret=self.token.secret,
                        certificate_request=self.certificate_request() if request is None else request,
                        protocol_version_min=versions[0],
                        protocol_version_max=versions[1],
                        client_version="scripted",
                        device_name=self.name,
                    ),
                    timeout=DEADLINE_S,
                )
            except grpc.RpcError as error:
                raise from_rpc_error(error, self.token.join_address) from error
        self.certificate = reply.certificate
        signing_key = verify_signing_certificate(reply.signing_certificate, root)
        self._trust = Trust(root, signing_key, reply.log_origin)

    # Calls

    @property
    def stub(self) -> device_pb2_grpc.DeviceServiceStub:
        return device_pb2_grpc.DeviceServiceStub(self.channel)

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            root = x509.load_der_x509_certificate(self.token.root_der).public_bytes(serialization.Encoding.PEM)
            key = self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            own = load_chain(self.certificate).pem
            credentials = grpc.ssl_channel_credentials(root, key, own)
            self._channel = grpc.secure_channel(self.token.device_address, credentials, CHANNEL_OPTIONS)
        return self._channel

    def call_at(self, device_address: str) -> None:
        """Speak to another process of the same coordinator from now on."""
        self.close()
        self.token = replace(self.token, device_address=device_address)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def check_in(
        self,
        *,
        new_prekeys: int = 0,
        no_plan: bool = False,
        without_tasks: Iterable[str] = (),
        versions: tuple[int, int] = (1, 1),
        prekeys: Iterable[SignedPrekey] = (),
    ) -> Greeting:
        published = [*prekeys, *(self.make_prekey() for _ in range(new_prekeys))]
        request = device_pb2.CheckInRequest(
            protocol_version_min=versions[0],
            protocol_version_max=versions[1],
            client_version="scripted",
            log_size=self.head.size if self.head else 0,
            prekeys=[prekey_to_proto(prekey) for prekey in published],
            epoch=self.epoch,
            no_plan=no_plan,
            without_tasks=without_tasks,
            last_nonce=self.last_nonce,
            next_nonce=self.next_nonce,
            rank_limit=self.rank_limit,
            night_hours=self.night_hours,
        )
        reply = self._call(self.stub.CheckIn, request)
        self.last_nonce, self.next_nonce = self.next_nonce, os.urandom(32)
        view = LogView.verify(
            reply.checkpoint, trust=self.trust, last=self.head, consistency_path=list(reply.consistency_path)
        )
        self.head = view.head
        revoked = verify_revocation(reply.revocation, trust=self.trust)
        plan = None
        if reply.HasField("plan"):
            plan = verify_offer(reply.plan, view=view, trust=self.trust, revoked=revoked, now_unix_s=now_unix_s())
        releases = [verify_release(offer, view=view, trust=self.trust) for offer in reply.releases]
        return Greeting(reply, view, plan, releases)

    def make_prekey(self, *, life_s: int = MAX_LIFETIME_S) -> SignedPrekey:
        private, signed = new_prekey(
            device=self.device_id,
            serial=self.next_serial,
            epoch=self.epoch,
            not_after=now_unix_s() + life_s,
            sign=self.sign,
            randomness=os.urandom,
        )
        self.next_serial += 1
        self.prekeys[signed.public] = private
        return signed

    # Contributing

    def prepare(
        self,
        plan: VerifiedPlan,
        delta: NDArray[np.float32],
        *,
        weight: float = 1.0,
        metrics: Mapping[str, float] | None = None,
    ) -> Prepared:
        """Encrypt a delta; a metric that the plan asks for and the test does not name is 2, or its limit."""
        document = plan.document
        limits = dict(zip(document.vector.metrics, document.vector.limits, strict=True))
        measured = {name: min(2.0, limit) for name, limit in limits.items()}
        measured |= {name: value for name, value in (metrics or {}).items() if name in limits}
        return self.encrypt(plan, document.vector.encode(delta, weight, measured, os.urandom))

    def encrypt(self, plan: VerifiedPlan, values: NDArray[np.uint64]) -> Prepared:
        """Encrypt any vector, honest or not: uint64[D]."""
        contribution = contribute(
            parameters=plan.document.parameters,
            plan_hash=plan.plan_hash,
            sender=self.device_id,
            members=plan.member_keys(),
            values=values,
            sign=self.sign,
            randomness=os.urandom,
        )
        return Prepared(plan, values, pack(contribution))

    def open_upload(
        self, prepared: Prepared, *, size_bytes: int | None = None, signature: bytes | None = None
    ) -> device_pb2.OpenUploadResponse:
        request = device_pb2.OpenUploadRequest(
            cohort_id=prepared.plan.document.cohort_id,
            plan_hash=prepared.plan.plan_hash,
            size_bytes=len(prepared.body) if size_bytes is None else size_bytes,
            signature=prepared.signature if signature is None else signature,
        )
        reply: device_pb2.OpenUploadResponse = self._call(self.stub.OpenUpload, request)
        return reply

    def send(
        self, prepared: Prepared, *, offset: int = 0, stop: int | None = None, body: bytes | None = None
    ) -> device_pb2.UploadResponse:
        """Send the bytes from `offset` to `stop`, then half-close."""
        data = (prepared.body if body is None else body)[offset:stop]
        cohort_id = prepared.plan.document.cohort_id

        def messages() -> Iterator[device_pb2.UploadRequest]:
            yield device_pb2.UploadRequest(cohort_id=cohort_id, offset=offset)
            for start in range(0, len(data), CHUNK_BYTES):
                yield device_pb2.UploadRequest(data=data[start : start + CHUNK_BYTES])

        reply: device_pb2.UploadResponse = self._call(self.stub.Upload, messages())
        return reply

    def upload(self, prepared: Prepared) -> device_pb2.UploadResponse:
        opened = self.open_upload(prepared)
        if opened.complete:
            return device_pb2.UploadResponse(offset=opened.offset, complete=True)
        return self.send(prepared, offset=opened.offset)

    # Answering

    def bundle(self, cohort_id: bytes) -> list[device_pb2.GetBundleResponse]:
        request = device_pb2.GetBundleRequest(cohort_id=cohort_id, log_size=self.head.size if self.head else 0)
        try:
            return list(self.stub.GetBundle(request, timeout=DEADLINE_S))
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.token.device_address) from error

    def make_answer(self, cohort_id: bytes) -> device_pb2.AnswerRequest:
        header, *entries = self.bundle(cohort_id)
        view = LogView.verify(
            header.header.checkpoint,
            trust=self.trust,
            last=self.head,
            consistency_path=list(header.header.consistency_path),
        )
        self.head = view.head
        public = next(
            member.prekey.public
            for member in _committee(header.header.plan)
            if member.prekey.device_id == self.device_id
        )
        plan, index = verify_bundle(
            header.header,
            cohort_id=cohort_id,
            view=view,
            trust=self.trust,
            member=self.device_id,
            prekey=public,
        )
        assert header.header.contributors == len(entries)
        made: Answer = answer(
            parameters=plan.document.parameters,
            plan_hash=plan.plan_hash,
            set_hash=header.header.set_hash,
            index=index,
            member=self.device_id,
            prekey_private=self.prekeys[public],
            shares=[
                verify_bundle_entry(
                    part.entry, plan=plan, trust=self.trust, view=view, set_position=header.header.set_proof.index
                )
                for part in entries
            ],
            sign=self.sign,
        )
        return device_pb2.AnswerRequest(
            cohort_id=cohort_id,
            set_hash=header.header.set_hash,
            index=index,
            vector=made.vector,
            signature=made.signature,
        )

    def send_answer(self, request: device_pb2.AnswerRequest) -> None:
        self._call(self.stub.Answer, request)

    def refuse(self, request: device_pb2.RefuseRequest) -> None:
        self._call(self.stub.Refuse, request)

    # Laying a void cohort to rest

    def void_proof(self, cohort_id: bytes) -> device_pb2.GetVoidResponse:
        request = device_pb2.GetVoidRequest(cohort_id=cohort_id, log_size=self.head.size if self.head else 0)
        reply: device_pb2.GetVoidResponse = self._call(self.stub.GetVoid, request)
        return reply

    def make_erasure(self, cohort_id: bytes) -> device_pb2.StateErasureRequest:
        reply = self.void_proof(cohort_id)
        view = LogView.verify(
            reply.checkpoint, trust=self.trust, last=self.head, consistency_path=list(reply.consistency_path)
        )
        self.head = view.head
        void = verify_void_of_member(reply, cohort_id=cohort_id, view=view, trust=self.trust, member=self.device_id)
        self.prekeys.pop(void.prekey.public, None)
        statement = sign_erasure(plan_hash=void.plan_hash, cohort_id=cohort_id, member=self.device_id, sign=self.sign)
        return device_pb2.StateErasureRequest(cohort_id=cohort_id, signature=statement.signature)

    def state_erasure(self, request: device_pb2.StateErasureRequest) -> None:
        self._call(self.stub.StateErasure, request)

    def fetch(self, sha256: bytes, offset: int = 0) -> tuple[int, bytes]:
        """Size as stated in the first message, and the bytes from an offset on."""
        try:
            parts = list(
                self.stub.FetchArtefact(
                    device_pb2.FetchArtefactRequest(sha256=sha256, offset=offset), timeout=DEADLINE_S
                )
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.token.device_address) from error
        return parts[0].size_bytes, b"".join(part.data for part in parts)

    def _call(self, method: grpc.MultiCallable, request: object) -> object:
        try:
            return method(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.token.device_address) from error


def signed_contribution(
    device: ScriptedDevice, plan: VerifiedPlan, *, ciphertext: bytes, sealed: Sequence[bytes]
) -> Contribution:
    """Sign any ciphertext and any sealed shares, one for each member by index, as this device's contribution."""
    unsigned = Contribution(ciphertext, tuple(sealed), signature=b"")
    entry = entry_of(plan.plan_hash, device.device_id, unsigned)
    return replace(unsigned, signature=device.sign(contribution_message(plan.plan_hash, entry)))


def _committee(plan: bytes) -> tuple:
    from nightshift.protocol.plan import PlanDocument

    return PlanDocument.parse(plan).committee
