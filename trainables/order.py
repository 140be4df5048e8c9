"""In which order a trial meets the training questions.

Epochs are shuffled, each by a permutation of its own. Images may bring several of their questions
at once: a batch then has fewer images to encode, which is most of the work where the image encoder
is trained. Each epoch still has every question once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from trainables.seeds import number


class Order:
    """An endless run of shuffled epochs."""

    def __init__(self, images: Sequence[int], *, seed: int, questions_per_image: int) -> None:
        """``images``: of each question. ``questions_per_image``: how many of an image's questions
        come one after another, where it has as many."""
        self.images, self.seed = images, seed
        self.questions_per_image = questions_per_image
        self._epochs: dict[int, list[int]] = {}

    def between(self, start: int, end: int) -> list[int]:
        """The questions that come ``start``-th to ``end``-th, the latter left out."""
        length = len(self.images)
        return [self._epoch(i // length)[i % length] for i in range(start, end)]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may end one and begin the next
                del self._epochs[min(self._epochs)]
            generator = torch.Generator().manual_seed(number("order", self.seed, epoch))
            shuffled = torch.randperm(len(self.images), generator=generator).tolist()
            self._epochs[epoch] = self._gathered(shuffled)
        return self._epochs[epoch]

    def _gathered(self, shuffled: list[int]) -> list[int]:
        """Each question brings along those that come next of its image."""
        if self.questions_per_image == 1:
            return shuffled
        waiting: dict[int, deque[int]] = {}
        for question in shuffled:
            waiting.setdefault(self.images[question], deque()).append(question)
        gathered: list[int] = []
        for question in shuffled:
            own = waiting[self.images[question]]
            if own and own[0] == question:  # it has not come with an earlier one
                gathered += [own.popleft() for _ in range(min(self.questions_per_image, len(own)))]
        return gathered
