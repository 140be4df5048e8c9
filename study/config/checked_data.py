"""Reads and checks a study's data before anything is written or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.config.definition import StudyDefinition
from study.config.settings import ACCURACY
from trainables.errors import BadInput
from trainables.training.regime import CHOOSE

if TYPE_CHECKING:
    from trainables.audit.audit import Audit
    from trainables.data.common.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class CheckedData:
    """The datasets of a study, read from disk."""

    dataset: Dataset
    """Dataset to train on."""
    ood: Mapping[str, Dataset]
    """Name -> dataset that confirmed trials are only scored on."""
    audit: Audit
    """Findings of the audit of ``dataset``."""
    splits: tuple[Dataset, ...] = ()
    """Data as each split divides them, ``dataset`` first, if there are several (``--splits``)."""
    audits: tuple[Audit, ...] = ()
    """Findings of the audit of each of ``splits``."""


def read(definition: StudyDefinition) -> CheckedData:
    """Read the datasets and audit the one to train on.

    Raises:
        BadInput: options are to be chosen but no question has any; or so many of the test questions
            or images were trained on that no score would mean anything, and the user has not
            allowed it (``--allow-leak``).
    """
    from trainables.audit import audit
    from trainables.data.common.splits import by_image
    from trainables.measures.common.deciding import deciding

    dataset = definition.workload.dataset()
    ood = {name: workload.dataset() for name, workload in definition.ood_workloads.items()}
    asked = [e for one in (dataset, *ood.values()) for some in one.splits().values() for e in some]
    if definition.regime.choose != CHOOSE[0] and not any(example.options for example in asked):
        raise BadInput(
            f"--choose {definition.regime.choose}: no question of --data "
            f"{definition.workload.data} has options; leave out --choose"
        )
    measure = definition.settings.measure
    if measure != ACCURACY and not deciding(measure).places(dataset.test):
        raise BadInput(
            f"--measure {measure}: no test question of --data {definition.workload.data} is one "
            "that it is for"
        )
    audited = audit.examine(dataset)
    leaks = [finding.text for finding in audited.stops]
    others = [by_image(dataset, number) for number in range(1, definition.settings.splits)]
    splits = (dataset, *others) if others else ()
    audits = (audited, *map(audit.examine, others)) if others else ()
    for number, again in enumerate(audits[1:], start=2):
        leaks += [f"split {number}: {finding.text}" for finding in again.stops]
    trained_on = {dataset.contents[e.image_id] for e in (*dataset.train, *dataset.validation)}
    for name, other in ood.items():
        images = {other.contents[example.image_id] for example in other.test}
        if shared := len(images & trained_on):
            leaks.append(
                f"{shared} of {len(images)} test images of --ood {name} are trained on "
                "(not so with --split by_image)"
            )
    if leaks and not definition.settings.allow_leak:
        raise BadInput(
            f"--data {definition.workload.data}: {'; '.join(leaks)}; "
            "--allow-leak runs it all the same"
        )
    return CheckedData(dataset=dataset, ood=ood, audit=audited, splits=splits, audits=audits)
