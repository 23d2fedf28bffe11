"""One night of real devices, and a search for what must never leave them, through every moment of it.

A device's delta is known to the test to the bit (its training directory and
debug.keep_encoded_vector), so that it can be looked for in every form in which a
mistake could send it: as floats, as encoded integers, as the packed plaintext
before and after the shift by the noise bits. The same for a phrase that stands in
every line of every device's private text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_client.data.tokenizer import Tokenizer
from nightshift.host import failpoints
from nightshift.host.tokens import JoinToken
from nightshift.protocol.adapters.formats import from_safetensors
from nightshift.protocol.plan import PlanDocument
from nightshift.protocol.secagg import packing
from nightshift.protocol.secagg.rotation import rotate
from nightshift.protocol.secagg.words import WordLayout
from scripts.night.fleet import Device, Finished
from tests.support.fleets import (
    ROWS_PER_DEVICE,
    SIGKILLED,
    TASK,
    Fleet,
    Snapshots,
    encoded,
    found,
    join,
    task_toml,
    wait_until,
)
from tests.support.leaks import WINDOW_BYTES, Needles, files_below
from tests.support.traffic import Recorder

pytestmark = pytest.mark.slow

PHRASE = "zebra quartz 7391 vex jumbo fjord: "


@dataclass(frozen=True)
class Secret:
    """What one device would give away.

    Attributes:
        plan: of the round.
        delta: float32[D], what its training changed.
        weight: of the device in the sum.
        codes: uint64[D], the encoded, rotated, weighted delta.
        vector: uint64[length], all that was encrypted.
        body: the encrypted contribution, journaled on the device.
    """

    plan: PlanDocument
    delta: NDArray[np.float32]
    weight: float
    codes: NDArray[np.uint64]
    vector: NDArray[np.uint64]
    body: bytes

    @classmethod
    def of(cls, device: Device, fleet: Fleet) -> Secret:
        """Read it from a device that was killed right after it journaled its contribution."""
        cohort = fleet.cohort()
        plan = PlanDocument.parse(cohort["plan"])
        (training,) = (device.home / "training").iterdir()
        parent, trained = (
            from_safetensors((training / f"{name}.safetensors").read_bytes(), plan.layout)
            for name in ("parent", "trained")
        )
        vector = encoded(device, cohort["cohort_id"].hex())
        (body,) = (device.home / "uploads").iterdir()
        limbs = vector[plan.vector.delta_length :][: plan.vector.limbs]
        weight = sum(int(limb) << (plan.vector.encoding.value_bits * place) for place, limb in enumerate(limbs))
        return cls(
            plan,
            plan.layout.delta(trained, parent, plan.side),
            weight / 2**31,
            vector[: plan.vector.delta_length],
            vector,
            body.read_bytes(),
        )

    def rotated(self) -> NDArray[np.float32]:
        """What is clipped and rounded: float32[D]."""
        assert self.plan.vector.rotation is not None, "a task rotates unless it says otherwise"
        return rotate(np.float32(self.weight) * self.delta, self.plan.vector.rotation)

    def forms(self) -> dict[str, bytes]:
        """Name -> bytes, of every form in which it could be found."""
        weighted = np.float32(self.weight) * self.delta
        rotated = self.rotated()
        signed = self.codes.astype(np.int64) - self.plan.vector.encoding.offset
        forms = {}
        for order in "<>":
            for name, floats in (("delta", self.delta), ("weighted delta", weighted), ("rotated delta", rotated)):
                for width in (2, 4, 8):
                    forms[f"{name} {order}f{width}"] = floats.astype(f"{order}f{width}").tobytes()
            for width in (2, 4, 8):
                forms[f"codes {order}u{width}"] = self.codes.astype(f"{order}u{width}").tobytes()
                forms[f"signed codes {order}i{width}"] = signed.astype(f"{order}i{width}").tobytes()
        return forms | self._plaintexts()

    def _plaintexts(self) -> dict[str, bytes]:
        """The polynomials M and 2^noise_bits M: as words, and packed as a ciphertext is."""
        parameters = self.plan.parameters
        per = parameters.values_per_coefficient
        polynomials = parameters.polynomials(len(self.vector))
        slots = np.zeros(polynomials * 4096 * per, dtype=np.uint64)
        slots[: len(self.vector)] = self.vector
        places = np.uint64(parameters.slot_bits) * np.arange(per, dtype=np.uint64)
        message = np.bitwise_or.reduce(slots.reshape(polynomials, 4096, per) << places, axis=-1)
        shifted = message << np.uint64(parameters.noise_bits)
        return {
            "plaintext words": message.astype("<u8").tobytes(),
            "plaintext packed": packing.pack(message.reshape(-1), WordLayout(per * parameters.slot_bits, message.size)),
            "shifted plaintext words": shifted.astype("<u8").tobytes(),
            "shifted plaintext packed": packing.pack(shifted.reshape(-1), parameters.words(len(self.vector))),
        }


@dataclass
class Night:
    """Three devices that reach their coordinator through a recorder, and all that their commands printed."""

    fleet: Fleet
    recorder: Recorder
    printed: list[Finished]

    def run(self, device: Device, failpoint: str = "") -> Finished:
        """One pass, to its end or to a failpoint."""
        if failpoint:
            done = device.run(expect=SIGKILLED, **{failpoints.ENVIRONMENT_VARIABLE: failpoint})
        else:
            done = device.run()
        self.printed.append(done)
        return done

    def tell_people(self, device: Device) -> None:
        """What a person may read aloud or attach to a bug report."""
        for command in (("status",), ("ledger",), ("doctor",), ("bugreport", "--network"), ("config", "show")):
            self.printed.append(device.command(*command, expect=None))

    def lose_power_in_the_upload(self, device: Device) -> None:
        """Die in the middle of sending, again and again, until the coordinator holds a part.

        A death takes what gRPC had not yet given to the kernel with it, so that one death may leave nothing.
        """
        for _ in range(10):
            self.run(device, "device.upload.partial")
            try:
                wait_until(lambda: bool(parts_of_uploads(self.fleet)), limit_s=5)
            except AssertionError:
                continue
            return
        pytest.fail("ten deaths in the middle of an upload left nothing of it at the coordinator")

    def places(self, *others: Device) -> Iterator[tuple[str, bytes]]:
        """All that the coordinator holds (rows, write-ahead log, objects, keys, log), the traffic, what was printed.

        Args:
            others: devices whose homes are looked through as well, but for their own text.
        """
        yield from files_below([self.fleet.coordinator.directory])
        texts = [device.home / "commands.jsonl" for device in others]
        yield from files_below([device.home for device in others], leaving_out=texts)
        for number, stream in enumerate(self.recorder.recorded()):
            yield f"traffic {number}", stream
        for done in self.printed:
            yield "printed", (done.stdout + done.stderr).encode()


@pytest.fixture
def night(snapshots: Snapshots, tmp_path: Path) -> Iterator[Night]:
    """Everybody joined through the recorder, with the phrase in every line of text; round 1 is open."""
    fleet, word = found(tmp_path / "fleet", snapshots.package(), devices=3, task=task_toml(3, 3))
    coordinator = fleet.coordinator
    with ExitStack() as stack:
        recording = Recorder(coordinator.directory, fleet.directory, coordinator.ports).recording()
        recorder = stack.enter_context(recording)
        device_address, join_address = (f"127.0.0.1:{port}" for port in recorder.ports)
        # Else the devices would follow the coordinator to where it is, past the recorder.
        public = {"DEVICE": device_address, "JOIN": join_address}
        named = {f"NIGHTSHIFT_COORDINATOR_LISTEN_PUBLIC_{kind}_ADDRESS": there for kind, there in public.items()}
        stack.enter_context(fleet.serving(**named))
        token = JoinToken.decode(word)
        detour = JoinToken(token.root_der, join_address, device_address, token.secret)
        for number in (1, 2, 3):
            device = Device(fleet.directory / f"device{number}", coordinator.environment)
            join(device, detour.encode(), first=ROWS_PER_DEVICE * number, marked=PHRASE)
            device.command("model", "pull", TASK)
        fleet.open_round()
        yield Night(Fleet.at(fleet.directory), recorder, [])


def test_nothing_of_a_device_is_anywhere_in_the_clear(night: Night) -> None:
    """Tries: to find one device's delta, or any line of its text, in the middle of its upload, after it, when the
    set is frozen, and when the sum is open; in rows, objects, logs, the other devices' homes and inside the TLS.

    What stops it: encryption before the journal (edge_client/agent/contribution.py), and shares
    of which no member alone learns anything (nightshift/protocol/secagg/sharing.py).
    Controls: the search finds every form where it is planted, finds the *encrypted*
    bytes both in the traffic and at the coordinator, and finds the text in the text file.
    """
    fleet, (first, *others) = night.fleet, night.fleet.devices
    night.run(first, "device.encrypted")
    secret = Secret.of(first, fleet)
    step = secret.plan.vector.encoding.step
    decoded = (secret.codes.astype(np.int64) - secret.plan.vector.encoding.offset) * step
    assert np.abs(decoded - secret.rotated()).max() < 1.01 * step, "this is not what was sent"
    needles = Needles.of(secret.forms())
    see_that_the_search_works(needles, secret)
    text = phrase_forms(fleet)
    ciphertext = Needles.of({"ciphertext": secret.body})

    def see_nothing() -> None:
        for place, content in night.places(*others):
            assert not needles.names_in(content), place
        for place, content in night.places(first, *others):
            assert not [name for name, form in text.items() if form in content], place

    see_nothing()
    night.lose_power_in_the_upload(first)
    night.tell_people(first)
    assert ciphertext.names_in(b"".join(parts_of_uploads(fleet)))
    see_nothing()
    night.run(first)
    assert fleet.cohort()["counted"] == 1
    holders = {place for place, content in night.places() if ciphertext.names_in(content)}
    assert any(place.startswith("traffic") for place in holders), "the recorder does not see inside the TLS"
    assert any("/running/" in place for place in holders), "the coordinator's objects were not looked at"
    see_nothing()
    for device in others:
        night.run(device)
    assert fleet.cohort()["state"] == "frozen"
    see_nothing()
    for device in fleet.devices:
        night.run(device)
    assert fleet.releases() == [0, 1]
    assert fleet.sum_is_exact(fleet.devices)
    night.tell_people(first)
    see_nothing()
    # The last control: planted where the coordinator keeps what it opened, it is found.
    opened = next((fleet.coordinator.directory / "objects" / "sums").iterdir())
    opened.write_bytes(opened.read_bytes() + secret.codes.astype("<u8").tobytes())
    assert {place for place, content in night.places() if needles.names_in(content)} == {str(opened)}


def parts_of_uploads(fleet: Fleet) -> list[bytes]:
    """What the coordinator holds of uploads that are not complete."""
    return [path.read_bytes() for path in (fleet.coordinator.directory / "objects").glob("cohorts/*/uploads/*/*")]


def see_that_the_search_works(needles: Needles, secret: Secret) -> None:
    """Find every form, of which a piece is planted at an odd place between random bytes."""
    generator = np.random.default_rng(7)
    for name, form in secret.forms().items():
        start = int(generator.integers(0, len(form) - 3 * WINDOW_BYTES))
        # Long enough to hold values that differ: some parts of a delta are all zero.
        piece = form[start : start + 4096]
        noise = generator.bytes(100_000)
        assert not needles.names_in(noise)
        assert name in needles.names_in(noise[:50_001] + piece + noise[50_001:]), name


def phrase_forms(fleet: Fleet) -> dict[str, bytes]:
    """The phrase as text, and as the tokens that the model would see, in several widths."""
    (package,) = (fleet.devices[0].home / "cache" / "packages").iterdir()
    tokens = Tokenizer(package / "tokenizer.json", bos=None, eos=None, add_bos=False).encode(PHRASE)[1:-2]
    assert len(tokens) >= 8, "too few tokens to tell them from chance"
    forms = {"utf-8": PHRASE.encode(), "utf-16": PHRASE.encode("utf-16-le")}
    forms |= {f"tokens {width}": np.array(tokens, dtype=width).tobytes() for width in ("<u2", "<i4", "<i8")}
    text = (fleet.devices[0].home / "commands.jsonl").read_bytes()
    assert forms["utf-8"] in text, "the phrase is not in the private text"
    return forms
