"""How a float vector becomes non-negative integers that can be added, and back.

A vector is the weighted delta, then the weight, then the metrics. All of it
travels inside the encrypted sum: nobody sees one device's loss or example count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nightshift.protocol.errors import UsageError
from nightshift.protocol.secagg import rotation as hadamard
from nightshift.protocol.secagg.errors import SumOutOfRangeError
from nightshift.protocol.secagg.parameters import (
    MAX_DEVICES,
    MAX_LENGTH,
    MAX_VALUE_BITS,
    MIN_DEVICES,
    MIN_VALUE_BITS,
)
from nightshift.protocol.secagg.sampling import Randomness, stretch

SMALLEST_CLIP = 1e-20
LARGEST_CLIP = 1e20
SMALLEST_WEIGHT = 1 / 8
FIXED_POINT_BITS = 32
WEIGHT_UNITS = 1 << 31
"""A weight of 1; weights are exact to 2^-32."""

DEFAULT_METRIC_LIMIT = float(1 << 20)
METRIC_UNITS = 1 << FIXED_POINT_BITS
MAX_METRICS = 64
_FRACTION_BITS = 16
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Encoding:
    """How values become integers of `value_bits` bits that can be added `n_max` times.

    Values are clipped to [-clip, clip], scaled to +-(2^(b-1) - 1), stochastically
    rounded, so that the expected sum is exact (Alistarh et al. 2017, section 3.1),
    and shifted by 2^(b-1). A slot has room for `n_max` of them.

    Attributes:
        clip: largest magnitude that is encoded as it is, 1e-20..1e20 (float32 has room to scale it).
        value_bits: b, 8..16.
        n_max: most vectors that are added, 3..512.

    Raises:
        UsageError: an attribute is outside its range.
    """

    clip: float
    value_bits: int
    n_max: int

    def __post_init__(self) -> None:
        if not SMALLEST_CLIP <= self.clip <= LARGEST_CLIP:
            raise UsageError(f"clip must lie in {SMALLEST_CLIP:g}..{LARGEST_CLIP:g}, got {self.clip!r}")
        if not MIN_VALUE_BITS <= self.value_bits <= MAX_VALUE_BITS:
            raise UsageError(f"value_bits must be {MIN_VALUE_BITS} to {MAX_VALUE_BITS}, got {self.value_bits!r}")
        if not MIN_DEVICES <= self.n_max <= MAX_DEVICES:
            raise UsageError(f"n_max must be {MIN_DEVICES} to {MAX_DEVICES}, got {self.n_max!r}")

    @property
    def largest(self) -> int:
        """The integer of a value at the clip, before the offset: 2^(b-1) - 1."""
        return (1 << (self.value_bits - 1)) - 1

    @property
    def offset(self) -> int:
        """What makes integers non-negative: 2^(b-1)."""
        return 1 << (self.value_bits - 1)

    @property
    def step(self) -> float:
        """The float that one integer step stands for."""
        return self.clip / self.largest

    def encode(self, values: npt.NDArray[np.float32], randomness: Randomness) -> npt.NDArray[np.uint64]:
        """Encode float32[D] as uint64[D], each in 1..2^b - 1.

        A value is first written in 2^-16 of a step (exact for the b <= 16 bits that
        a float32 can carry there), then a uniform fraction is added and the sum
        floored, all in integers, so that the expectation is exact.

        Raises:
            UsageError: a value is NaN or infinite.
        """
        out = np.empty(len(values), dtype=np.uint64)
        self.encode_into(out, values, randomness)
        return out

    def encode_into(self, out: npt.NDArray[np.uint64], values: npt.NDArray[np.float32], randomness: Randomness) -> None:
        """`encode` into uint64[D] that is there already.

        Raises:
            UsageError: a value is NaN or infinite.
        """
        stream = stretch(randomness)
        scale = np.float32((1 << _FRACTION_BITS) / self.step)
        limit = np.float32(self.largest << _FRACTION_BITS)  # below 2^31 with room for the fraction
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK].astype(np.float32, copy=False)
            if not np.isfinite(part).all():
                raise UsageError(
                    "a vector to encode holds NaN or infinity; the training step that made it must be dropped"
                )
            # Clipped before it is scaled, so that nothing overflows, and after, because float32 rounds.
            scaled = np.clip(part, -self.clip, self.clip, dtype=np.float32)
            scaled *= scale
            np.clip(scaled, -limit, limit, out=scaled)
            fractions = np.rint(scaled, out=scaled).astype(np.int32)
            fractions += stream.take(2 * len(part)).view("<u2")
            fractions >>= _FRACTION_BITS
            fractions += self.offset
            out[start : start + _CHUNK] = fractions

    def decode_sum(self, opened: npt.NDArray[np.uint64], contributors: int) -> npt.NDArray[np.float32]:
        """Decode a sum of `contributors` encoded vectors: uint64[D] -> float32[D].

        A sum has at most 25 bits, so rounding to float32 takes less than a step of one contributor.

        Raises:
            UsageError: `contributors` is not in 1..n_max.
            SumOutOfRangeError: a sum that no honest contributors add up to.
        """
        self._check_count(contributors)
        out = np.empty(len(opened), dtype=np.float32)
        for start in range(0, len(opened), _CHUNK):
            # Unsigned, so that what is too small wraps to something that is too large.
            part = opened[start : start + _CHUNK] - np.uint64(contributors)
            if int(part.max()) > contributors * (2 * self.offset - 2):
                raise SumOutOfRangeError(
                    f"a value of the opened sum is outside what {contributors} contributors can add up to; "
                    "one of them sent a value outside its range, the sum is not used"
                )
            signed = part.view(np.int64)
            signed -= contributors * (self.offset - 1)
            np.multiply(signed, self.step, out=out[start : start + _CHUNK], casting="same_kind")
        return out

    def _check_count(self, contributors: int) -> None:
        if not 1 <= contributors <= self.n_max:
            raise UsageError(f"a sum has 1 to {self.n_max} contributors, got {contributors}")


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """What an opened cohort says, and all that it says.

    Attributes:
        weighted_delta: float32[D], the sum of weight * delta. Divide by `weight` for the weighted mean.
        weight: the sum of the weights.
        metrics: name -> the plain sum over contributors (not weighted); divide by `contributors`
            for the mean, or one metric's sum by another's (loss by tokens).
        contributors: |U|.
    """

    weighted_delta: npt.NDArray[np.float32]
    weight: float
    metrics: dict[str, float]
    contributors: int


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """The order of a vector: D delta values, the weight, the metrics.

    Weight and metrics are 32-bit fixed point, cut into ceil(32/b) limbs of b bits,
    lowest first, one slot each, without offset. A limb is below 2^b, so `n_max`
    of them fit a slot, as values do: no sum can carry into its neighbour.

    Attributes:
        delta_length: D, at least 1.
        metrics: names, distinct, in the order in which they travel.
        encoding: of the delta values.
        metric_limits: largest value of each metric, in the same order; the resolution is
            limit / 2^32. Empty stands for 2^20 for all (resolution 0.00025).
        rotation: 32 bytes from `rotation.rotation_seed`, or None. With it the delta is rotated before
            it is clipped, so that few large values do not decide the step of all; the
            encoding's clip then holds for rotated values, see `rotation.rotated_clip`.

    Raises:
        UsageError: an attribute is outside its range; the message says which.
    """

    delta_length: int
    metrics: tuple[str, ...]
    encoding: Encoding
    metric_limits: tuple[float, ...] = field(default=())
    rotation: bytes | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.delta_length <= MAX_LENGTH - (1 + MAX_METRICS) * self.limbs:
            raise UsageError(f"delta_length must be at least 1 and below 2^31, got {self.delta_length!r}")
        if len(self.metrics) > MAX_METRICS or len(set(self.metrics)) != len(self.metrics):
            raise UsageError(f"metrics must be at most {MAX_METRICS} distinct names, got {self.metrics!r}")
        if self.metric_limits and len(self.metric_limits) != len(self.metrics):
            raise UsageError(
                f"metric_limits must be empty or one for each of {len(self.metrics)} metrics, "
                f"got {len(self.metric_limits)}"
            )
        for limit in self.metric_limits:
            if not (math.isfinite(limit) and limit > 0):
                raise UsageError(f"a metric's limit must be a finite number above 0, got {limit!r}")
        if self.rotation is not None and len(self.rotation) != hadamard.SEED_BYTES:
            raise UsageError(f"a rotation seed has {hadamard.SEED_BYTES} bytes, got {len(self.rotation)}")

    @property
    def limbs(self) -> int:
        """Slots of one fixed-point number: ceil(32 / b)."""
        return -(-FIXED_POINT_BITS // self.encoding.value_bits)

    @property
    def length(self) -> int:
        """Values in the vector."""
        return self.delta_length + self.limbs * (1 + len(self.metrics))

    @property
    def limits(self) -> tuple[float, ...]:
        """The largest value of each metric."""
        return self.metric_limits or (DEFAULT_METRIC_LIMIT,) * len(self.metrics)

    def encode(
        self,
        delta: npt.NDArray[np.float32],
        weight: float,
        metrics: Mapping[str, float],
        randomness: Randomness,
    ) -> npt.NDArray[np.uint64]:
        """Encode one device's night: uint64[length].

        Args:
            delta: float32[D], not yet weighted; weight * delta is what travels.
            weight: 1/8..1, this device's share relative to the largest allowed.
            metrics: exactly the layout's names; each value in 0..its limit, stochastically rounded.
            randomness: for the rounding.

        Raises:
            UsageError: wrong length or names, a number outside its range, NaN or infinity.
        """
        if delta.shape != (self.delta_length,):
            raise UsageError(f"the delta has shape {delta.shape}, expected ({self.delta_length},)")
        if not SMALLEST_WEIGHT <= weight <= 1:
            raise UsageError(f"a weight lies in [{SMALLEST_WEIGHT}, 1], got {weight!r}")
        if set(metrics) != set(self.metrics):
            raise UsageError(f"expected the metrics {sorted(self.metrics)}, got {sorted(metrics)}")
        numbers = [round(weight * WEIGHT_UNITS)]
        dither = stretch(randomness)
        for name, limit in zip(self.metrics, self.limits, strict=True):
            value = float(metrics[name])
            if not 0 <= value <= limit:
                raise UsageError(f"metric {name!r} must lie in 0..{limit:g}, got {value!r}")
            fraction = int.from_bytes(dither.take(4).tobytes(), "little") / 2**32
            numbers.append(min(METRIC_UNITS - 1, math.floor(value / limit * METRIC_UNITS + fraction)))
        out = np.empty(self.length, dtype=np.uint64)
        weighted = np.float32(weight) * delta
        if self.rotation is not None:
            weighted = hadamard.rotate(weighted, self.rotation)
        self.encoding.encode_into(out[: self.delta_length], weighted, randomness)
        mask = (1 << self.encoding.value_bits) - 1
        out[self.delta_length :] = [
            number >> (self.encoding.value_bits * limb) & mask for number in numbers for limb in range(self.limbs)
        ]
        return out

    def decode_sum(self, opened: npt.NDArray[np.uint64], contributors: int) -> OpenedSum:
        """Decode the sum of `contributors` vectors: uint64[length].

        Raises:
            UsageError: wrong length, or `contributors` not in 1..n_max.
            SumOutOfRangeError: sums that no honest contributors add up to.
        """
        if opened.shape != (self.length,):
            raise UsageError(f"the opened vector has shape {opened.shape}, expected ({self.length},)")
        delta = self.encoding.decode_sum(opened[: self.delta_length], contributors)
        if self.rotation is not None:
            delta = hadamard.rotate_back(delta, self.rotation)
        limbs = opened[self.delta_length :].reshape(1 + len(self.metrics), self.limbs)
        totals = [
            sum(int(limb) << (self.encoding.value_bits * position) for position, limb in enumerate(number))
            for number in limbs
        ]
        weight = totals[0] / WEIGHT_UNITS
        if not SMALLEST_WEIGHT * contributors <= weight <= contributors or any(
            total >= contributors * METRIC_UNITS for total in totals[1:]
        ):
            raise SumOutOfRangeError(
                f"the weight or a metric of the opened sum is outside what {contributors} contributors "
                "can add up to; one of them sent a value outside its range, the sum is not used"
            )
        return OpenedSum(
            weighted_delta=delta,
            weight=weight,
            metrics={
                name: total * limit / METRIC_UNITS
                for name, total, limit in zip(self.metrics, totals[1:], self.limits, strict=True)
            },
            contributors=contributors,
        )
