"""What ``make audit`` says of pip-audit's report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "infra" / "docker" / "audit.py"
SKIPPED = {"name": "a", "skip_reason": "Dependency not found"}
SOUND = {"name": "b", "version": "1", "vulns": []}
FAULTY = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3", "2.1"]}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([SKIPPED], 2, "no database of vulnerabilities could be reached: "),
        ([SKIPPED, SOUND], 0, "0 known vulnerabilities; 1 of 2 packages looked up"),
        ([SOUND, FAULTY], 1, "c 2: CVE-1, mended in 3, 2.1\n1 known vulnerabilities; 2 of 2"),
    ],
)
def test_it_says_what_was_found(
    packages: list[Any], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"dependencies": packages, "fixes": []}))
    spec = importlib.util.spec_from_file_location("audit_report", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(str(tmp_path / "report.json")) == code
    assert capsys.readouterr().out.startswith(said)
