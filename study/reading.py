"""The data of a study, read and looked at before anything is written or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.settings import Settings
from trainables.errors import BadInput

if TYPE_CHECKING:
    from trainables.data.audit import Audit
    from trainables.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was read from the disk."""

    dataset: Dataset
    """To train on."""
    others: Mapping[str, Dataset]
    """By name: to score on."""
    audit: Audit
    """What is wrong with the first."""


def read(settings: Settings) -> Read:
    """Read the data.

    Raises:
        BadInput: so much of what is scored was trained on that no score would mean anything.
    """
    from trainables.data import audit

    dataset = settings.workload.dataset()
    others = {name: config.dataset() for name, config in settings.others.items()}
    found = audit.examine(dataset)
    leaks = [finding.text for finding in found.stops]
    trained_on = {dataset.contents[e.image_id] for e in (*dataset.train, *dataset.validation)}
    for name, other in others.items():
        images = {other.contents[example.image_id] for example in other.test}
        if shared := len(images & trained_on):
            leaks.append(
                f"{shared} of {len(images)} test images of --ood {name} are trained on "
                "(not so with --split by_image)"
            )
    if leaks and not settings.allow_leak:
        raise BadInput(
            f"--data {settings.data}: {'; '.join(leaks)}; --allow-leak runs it all the same"
        )
    return Read(dataset=dataset, others=others, audit=found)
