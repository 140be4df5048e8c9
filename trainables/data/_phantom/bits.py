"""Random numbers that are the same on every machine and with every version of NumPy.

NumPy promises that the raw bits of a bit generator stay the same, but doesn't promise it for
distributions (NEP 19). Everything random in the phantoms is therefore made from raw bits, by
integer and exactly rounded arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Bits:
    """A stream of random bits, with the few distributions that the phantoms need."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def below(self, n: int) -> int:
        """A random integer from 0 to n - 1; its bias, n / 2**64, is negligible."""
        return int(self._source.random_raw()) % n

    def between(self, low: float, high: float) -> float:
        """A random float from [low, high)."""
        return low + (high - low) * ((int(self._source.random_raw()) >> 11) / 2**53)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher-Yates shuffle)."""
        shuffled = list(items)
        for last in range(len(shuffled) - 1, 0, -1):
            other = self.below(last + 1)
            shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
        return shuffled

    def noise(self, height: int, width: int) -> NDArray[np.float64]:
        """Nearly normal noise of mean 0 and standard deviation 1, shape (height, width).

        Each value is the sum of the four lowest bytes of 64 random bits, centred and scaled.
        """
        raw = self._source.random_raw(height * width)
        total = np.zeros(height * width, dtype=np.int64)
        for shift in (0, 8, 16, 24):
            total = total + ((raw >> np.uint64(shift)) & np.uint64(255)).astype(np.int64)
        return ((total - 510) / 147.8).reshape(height, width)


class Deck(Generic[T]):
    """Draws options in random order, all of them once before any of them again."""

    def __init__(self, bits: Bits, options: Sequence[T]) -> None:
        self._bits = bits
        self._options = tuple(options)
        self._left: list[T] = []

    def draw(self) -> T:
        """Draw the next option."""
        if not self._left:
            self._left = self._bits.shuffled(self._options)
        return self._left.pop()
