"""The benchmark of a GPU, run on a CPU: what it needs, writes and takes up again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.gpu import __main__ as gpu

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "pillow")
"""All that must be installed, with what these require themselves."""


@pytest.mark.slow
def test_six_packages_and_a_copy_of_the_tree_are_enough(tmp_path: Path) -> None:
    """Start a Python that has no other packages."""
    alone, out = _installed_alone(tmp_path / "packages"), tmp_path / "gpu.jsonl"
    given = ["--device", "cpu", "--minutes", "0.3", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tests.benchmarks.gpu", *given],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PYTHONPATH": f"{alone}{os.pathsep}{REPOSITORY}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "smoke, 4 trials of 64 examples: left out: ray is not installed" in done.stdout
    begun, *lines = _lines(out)
    assert begun["versions"]["torch"] and begun["versions"]["deepspeed"] == "none"
    assert lines and all("error" not in line for line in lines), lines
    assert "small shapes" in begun["machine"] == lines[0]["machine"]
    first = lines[0]
    assert (first["part"], first["name"]) == (1, "blip adapter")
    assert first["result"]["difference"] == 0, "the CPU with itself"
    shown = f"blip adapter: losses {first['result']['first']:.4f}"
    assert shown in done.stdout, "what is written is printed too"


@pytest.mark.long
def test_a_part_is_taken_up_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "STUDY_DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)  # the benchmark sets them; they go with the test
    out = tmp_path / "gpu.jsonl"
    given = ["--device", "cpu", "--part", "4", "--out", str(out), "--minutes"]
    assert gpu.main([*given, "0.0001"]) == 0
    assert "2 of 2 left for the next run" in capsys.readouterr().out
    assert gpu.main([*given, "2"]) == 0
    *_, first, second = _lines(out)
    assert [line["name"] for line in (first, second)] == ["tiny fp32", "tiny bf16"]
    assert first["result"]["difference"] == 0 and "left for" not in capsys.readouterr().out
    # As if the process had been killed in the middle of the second line.
    whole = out.read_text().rstrip("\n")
    out.write_text(whole[: -len(json.dumps(second)) // 2])
    assert gpu.main([*given, "2"]) == 0
    shown = capsys.readouterr().out
    assert "2/2 tiny bf16" in shown and "1/2 tiny fp32" not in shown
    assert [line.get("name") for line in _lines(out)][-2:] == [None, "tiny bf16"]
    assert "left for" not in shown and shown.count("tiny fp32 0.0e+00 off") == 1


@pytest.mark.parametrize("given", [["--minutes", "0"], ["--minutes", "nan"], ["--part", "6"]])
def test_what_cannot_be_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main(given)
    assert refused.value.code == 2


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results that are whole."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _installed_alone(folder: Path) -> Path:
    """A folder with links to ``PACKAGES``, and to what they require."""
    folder.mkdir()
    todo, known = [*PACKAGES], set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in known:
            continue
        known.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # required on another system
            continue
        required = [line for line in package.requires or () if "extra ==" not in line]
        todo += [re.split(r"[\s;<>=!~\[(]", line)[0] for line in required]
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(package.locate_file(top)))
    return folder
