"""Order in which a trial sees the training questions.

Each epoch has every question once, in a random order of its own. A batch can be made cheaper in two
ways, of which a trial uses at most one:

* Several questions about an image come at once. Then fewer images must be encoded, which is most of
  the work where the image encoder is trained.
* Texts of similar length come together. Then there is less padding, which costs as much computation
  as words do. Shuffled questions are sorted by length within windows of some batches, and cut into
  batches, whose order is random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isqrt

import torch

from trainables.model_contract import Row
from trainables.seeding import derive_seed

WINDOW = 16
"""Number of batches among which questions are sorted by length. Questions that are further apart in
the shuffled order never come together because of their lengths."""


class DataOrder:
    """An endless sequence of shuffled epochs."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        seed: int,
        batch_size: int = 1,
        questions_per_image: int = 1,
        by_length: bool = False,
    ) -> None:
        """Order ``rows``, the training questions.

        ``questions_per_image`` is the number of an image's questions that come one after another,
        if it has as many. With ``by_length``, texts are of similar length in batches of
        ``batch_size``, which are counted from the beginning of the first epoch.
        """
        self.rows, self.seed, self.batch_size = rows, seed, batch_size
        self.questions_per_image, self.by_length = questions_per_image, by_length
        self._epochs: dict[int, list[int]] = {}

    def indices(self, start: int, end: int) -> list[int]:
        """Indices of the questions from position ``start`` up to position ``end``, exclusive."""
        length = len(self.rows)
        return [self._epoch(i // length)[i % length] for i in range(start, end)]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may need two epochs
                del self._epochs[min(self._epochs)]
            generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
            shuffled = torch.randperm(len(self.rows), generator=generator).tolist()
            if self.questions_per_image > 1:
                shuffled = self._group_by_image(shuffled)
            if self.by_length:
                # The first questions may fill up a batch that the epoch before began.
                others = -epoch * len(self.rows) % self.batch_size
                shuffled = shuffled[:others] + self._sort_by_length(shuffled[others:], generator)
            self._epochs[epoch] = shuffled
        return self._epochs[epoch]

    def _group_by_image(self, shuffled: list[int]) -> list[int]:
        """Move the next questions about the same image behind each question."""
        waiting: dict[int, deque[int]] = {}
        for question in shuffled:
            waiting.setdefault(self.rows[question].image, deque()).append(question)
        gathered: list[int] = []
        for question in shuffled:
            queue = waiting[self.rows[question].image]
            if queue and queue[0] == question:  # not moved behind an earlier one
                gathered += [
                    queue.popleft() for _ in range(min(self.questions_per_image, len(queue)))
                ]
        return gathered

    def _sort_by_length(self, shuffled: list[int], generator: torch.Generator) -> list[int]:
        """Sort each window's questions by length into batches, and shuffle the batches.

        Questions are sorted by their length into groups of batches, and within a group by the
        length of their answers. Those that do not fill a batch come last in the window.
        """
        size, ordered = self.batch_size, list[int]()
        for start in range(0, len(shuffled), WINDOW * size):
            window = shuffled[start : start + WINDOW * size]
            whole = len(window) // size
            rest = window[whole * size :]
            window = sorted(window[: whole * size], key=lambda i: len(self.rows[i].question))
            group = size * max(isqrt(whole), 1)
            groups = [window[first : first + group] for first in range(0, len(window), group)]
            line = [i for some in groups for i in sorted(some, key=self._answer_tokens)]
            for batch in torch.randperm(whole, generator=generator).tolist():
                ordered += line[batch * size :][:size]
            ordered += rest
        return ordered

    def _answer_tokens(self, question: int) -> int:
        return len(self.rows[question].answer)
