"""Questions of a workload about images that do not belong to them: how much of a score is language.

A model that scores as well without its image has not looked at it (Goyal et al. 2017, "Making the V
in VQA matter", arXiv 1612.00837).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from trainables.workload import Workload

GREY = 128
"""Value of all pixels of a blank image, of 255."""
BLANK, SWAPPED = "blank", "swapped"
BLIND = (BLANK, SWAPPED)
"""Names of the two ways: a blank image, and the image of another patient (or another image, where
patients are not known)."""


def blind(workload: Workload, way: str, split: str) -> Workload:
    """The workload whose questions of ``split`` are asked of other images, by one of the two ways.
    Other splits are left out.

    Which image replaces another depends only on the ids of the split's images and patients. If all
    are of one patient, images stay as they are.
    """
    rows, examples = workload.rows[split], workload.dataset.splits()[split]
    if way == BLANK:
        size = workload.images_NSSC.shape[1:]
        changed = tuple(replace(row, image=0) for row in rows)
        return replace(
            workload, images_NSSC=np.full((1, *size), GREY, np.uint8), rows={split: changed}
        )
    images = {row.image: example.unit for row, example in zip(rows, examples, strict=True)}
    order = sorted(images, key=lambda i: hashlib.sha256(f"{images[i]}:{i}".encode()).digest())
    # The images of a patient are side by side, so that the next ones are of others.
    order.sort(key=lambda i: hashlib.sha256(images[i].encode()).digest())
    other = {}
    for place, image in enumerate(order):
        following = (i for i in order[place + 1 :] + order[:place] if images[i] != images[image])
        other[image] = next(following, image)
    changed = tuple(replace(row, image=other[row.image]) for row in rows)
    return replace(workload, rows={split: changed})
