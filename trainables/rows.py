"""Whose the rows of a tensor are, in a pass that several trials share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class Unclear(Exception):
    """How many of its tokens are padding is unclear to a layer with dropout."""


@dataclass(kw_only=True)
class Rows:
    """Members have their rows side by side. Layers that treat them differently look here."""

    now: Sequence[tuple[int, int]] = ()
    """Member and number of its rows, in the order in which they lie."""
    lengths: dict[int, dict[int, int]] = field(default_factory=dict)
    """Member -> number of tokens, padded for all -> number of tokens, padded for it alone."""
    generators: dict[int, torch.Generator] = field(default_factory=dict)
    """Member -> its own stream of chance."""

    @contextmanager
    def only(self, some: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Within, there are no rows but these."""
        before, self.now = self.now, some
        try:
            yield
        finally:
            self.now = before

    def dropped(self, x_BTI: Tensor, share: float, member: int) -> Tensor:
        """Dropout of a member's rows as it falls when the member is alone: chance is drawn for the
        tokens that it then has, not for the padding that others need.

        Raises:
            Unclear: a number of tokens that is not in ``lengths``.
        """
        tokens = self.lengths[member].get(x_BTI.shape[1])
        if tokens is None:
            raise Unclear
        kept_BTI = torch.empty_like(x_BTI[:, :tokens], memory_format=torch.contiguous_format)
        kept_BTI.bernoulli_(1 - share, generator=self.generators[member]).div_(1 - share)
        return x_BTI * nn.functional.pad(kept_BTI, (0, 0, 0, x_BTI.shape[1] - tokens))
