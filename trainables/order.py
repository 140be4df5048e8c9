"""In which order a trial meets the training questions.

Epochs are shuffled, each by a permutation of its own, and each has every question once. A batch can
be made cheaper in two ways, of which a trial has one at most:

* images bring several of their questions at once: then fewer images are to be encoded, which is
  most of the work where the image encoder is trained;
* texts of like length come together: then there is less padding, which is computed as words are.
  Of some batches' worth of shuffled questions those with answers and questions of like length make
  a batch, and which batch comes first is left to chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isqrt

import torch

from trainables.models.contract import Row
from trainables.seeds import number

WINDOW = 16
"""Batches among which questions are sorted by length: two questions that are as far apart in the
shuffled order never meet for their length's sake."""


class Order:
    """An endless run of shuffled epochs."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        seed: int,
        batch_size: int = 1,
        questions_per_image: int = 1,
        by_length: bool = False,
    ) -> None:
        """``rows``: the questions. ``questions_per_image``: how many of an image's questions come
        one after another, where it has as many. ``by_length``: in batches of ``batch_size``, which
        are counted from the first epoch's begin, texts are of like length."""
        self.rows, self.seed, self.batch_size = rows, seed, batch_size
        self.questions_per_image, self.by_length = questions_per_image, by_length
        self._epochs: dict[int, list[int]] = {}

    def between(self, start: int, end: int) -> list[int]:
        """The questions that come ``start``-th to ``end``-th, the latter left out."""
        length = len(self.rows)
        return [self._epoch(i // length)[i % length] for i in range(start, end)]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may end one and begin the next
                del self._epochs[min(self._epochs)]
            generator = torch.Generator().manual_seed(number("order", self.seed, epoch))
            shuffled = torch.randperm(len(self.rows), generator=generator).tolist()
            if self.questions_per_image > 1:
                shuffled = self._gathered(shuffled)
            if self.by_length:
                # The first of them may fill up a batch that the epoch before began.
                others = -epoch * len(self.rows) % self.batch_size
                shuffled = shuffled[:others] + self._sorted(shuffled[others:], generator)
            self._epochs[epoch] = shuffled
        return self._epochs[epoch]

    def _gathered(self, shuffled: list[int]) -> list[int]:
        """Each question brings along those that come next of its image."""
        waiting: dict[int, deque[int]] = {}
        for question in shuffled:
            waiting.setdefault(self.rows[question].image, deque()).append(question)
        gathered: list[int] = []
        for question in shuffled:
            own = waiting[self.rows[question].image]
            if own and own[0] == question:  # it has not come with an earlier one
                gathered += [own.popleft() for _ in range(min(self.questions_per_image, len(own)))]
        return gathered

    def _sorted(self, shuffled: list[int], generator: torch.Generator) -> list[int]:
        """Of each window the questions sorted by their length into groups of batches, those by that
        of their answers, and the batches shuffled; what does not fill one comes last."""
        size, found = self.batch_size, list[int]()
        for start in range(0, len(shuffled), WINDOW * size):
            window = shuffled[start : start + WINDOW * size]
            whole = len(window) // size
            rest = window[whole * size :]
            window = sorted(window[: whole * size], key=lambda i: len(self.rows[i].question))
            group = size * max(isqrt(whole), 1)
            groups = [window[first : first + group] for first in range(0, len(window), group)]
            line = [i for some in groups for i in sorted(some, key=self._answer_tokens)]
            for batch in torch.randperm(whole, generator=generator).tolist():
                found += line[batch * size :][:size]
            found += rest
        return found

    def _answer_tokens(self, question: int) -> int:
        return len(self.rows[question].answer)
