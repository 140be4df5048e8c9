"""Does a model look? Its accuracy with the images that were asked about, and with others'.

    python -m tests.benchmarks.other_images --model DIR --data vqa_rad --data-root DATA

In the second run every question gets another image of its split. What is lost is what the image
told.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from trainables.measures.common.baselines import majority_baseline
from trainables.measures.common.scores import score
from trainables.training.frozen_features import Features
from trainables.workload import Workload, WorkloadConfig

BATCH = 128
PARTS = ("overall", "open", "closed")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--data-root")
    given = parser.parse_args()
    torch.set_num_threads(1)
    workload = Workload.load(
        WorkloadConfig(model=given.model, data=given.data, data_root=given.data_root)
    )
    features = Features(workload, precision="fp32")
    for split in ("validation", "test"):
        examples = workload.dataset.splits()[split]
        rows = {
            "their own images": score(examples, answers(workload, features, split, shifted=False)),
            "others' images": score(examples, answers(workload, features, split, shifted=True)),
            "most frequent answers": majority_baseline(workload.dataset.train, examples),
        }
        for name, found in rows.items():
            percent = "  ".join(f"{part} {found[part]:5.1f}" for part in PARTS)
            print(f"{split:<11} {name:<22} {percent}", flush=True)


@torch.no_grad()
def answers(workload: Workload, features: Features, split: str, *, shifted: bool) -> list[str]:
    """Greedy answers to all questions of a split."""
    rows = workload.rows[split]
    images = sorted({row.image for row in rows})
    other = {image: images[(i + len(images) // 2) % len(images)] for i, image in enumerate(images)}
    found: dict[int, str] = {}
    order = sorted(range(len(rows)), key=lambda i: rows[i].image)
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        batch = features.batch(split, indices, 1)
        if shifted:
            theirs = [other[image] for image in sorted({rows[i].image for i in indices})]
            batch = replace(batch, state=features.image_features(split, theirs, 1))
        found |= zip(indices, workload.model.answers(workload.model.network, batch), strict=True)
    return [found[i] for i in range(len(found))]


if __name__ == "__main__":
    main()
