"""Tells which trial owns which rows of a tensor in a shared pass, and computes what differs there.

If all members have the same number of rows, as where their batches are of one size, what
differs is computed in one operation for all: a small kernel for each member would cost a GPU more
than its arithmetic. No member's row ever meets another member's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn


class PaddingUnknown(Exception):
    """A layer with dropout can't tell how many of its tokens are padding."""


@dataclass(kw_only=True)
class RowOwners:
    """Owners of the rows of a tensor, in which each member's rows lie side by side. Layers that
    treat members differently read it."""

    owners: Sequence[tuple[int, int]] = ()
    """Members and their numbers of rows, in the order in which the rows lie."""
    lengths: dict[int, dict[int, int]] = field(default_factory=dict)
    """For each member: number of tokens in the shared batch, padding included -> number of tokens
    in the member's own batch."""
    generators: dict[int, torch.Generator] = field(default_factory=dict)
    """Random generator of each member."""
    _kept: dict[object, Tensor] = field(default_factory=dict)
    """Cached vectors of ones, by length, type and device."""

    @contextmanager
    def restrict(self, some: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Let the rows inside the block be only those of ``some`` members."""
        before, self.owners = self.owners, some
        try:
            yield
        finally:
            self.owners = before

    def rows_each(self, x: Tensor) -> int:
        """Number of rows of ``x`` for each row of the batch.

        There may be several, such as one for each patch of an image or for each head of a token;
        those of one row of the batch lie side by side.
        """
        total = sum(count for _, count in self.owners)
        assert len(x) % total == 0, f"{len(x)} rows for {total} images or questions"
        return len(x) // total

    def runs(self, key: Callable[[int], object]) -> list[list[tuple[int, int]]]:
        """Divide the owners into runs of neighbours for which ``key`` is the same."""
        return [[*some] for _, some in groupby(self.owners, key=lambda row: key(row[0]))]

    def map(
        self,
        parts: Sequence[Sequence[tuple[int, int]]],
        run: Callable[..., Any],
        *tensors: Tensor | None,
    ) -> list[Any]:
        """Call ``run`` for each part, with the part's first member and its rows of each tensor.

        Inside a call, ``owners`` are the part's. None, or a tensor that does not have a row for
        each row of ``owners``, is passed as it is.
        """
        sizes = [sum(count for _, count in some) for some in parts]
        total = sum(sizes)
        split = [
            [t] * len(parts) if t is None or len(t) != total else t.split(sizes) for t in tensors
        ]
        found = []
        for place, some in enumerate(parts):
            with self.restrict(some):
                found.append(run(some[0][0], *[part[place] for part in split]))
        return found

    @property
    def equal_counts(self) -> bool:
        """Whether all members have the same number of rows."""
        return len({count for _, count in self.owners}) == 1

    def multiply(self, x: Tensor, factors: Sequence[Tensor | None]) -> Tensor:
        """Multiply each member's rows by a vector of its own, or by nothing if it is None."""
        if not self.equal_counts:
            pairs = zip(self._split(x), factors, strict=True)
            return torch.cat([p if f is None else (p * f.flatten()).to(p.dtype) for p, f in pairs])
        like = next(factor for factor in factors if factor is not None)
        stacked = self.stack([self._ones(like) if f is None else f for f in factors], x)
        return (x.reshape(len(factors), -1, *x.shape[1:]) * stacked).view(x.shape).to(x.dtype)

    def add(self, x: Tensor, terms: Sequence[Tensor]) -> Tensor:
        """Add to each member's rows a vector of its own."""
        if not self.equal_counts:
            pairs = zip(self._split(x), terms, strict=True)
            return torch.cat([(part + term).to(part.dtype) for part, term in pairs])
        stacked = self.stack(terms, x)
        return (x.reshape(len(terms), -1, *x.shape[1:]) + stacked).view(x.shape).to(x.dtype)

    @staticmethod
    def stack(vectors: Sequence[Tensor], x: Tensor) -> Tensor:
        """Stack a vector of each of M members to shape (M, 1, ..., 1, D), to be combined with ``x``
        when its members have a dimension of their own."""
        stacked_MD = torch.stack([vector.flatten() for vector in vectors])
        return stacked_MD.view(len(vectors), *[1] * (x.ndim - 1), -1)

    def _ones(self, like: Tensor) -> Tensor:
        key = like.numel(), like.dtype, like.device
        if key not in self._kept:
            self._kept[key] = torch.ones(like.numel(), dtype=like.dtype, device=like.device)
        return self._kept[key]

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        each = self.rows_each(x)
        return torch.split(x, [each * count for _, count in self.owners])

    def dropout(self, x_BTI: Tensor, share: float, member: int) -> Tensor:
        """Apply the dropout that a member's rows have when the member is alone.

        Random numbers are drawn for the tokens of the member's own batch, not for the padding that
        other members need.

        Raises:
            PaddingUnknown: the number of tokens is not in ``lengths``, or there is no such number
                since tokens of all rows lie in one dimension.
        """
        tokens = self.lengths[member].get(x_BTI.shape[1]) if x_BTI.ndim == 3 else None
        if tokens is None:
            raise PaddingUnknown
        kept_BTI = torch.empty_like(x_BTI[:, :tokens], memory_format=torch.contiguous_format)
        kept_BTI.bernoulli_(1 - share, generator=self.generators[member]).div_(1 - share)
        return x_BTI * nn.functional.pad(kept_BTI, (0, 0, 0, x_BTI.shape[1] - tokens))
