"""Every decoder of bytes from the other side, as a function of bytes: the one list that all fuzzing works on.

A target may return, or raise an error of the tree; anything else is a finding, and
so is a message that the sender can stretch. Its seeds are honest bytes, from which
mutations get past the first checks. What protobuf itself refuses never reaches
the code behind gRPC, and is passed over. Documents that travel under a signature
are read here without it: whoever has the signing key may lie in them too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from google.protobuf.message import DecodeError, Message
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from coordinator.aggregation.refusals import parse
from coordinator.enrolment.authority import requested_key
from edge_client.agent.metadata_refusals import refusals
from edge_client.data.sources import DataFormat, DataSource, read_rows
from edge_client.serving.errors import ApiError
from edge_client.serving.fields import parse_object
from edge_client.serving.requests import chat_request, completion_request
from nightshift.host.tokens import JoinToken
from nightshift.packages.architecture import read_architecture
from nightshift.packages.gguf_file import GgufFile
from nightshift.packages.package import MANIFEST_NAME, ModelPackage
from nightshift.packages.vocabulary import read_vocabulary
from nightshift.protocol import signed_note
from nightshift.protocol.adapters.formats import from_safetensors, layout_of, to_safetensors
from nightshift.protocol.adapters.initialise import initialise
from nightshift.protocol.certificates import verify_device_certificate, verify_signing_certificate
from nightshift.protocol.chains import load_chain
from nightshift.protocol.decision import DecisionDocument, verify_decision
from nightshift.protocol.errors import NightshiftError
from nightshift.protocol.identity import load_public_key
from nightshift.protocol.log import LogHead, LogView, checkpoint_note, parse_checkpoint_body
from nightshift.protocol.log_heads import read_head, short_head
from nightshift.protocol.log_reading import LogReading
from nightshift.protocol.manifest import Manifest
from nightshift.protocol.merkle import verify_consistency
from nightshift.protocol.plan import PlanDocument, prekey_from_proto, prekey_to_proto
from nightshift.protocol.plan_checks import verify_bundle_entry
from nightshift.protocol.release import ReleaseDocument, verify_release
from nightshift.protocol.revocation import verify_revocation
from nightshift.protocol.secagg import prekeys, sharing
from nightshift.protocol.secagg.contribution import verify_contribution
from nightshift.protocol.secagg.erasure import ErasureStatement, sign_erasure, verify_erasure
from nightshift.protocol.secagg.member import Answer, verify_answer
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare, sign_refusal, verify_refusal
from nightshift.protocol.secagg.running_sum import RunningSum
from nightshift.protocol.secagg.sealing import load_prekey, open_sealed
from nightshift.protocol.targets import Role, ServedRelease
from nightshift.protocol.upload import pack, unpack
from nightshift.protocol.void_checks import verify_void_of_member
from nightshift.v1 import device_pb2, log_pb2, plan_pb2
from tests.fuzz.seeds import csv_file, gguf_file, manifest, prompt_file
from tests.support.authority import NOW_UNIX_S
from tests.support.plans import LAYOUT, ORIGIN, World
from tests.support.release_repository import ReleaseRepository

MESSAGE_CHARACTERS = 4000

TYPED = (NightshiftError, ApiError)
"""The roots of the error trees: what a decoder of hostile bytes may raise."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder.

    Attributes:
        read: decodes, and uses what comes out as its caller would.
        seeds: honest bytes, which it reads without an error.
    """

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def attempt(target: Target, data: bytes) -> bool:
    """Decode once; returns whether the bytes were accepted.

    Raises:
        AssertionError: a message that grows with the input.
        Exception: whatever the decoder should not have raised.
    """
    message = ""
    try:
        target.read(data)
    except TYPED as error:
        message = str(error) or error.__class__.__name__
    assert len(message) < MESSAGE_CHARACTERS, "a message that the sender can stretch"
    return not message


def all_targets(directory: Path) -> dict[str, Target]:
    """Every target by its name.

    Args:
        directory: for the files that some decoders read.
    """
    return {
        **dict(_documents()),
        **dict(_secure_aggregation()),
        **dict(_files(directory)),
        **dict(_words()),
        **dict(_release_metadata()),
    }


def _through(kind: type[M], check: Callable[[M], object]) -> Callable[[bytes], None]:
    """A target for a message: what protobuf can read is checked."""

    def read(data: bytes) -> None:
        try:
            message = kind.FromString(data)
        except DecodeError:
            return
        check(message)

    return read


def _documents() -> Iterator[tuple[str, Target]]:
    """Plans, releases, the log, certificates, revocations."""
    world = World.make(devices=4)
    parent = world.publish()
    cohort, decision = world.open_cohort(parent=parent), world.decide(parent)
    old, view, trust = LogHead(3, world.tree.root(3)), world.view(), world.trust
    yield "plan", Target(PlanDocument.parse, (cohort.plan,))
    yield "release", Target(ReleaseDocument.parse, (parent.release,))
    offer = partial(verify_release, view=view, trust=trust)
    yield "release-offer", Target(_through(device_pb2.ReleaseOffer, offer), (parent.offer().SerializeToString(),))
    yield "decision", Target(DecisionDocument.parse, (decision.decision,))
    judge = partial(verify_decision, view=view, trust=trust)
    yield "decision-offer", Target(_through(device_pb2.DecisionOffer, judge), (decision.offer().SerializeToString(),))
    yield "checkpoint", Target(partial(parse_checkpoint_body, origin=ORIGIN), (world.checkpoint().body,))
    trust, note = world.trust, checkpoint_note(world.checkpoint(), world.trust)
    yield (
        "signed-note",
        Target(
            lambda data: signed_note.verify(signed_note.parse(data), name=ORIGIN, public_key=trust.signing_key), (note,)
        ),
    )
    short = short_head(world.head, ORIGIN).encode()
    yield "log-head", Target(lambda data: read_head(data.decode("utf-8", "replace"), trust), (short, note))
    yield "whole-log", Target(lambda data: LogReading().append(data), (world.entries[0],))

    def log_entry(proof: log_pb2.LogProof) -> None:
        kind = log_pb2.LOG_ENTRY_KIND_PLAN
        view.require(proof, kind=kind, subject=cohort.message.cohort_id, digest=cohort.plan_hash)

    proof = world.proof(cohort.plan_index).SerializeToString()
    yield "log-entry", Target(_through(log_pb2.LogProof, log_entry), (proof,))

    def consistency(data: bytes) -> None:
        path = [data[start : start + 32] for start in range(0, len(data), 32)]
        verify_consistency(old.size, old.root, view.head.size, view.head.root, path)

    path = b"".join(world.tree.consistency_path(old.size))
    yield "consistency-proof", Target(consistency, (path,))
    revocations = world.revocation(2, [world.devices[0].device_id]).SerializeToString()
    yield (
        "revocations",
        Target(_through(device_pb2.RevocationList, partial(verify_revocation, trust=trust)), (revocations,)),
    )
    checkpoint = _through(
        log_pb2.Checkpoint, lambda message: LogView.verify(message, trust=trust, last=None, consistency_path=[])
    )
    yield "signed-checkpoint", Target(checkpoint, (world.checkpoint().SerializeToString(),))
    device, root = world.devices[0], world.authority.root
    yield (
        "device-certificate",
        Target(lambda data: verify_device_certificate(data, root, NOW_UNIX_S), (device.certificate,)),
    )
    yield "chain", Target(load_chain, (device.certificate, device.certificate + device.certificate))
    signing = world.authority.issue(
        world.authority.signing_key.public_key(), usages=(x509.ExtendedKeyUsageOID.CODE_SIGNING,)
    )
    yield "signing-certificate", Target(lambda data: verify_signing_certificate(data, root), (signing,))
    spki = device.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield "public-key", Target(load_public_key, (spki,))
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(device.key, hashes.SHA256())
    yield "signing-request", Target(requested_key, (request.public_bytes(serialization.Encoding.DER),))


def _secure_aggregation() -> Iterator[tuple[str, Target]]:
    """What devices, members and the coordinator send each other about one cohort."""
    world = World.make(devices=4)
    cohort = world.open_cohort()
    plan = cohort.verify()
    parameters, length = plan.document.parameters, plan.document.vector.length
    frozen = cohort.freeze({device.device_id: cohort.contribute(device) for device in world.devices[:3]})
    sender = world.devices[0]
    honest = frozen.contributions[sender.device_id]

    def contribution(data: bytes) -> None:
        verify_contribution(
            parameters=parameters,
            length=length,
            plan_hash=plan.plan_hash,
            sender=sender.device_id,
            public_key=sender.key.public_key(),
            contribution=unpack(parameters, length, data),
        )

    yield "contribution", Target(contribution, (pack(honest),))
    running = RunningSum.new(parameters, length)
    running.add(honest.ciphertext)
    yield "ciphertext", Target(RunningSum.new(parameters, length).add, (bytes(honest.ciphertext),))
    yield "running-sum", Target(RunningSum.from_bytes, (running.to_bytes(),))
    # The log as it is now: what follows appends to it, and a proof is for one size.
    checked = partial(
        verify_bundle_entry, plan=plan, trust=world.trust, view=world.view(), set_position=frozen.set_index
    )
    entry = _through(device_pb2.BundleEntry, checked)
    yield "bundle-entry", Target(entry, (frozen.entries(1)[0].SerializeToString(),))
    member, made = frozen.member(1), frozen.answer(1)

    def answer(message: device_pb2.AnswerRequest) -> None:
        verify_answer(
            parameters=parameters,
            plan_hash=plan.plan_hash,
            set_hash=message.set_hash,
            answer=Answer(message.index, message.vector, message.signature),
            public_key=member.key.public_key(),
        )

    sent = device_pb2.AnswerRequest(
        set_hash=frozen.set_hash, index=made.index, vector=made.vector, signature=made.signature
    )
    yield "answer", Target(_through(device_pb2.AnswerRequest, answer), (sent.SerializeToString(),))
    yield "share", Target(partial(sharing.from_bytes, parameters=parameters, what="a share"), (made.vector,))

    def sealed(data: bytes) -> None:
        open_sealed(data, member.prekey_private, b"info of no plan", parameters)

    yield "sealed-share", Target(sealed, ())

    def prekey(message: plan_pb2.Prekey) -> None:
        prekeys.verify(prekey_from_proto(message), member.key.public_key(), NOW_UNIX_S)

    honest_prekey = prekey_to_proto(member.prekey).SerializeToString()
    yield "prekey", Target(_through(plan_pb2.Prekey, prekey), (honest_prekey,))
    yield "prekey-point", Target(load_prekey, (member.prekey.public,))
    statement = sign_erasure(
        plan_hash=plan.plan_hash, cohort_id=bytes(32), member=member.device_id, sign=member.sign
    ).signature
    yield (
        "erasure-statement",
        Target(
            lambda data: verify_erasure(
                ErasureStatement(plan.plan_hash, bytes(32), member.device_id, data), member.key.public_key()
            ),
            (statement,),
        ),
    )

    def refusal(message: device_pb2.RefuseRequest) -> None:
        verify_refusal(parse(message, most=3), plan_hash=plan.plan_hash, public_key=member.key.public_key())

    refused = sign_refusal(
        plan_hash=plan.plan_hash,
        set_hash=frozen.set_hash,
        shares=[UnusableShare(device.device_id, ShareFault.DOES_NOT_OPEN) for device in world.devices[:2]],
        sign=member.sign,
    )
    said = device_pb2.RefuseRequest(
        set_hash=refused.set_hash,
        shares=[device_pb2.UnusableShare(contributor=s.contributor, fault=s.fault.value) for s in refused.shares],
        signature=refused.signature,
    )
    yield "refusal", Target(_through(device_pb2.RefuseRequest, refusal), (said.SerializeToString(),))
    cohort_id = cohort.message.cohort_id
    void_index = world.append(log_pb2.LOG_ENTRY_KIND_VOID, subject=cohort_id, digest=cohort.plan_hash)
    offer, view = cohort.offer(), world.view()

    def void(message: device_pb2.GetVoidResponse) -> None:
        verify_void_of_member(message, cohort_id=cohort_id, view=view, trust=world.trust, member=member.device_id)

    proof = device_pb2.GetVoidResponse(
        plan=offer.plan, signature=offer.signature, plan_proof=offer.plan_proof, void_proof=world.proof(void_index)
    )
    yield "void-proof", Target(_through(device_pb2.GetVoidResponse, void), (proof.SerializeToString(),))


def _files(directory: Path) -> Iterator[tuple[str, Target]]:
    """Files that a publisher, an owner or a download brings."""

    def gguf(data: bytes) -> None:
        path = directory / "model.gguf"
        path.write_bytes(data)
        with GgufFile.open(path) as file:
            for key in file.keys():  # noqa: SIM118 - a GGUF file is no mapping
                file.value(key)
            architecture = read_architecture(file)
            read_vocabulary(file, architecture.dimensions.vocabulary)

    yield "gguf", Target(gguf, (gguf_file(directory / "seed.gguf"),))
    yield "manifest", Target(Manifest.from_bytes, (manifest(),))
    package = directory / "package"
    package.mkdir(exist_ok=True)

    def open_package(data: bytes) -> None:
        (package / MANIFEST_NAME).write_bytes(data)
        ModelPackage.open(package)

    yield "package", Target(open_package, ())
    adapter = to_safetensors(initialise(LAYOUT, bytes(32)), LAYOUT)
    yield "adapter", Target(partial(from_safetensors, layout=LAYOUT), (adapter,))
    yield "adapter-layout", Target(layout_of, (adapter,))

    def rows(data: bytes, data_format: DataFormat) -> None:
        path = directory / f"rows.{data_format.value}"
        path.write_bytes(data)
        for _ in read_rows(DataSource(path, data_format)):
            pass

    chat = b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
    seeds = {
        DataFormat.PROMPT: prompt_file(),
        DataFormat.CHAT: chat,
        DataFormat.TEXT: "one passage\n\nanother é".encode(),
        DataFormat.CSV: csv_file(),
    }
    for data_format, seed in seeds.items():
        yield f"data-{data_format.value}", Target(partial(rows, data_format=data_format), (seed,))


@dataclass(frozen=True, slots=True)
class Asked:
    """In the place of whoever fetched a file of release metadata."""

    role: Role


def _release_metadata() -> Iterator[tuple[str, Target]]:
    """Files of release metadata as python-tuf reads them, and what this project makes of its refusals."""
    repository = ReleaseRepository.make(NOW_UNIX_S)
    repository.publish_root()
    repository.serve("notes", bytes(32), 1, b"adapter")

    def trusted() -> TrustedMetadataSet:
        known = TrustedMetadataSet(repository.first_root, EnvelopeType.METADATA)
        known.reference_time = datetime.fromtimestamp(NOW_UNIX_S, UTC)
        return known

    def root(data: bytes) -> None:
        with refusals(Asked(Role.ROOT)):
            trusted().update_root(data)

    def timestamp(data: bytes) -> None:
        with refusals(Asked(Role.TIMESTAMP)):
            trusted().update_timestamp(data)

    def adapters(data: bytes) -> None:
        with refusals(Asked(Role.ADAPTERS)):
            document = Metadata[Targets].from_bytes(data).signed
        if isinstance(document, Targets):
            for info in document.targets.values():
                sha256 = info.hashes.get("sha256", "")
                ServedRelease.parse("notes", info.custom, sha256=sha256, size_bytes=info.length)

    yield "metadata-root", Target(root, (repository.files["root", 2],))
    yield "metadata-timestamp", Target(timestamp, (repository.files["timestamp", 0],))
    yield "metadata-adapters", Target(adapters, (repository.files["adapters", repository.adapters.version],))


def _words() -> Iterator[tuple[str, Target]]:
    """What a person pastes, and what a program on the same machine asks."""
    world = World.make(devices=3)
    root = world.authority.root.public_bytes(serialization.Encoding.DER)
    token = JoinToken(root, "night.example:7000", "night.example:7001", bytes(range(32)))
    yield (
        "join-token",
        Target(lambda data: JoinToken.decode(data.decode("utf-8", "replace")), (token.encode().encode("ascii"),)),
    )
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stop": ["x"], "temperature": 0.5}
    yield "api-chat", Target(lambda data: chat_request(parse_object(data)), (json.dumps(chat).encode(),))
    completion = {"model": "m", "prompt": "hi", "max_tokens": 4}
    yield (
        "api-completion",
        Target(lambda data: completion_request(parse_object(data)), (json.dumps(completion).encode(),)),
    )
