"""Where the bits of a ciphertext's coefficients stand: 64-bit words without a bit to waste.

A coefficient has Q bits, so s = 64 - Q bits of a word that holds one are spare, and
the spare bits of m = ceil(Q / s) words hold one coefficient more: m + 1 coefficients
travel in m words. With t = ceil(T / (m + 1)),

* coefficient c < m t is in the low Q bits of word c;
* bits s i .. s (i + 1) of coefficient m t + g are in the upper s bits of word i t + g.

Why not one run of bits, which would be two per cent shorter at worst: a ciphertext in
this form is added to a running sum by one addition and one shifted addition of whole
words (`running_sum`), and that is where a coordinator spends its time. What the low
parts carry out into the spare bits does no harm, since sums are wanted modulo 2^Q.

No numpy here: sizes are needed where nothing is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

WORD_BITS = 64
WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class WordLayout:
    """The layout of some coefficients.

    Attributes:
        bits: Q, 1..64.
        coefficients: T, at least m (m + 1), so that no word is without a coefficient; 4096 are always enough.

    Raises:
        ValueError: an attribute is outside its range.
    """

    bits: int
    coefficients: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= WORD_BITS:
            raise ValueError(f"a coefficient has 1 to {WORD_BITS} bits, got {self.bits}")
        if self.coefficients < self.pieces * (self.pieces + 1):
            raise ValueError(f"{self.coefficients} coefficients of {self.bits} bits leave words empty")

    @property
    def spare_bits(self) -> int:
        """s: bits of a word above the coefficient that it holds."""
        return WORD_BITS - self.bits

    @property
    def pieces(self) -> int:
        """m: pieces of s bits or fewer in which a coefficient of the tail travels; 0 if there is no spare bit."""
        return -(-self.bits // self.spare_bits) if self.spare_bits else 0

    @property
    def tail(self) -> int:
        """t: places for coefficients, the last ones, in spare bits; up to m places stay zero."""
        return -(-self.coefficients // (self.pieces + 1)) if self.pieces else 0

    @property
    def words(self) -> int:
        """Words of a ciphertext."""
        return self.pieces * self.tail if self.pieces else self.coefficients

    @property
    def size_bytes(self) -> int:
        """Bytes of a ciphertext."""
        return WORD_BYTES * self.words
