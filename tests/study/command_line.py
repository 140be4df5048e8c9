"""Whole studies through the command line, and what they left behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from study.tracking.mlflow_store import default_uri

REPOSITORY = Path(__file__).parents[2]


def command(storage: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "study.launch", "--storage", str(storage), *arguments]


def launch(storage: Path, *arguments: str, seconds: float = 420) -> str:
    done = subprocess.run(
        command(storage, *arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def results(storage: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((storage / name / "results.json").read_text())
    return found


def numbers(found: dict[str, Any]) -> list[Any]:
    """What two runs of one study must have in common: all but times and memory."""
    return [
        (
            t["trial"],
            t["arm"],
            t["parameters"],
            t["outcome"],
            [(r["examples_seen"], r["validation_loss"], r["train_loss"]) for r in t["rungs"]],
            t["scores"],
        )
        for t in found["trials"]
    ]


def runs(storage: Path, experiment: str) -> list[Run]:
    client = MlflowClient(default_uri(storage))
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], max_results=1000))
