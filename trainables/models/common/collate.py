"""Turns rows into padded tensors, the same way for all families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.model_contract import Batch, Row
from trainables.models.common import clip


def collate(
    rows: Sequence[Row],
    images_NSSC: NDArray[np.uint8] | None,
    *,
    pad: int,
    question_padding: Literal["left", "right"],
    pixels: Callable[[NDArray[np.uint8] | None], Tensor] = clip.pixels,
) -> Batch:
    """Make a batch of rows, as a model's ``collate`` does; ``pixels`` normalises the images.

    Questions are padded on the side ``question_padding``, answers on the right. Masks follow from
    lengths, so ``pad`` may also be the token of a word. The arguments and the result are those of
    ``trainables.model_contract.Model.collate``.
    """
    used, image_B = np.unique([row.image for row in rows], return_inverse=True)
    question_BQ, question_mask_BQ = _padded([row.question for row in rows], pad, question_padding)
    answer_BA, answer_mask_BA = _padded([row.answer for row in rows], pad, "right")
    return Batch(
        pixels_UCSS=pixels(None if images_NSSC is None else images_NSSC[used]),
        image_B=torch.from_numpy(image_B),
        question_BQ=question_BQ,
        question_mask_BQ=question_mask_BQ,
        answer_BA=answer_BA,
        answer_mask_BA=answer_mask_BA,
    )


def _padded(tokens: Sequence[Sequence[int]], pad: int, side: str) -> tuple[Tensor, Tensor]:
    """Pad token lists to the longest of them, and make their mask."""
    longest = max(map(len, tokens))
    padded, mask = np.full((len(tokens), longest), pad), np.zeros((len(tokens), longest), np.int64)
    for row, words in enumerate(tokens):
        place = slice(0, len(words)) if side == "right" else slice(longest - len(words), longest)
        padded[row, place], mask[row, place] = words, 1
    return torch.from_numpy(padded), torch.from_numpy(mask)
