"""Describes the data of a run to MLflow: each split that the run used, with the data's digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.tracking.mlflow_names import LONGEST_DATASET
from study.trials.spec import Kind

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

LONGEST_DIGEST = 36
"""Largest number of characters of a digest that MLflow stores."""
CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
"""Split -> name of its use on MLflow's page."""
SEEN = {
    Kind.SEARCH: ("train", "validation"),
    Kind.CONFIRM: ("train", "validation", "test", "ood"),
    Kind.UNTUNED: ("validation", "test", "ood"),
}
"""Kind of a trial -> splits that it trains on or is scored on."""


def study_inputs(protocol: Mapping[str, Any]) -> dict[tuple[Kind, int], list[DatasetInput]]:
    """MLflow's dataset inputs for each kind of trial in each split of the data, counted from 0; a
    confirmation has all inputs of the study.

    ``protocol`` is what ``study.planning.provenance.describe`` returns.
    """
    data, settings = protocol["data"], protocol["settings"]
    root = settings["data_root"]
    inputs = [
        {
            part: _input(data["name"], part, divided["digest"], settings["data"], root, questions)
            for part, questions in divided["questions"].items()
        }
        for divided in data.get("splits") or [data]
    ]
    ood = [
        _input(name, "test", digest, name, root, None)
        for name, digest in data.get("ood", {}).items()
    ]
    return {
        (kind, number): [of_split[part] for part in parts if part in of_split]
        + (ood if "ood" in parts else [])
        for kind, parts in SEEN.items()
        for number, of_split in enumerate(inputs)
    }


def _input(
    name: str, split: str, digest: str, data: str, root: str | None, questions: int | None
) -> DatasetInput:
    """One split of a dataset, as an input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind, source = _source(data, root)
    dataset = Dataset(
        name=f"{name[: LONGEST_DATASET - len(split) - 1]}.{split}",
        digest=digest[:LONGEST_DIGEST],
        source_type=kind,
        source=json.dumps(source),
        profile=json.dumps({"questions": questions}) if questions else None,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS[split])])


def _source(data: str, root: str | None) -> tuple[str, dict[str, Any]]:
    """Type and content of a dataset's source, as MLflow's page shows them."""
    if root is None:  # the dataset is generated
        return "code", {"tags": {"mlflow.source.name": f"trainables/data/{data}.py"}}
    if root.startswith("hub:"):
        return "hugging_face", {"path": root.removeprefix("hub:")}
    return "local", {"uri": Path(root).as_uri()}
