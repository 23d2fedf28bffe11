"""Releases of the real small model, signed and logged in a test's world, with adapters that can be fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Target, initialise
from nightshift.protocol.adapters.formats import to_safetensors
from nightshift.protocol.decision import DecisionKind, VerifiedDecision, verify_decision
from nightshift.protocol.plan import layout_to_proto
from nightshift.protocol.release import VerifiedRelease, verify_release
from nightshift.v1 import device_pb2, release_pb2
from tests.support.plans import Publication, World

LAYOUT = AdapterLayout(layers=5, targets=(Target("q_proj", 64, 64),), rank=2, alpha=4.0)


def adapter_bytes(seed: int, layout: AdapterLayout = LAYOUT) -> bytes:
    return to_safetensors(initialise(layout, bytes([seed]) * 32), layout)


@dataclass
class Library:
    """Serves files by their hash, or something else under it."""

    files: dict[bytes, bytes] = field(default_factory=dict)

    def put(self, data: bytes, *, under: bytes | None = None) -> bytes:
        name = under or hashlib.sha256(data).digest()
        self.files[name] = data
        return name

    def __call__(self, request: device_pb2.FetchArtefactRequest) -> Iterator[device_pb2.FetchArtefactResponse]:
        data = self.files[request.sha256]
        yield device_pb2.FetchArtefactResponse(size_bytes=len(data), data=data[request.offset :])


@dataclass
class Publisher:
    """A world whose releases belong to the real small model."""

    world: World
    library: Library
    package: ModelPackage

    def release(
        self,
        number: int,
        data: bytes,
        *,
        layout: AdapterLayout = LAYOUT,
        sha256: bytes | None = None,
        edit: Callable[[release_pb2.Release], object] | None = None,
    ) -> VerifiedRelease:
        name = self.library.put(data, under=sha256)

        def fill(release: release_pb2.Release) -> None:
            release.base_model = self.package.package_id
            release.layout.CopyFrom(layout_to_proto(layout))
            release.adapter_sha256 = name
            release.adapter_size_bytes = len(data)
            if edit is not None:
                edit(release)

        made = self.world.publish(number=number, parent=b"p" * 32 if number else b"", edit=fill)
        return verify_release(made.offer(), view=self.world.view(), trust=self.world.trust)

    def decision(
        self, served: VerifiedRelease, *, number: int = 1, kind: DecisionKind = DecisionKind.UNGATED
    ) -> VerifiedDecision:
        """A logged decision that a release is served."""
        made = self.world.decide(Publication(self.world, served.release_bytes, b"", 0), number=number, kind=kind)
        return verify_decision(made.offer(), view=self.world.view(), trust=self.world.trust)
