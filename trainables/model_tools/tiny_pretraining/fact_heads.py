"""Linear heads that ask the image encoder for facts of a picture while the model is pretrained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainables.model_tools.tiny_pretraining.network import PATCH_PX
from trainables.model_tools.tiny_pretraining.pictures import Picture
from trainables.model_tools.tiny_pretraining.shapes import SIDE_PX
from trainables.model_tools.tiny_pretraining.topics import NUMBERS, TOPICS


class FactHeads(nn.Module):
    """Linear heads on the image tokens: every fact of a picture, and a coarse map of its parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(topic.values) for topic in TOPICS.values()] + [len(NUMBERS)]
        self.of_picture = nn.Linear(width, sum(self.sizes))
        self.of_patch = nn.Linear(width, 2 * (PATCH_PX // 4) ** 2)

    def forward(self, image_UTD: Tensor, pictures: Sequence[Picture]) -> Tensor:
        """Mean loss of all heads. Tokens T are the class token and then the patches, row by row."""
        logits = self.of_picture(image_UTD.mean(1)).float().split(self.sizes, dim=1)
        losses = [
            nn.functional.cross_entropy(logit, targets, ignore_index=-100)
            for logit, targets in zip(logits, _targets(pictures).T, strict=True)
            if (targets >= 0).any()
        ]
        layouts = torch.from_numpy(np.stack([picture.layout for picture in pictures]))
        side = SIDE_PX // PATCH_PX  # patches a side; each holds 4 by 4 cells of the two maps
        cells = layouts.view(-1, 2, side, 4, side, 4).permute(0, 2, 4, 1, 3, 5)
        map_loss = nn.functional.binary_cross_entropy_with_logits(
            self.of_patch(image_UTD[:, 1:]).float(), cells.reshape(len(pictures), side * side, -1)
        )
        return torch.stack(losses).mean() + 2 * map_loss


def _targets(pictures: Sequence[Picture]) -> Tensor:
    """Index of each fact's value, -100 where it has none; shape (U, topics + 1).

    The last column is the number of spots.
    """
    rows = []
    for picture in pictures:
        facts = vars(picture.facts)
        values = [(topic.values, facts[name]) for name, topic in TOPICS.items()]
        rows.append([v.index(fact) if fact in v else -100 for v, fact in values])
        rows[-1].append(picture.facts.spots)
    return torch.tensor(rows)
