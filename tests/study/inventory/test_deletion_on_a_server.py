"""A study on an MLflow server: what the server lets be deleted, and what its owner does."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from study import delete
from tests.study.browser import serving
from tests.study.inventory.test_deletion import files, recorded, rows

pytestmark = pytest.mark.slow
LEFT = {"inputs", "input_tags", "datasets", "model_versions", "model_version_tags"}
"""Tables of which MLflow itself leaves rows."""


def test_the_owner_is_told_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path, "first", seed=2)  # it makes the store that is served
    with serving(tmp_path) as uri:
        recorded(tmp_path, "stays", seed=0, uri=uri, model="shared")
        before, listed = rows(tmp_path), files(tmp_path)
        recorded(tmp_path, "goes", seed=1, uri=uri, model="own")
        arguments = ["--storage", str(tmp_path), "--tracking-uri", uri]
        assert delete.main(["goes", *arguments, "--dry-run"]) == 0
        assert "8 runs" in capsys.readouterr().out and (tmp_path / "goes").is_dir()
        assert delete.main(["goes", *arguments, "--yes"]) == 0
        *_, line, command = capsys.readouterr().out.splitlines()
        assert "only marks runs as deleted" in line
        assert files(tmp_path / "mlflow-artifacts") == [
            path.removeprefix("mlflow-artifacts/")
            for path in listed
            if path.startswith("mlflow-artifacts/")
        ]
        marked = [row for row in rows(tmp_path)["runs"] if "deleted" in row]
        assert len(marked) == 8
        words = shlex.split(command.replace("DATABASE", f"'sqlite:///{tmp_path / 'mlflow.db'}'"))
        assert words[:2] == ["mlflow", "gc"]
        subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, timeout=120)
        after = rows(tmp_path)
        assert {name for name in after if after[name] != before[name]} <= LEFT
    assert files(tmp_path) == listed
