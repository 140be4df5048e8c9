"""``python -m study.list`` and ``study.status``: quick, whatever lies in the folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.inventory.test_overview import begun

HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers")
PROBE = """
import runpy, sys
sys.argv = {argv!r}
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as exit:
    print(exit.code, *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command, which then prints its exit code and the heavy packages that it imported."""
    code = PROBE.format(argv=[module, *arguments], module=module, heavy=HEAVY)
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )


def test_list_and_status_answer_without_heavy_packages(tmp_path: Path) -> None:
    begun(tmp_path, "one")
    listed = command("study.list", "--storage", str(tmp_path))
    assert listed.stderr == "0\n", "nothing heavy was imported"
    assert "one" in listed.stdout and f"1 study in {tmp_path}" in listed.stdout
    status = command("study.status", "one", "--storage", str(tmp_path))
    assert status.stderr == "0\n" and "search 0/4" in status.stdout
    missed = command("study.status", "onne", "--storage", str(tmp_path))
    assert missed.stderr.startswith("error: unknown study 'onne'; did you mean 'one'?")
    assert missed.stderr.endswith("\n2\n")


@pytest.mark.parametrize("module", ["study.list", "study.status"])
def test_programs_get_json(module: str, tmp_path: Path) -> None:
    begun(tmp_path, "one")
    names = ["one"] * (module == "study.status")
    done = command(module, *names, "--storage", str(tmp_path), "--json")
    found = json.loads(done.stdout)
    row = found[0] if module == "study.list" else found["overview"]
    assert (row["study"], row["state"]) == ("one", "interrupted")
