"""Finished made-up studies in a storage folder, as ``study.compare`` finds them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.config.begun_study import BegunStudy, arms_plain
from study.config.settings import Settings
from study.storage.study_folder import SETTINGS
from tests.study import finished
from tests.study.finished import collected

SPACE = replace(
    finished.SPACE, arms={arm: finished.SPACE.arms[arm] for arm in ("lora", "layernorm", "full")}
)


def put(
    storage: Path, name: str, *, chances: Mapping[str, float], model: str = "tiny", **given: Any
) -> StudyResults:
    """Write a study whose arms are right about questions of that ease, and its files."""
    folder = storage / name
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(finished, "CHANCES", {**finished.CHANCES, **chances})
        found = collected(folder, space=SPACE, trials=15, name=name, base=name, **given)
    protocol = {**found.protocol, "model": {"name": model, "digest": model * 8}}
    found = replace(found, protocol=protocol)
    results_file.write(folder, found)
    begun = BegunStudy(
        settings=Settings(space="made_up"),
        arms=arms_plain(SPACE),
        base={},
        command="python -m study.launch",
        begun="today",
    )
    (folder / SETTINGS).write_text(json.dumps(asdict(begun)), encoding="utf-8")
    return found
