"""``python -m study.report``: writes the page of a finished study anew."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from tests.study.reporting.pages import Tags


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "study.report", *arguments]
    return subprocess.run(given, check=False, capture_output=True, text=True, timeout=120)


def test_the_command_writes_it_anew(found: StudyResults, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    old = {**found.protocol, "command": "x --tracking-uri postgresql://mlflow:planted@db"}
    results_file.write(tmp_path / "one", replace(found, protocol=old))
    done = command("one", "--storage", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "one" / "report.html")
    page = Tags((tmp_path / "one" / "report.html").read_text())
    assert all(line in page.text for line in found.verdict.splitlines())
    assert "--tracking-uri postgresql://mlflow:***@db" in page.text, "older ones had the password"
    said = command("oen", "--storage", str(tmp_path))
    assert said.returncode == 2 and "did you mean 'one'?" in said.stderr
    said = command(str(tmp_path / "one"))
    assert said.returncode == 2 and f"give one --storage {tmp_path}\n" in said.stderr
    (tmp_path / "one" / "report.html").unlink()
    (tmp_path / "one" / "groups.csv").unlink(missing_ok=True)
    (tmp_path / "one" / "groups.csv").mkdir()
    said = command("one", "--storage", str(tmp_path))
    assert said.returncode == 2 and "groups.csv is a folder" in said.stderr
    assert not (tmp_path / "one" / "report.html").exists(), "nothing is half-written"
    results_file.write(tmp_path / "one", replace(found, version=99))
    said = command("one", "--storage", str(tmp_path))
    assert said.returncode == 2 and "is of version 99; this reads 1 and 2" in said.stderr
