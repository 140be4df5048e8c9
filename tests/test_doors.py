"""Which code may know of which: the arrows between our packages, and the doors of foreign ones.

The sources are parsed, not imported, so an import inside a function counts as much as one at the
top of a file, and one under ``TYPE_CHECKING`` too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ARROWS = {
    "search_spaces": {"search_spaces"},
    "trainables": {"trainables"},
    "study": {"study", "trainables", "search_spaces"},
}
"""Package of ours -> packages of ours that it may know."""

DOORS = {
    "torch": ["trainables/*", "study/*"],
    "transformers": ["trainables/*"],
    "huggingface_hub": ["trainables/hub.py"],
    "peft": ["trainables/methods/*", "trainables/adapter.py"],
    "spacy": ["trainables/data/observations.py"],
    "negspacy": ["trainables/data/observations.py"],
    "deepspeed": ["trainables/zero.py"],
    "ray": [
        f"study/{room}.py"
        for room in (
            "cluster",
            "tune",
            "worker",
            "prober",
            "hosts",
            "gang",
            "gangs",
            "group",
            "nodes",
        )
    ],
    "optuna": [f"study/{room}.py" for room in ("ledger", "sampler", "spaces", "importance")],
    "mlflow": [f"study/{room}.py" for room in ("database", "inputs", "once", "runs", "tracking")],
}
"""Foreign package -> files that may import it."""

HEAVY = ["torch", "transformers", "peft", "spacy", "deepspeed", "ray", "optuna", "mlflow"]
"""Seconds to import: never before it is known that there is something to run."""


def test_every_import_goes_through_its_door() -> None:
    found = [
        violation
        for package in ARROWS
        for path in sorted((ROOT / package).rglob("*.py"))
        for violation in violations(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_door_leads_somewhere() -> None:
    patterns = [pattern for patterns in DOORS.values() for pattern in patterns]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


@pytest.mark.parametrize(
    ("path", "source", "imported"),
    [
        ("search_spaces/bad.py", "import torch", "torch"),
        ("search_spaces/bad.py", "from trainables.recipe import Recipe", "trainables.recipe"),
        ("trainables/bad.py", "def f():\n    from study import spaces", "study"),
        ("trainables/bad.py", "import importlib\nimportlib.import_module('ray.tune')", "ray.tune"),
        ("trainables/bad.py", "import os, optuna.samplers as s", "optuna.samplers"),
        ("trainables/models/bad.py", "import peft", "peft"),
        ("trainables/data/bad.py", "if TYPE_CHECKING:\n    import search_spaces", "search_spaces"),
        ("trainables/data/bad.py", "from ...study import spaces", "study"),
        ("trainables/trial.py", "import deepspeed", "deepspeed"),
        ("study/launch.py", "import ray", "ray"),
        ("study/report.py", "try:\n    import mlflow\nexcept ImportError: ...", "mlflow"),
        ("study/tune.py", "__import__('transformers')", "transformers"),
    ],
)
def test_a_bad_import_is_found(path: str, source: str, imported: str) -> None:
    (found,) = violations(path, source)
    assert found.startswith(f"{path}:") and f" {imported}:" in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("search_spaces/good.py", "from search_spaces.declare import Space\nimport math"),
        ("trainables/methods/good.py", "from peft import LoraConfig\nfrom . import select"),
        ("study/tune.py", "import ray\nfrom trainables import registry"),
        ("study/good.py", "import rayon, raytune.ray, mlflow_of_ours"),
        ("study/good.py", "'import ray'  # import ray"),
    ],
)
def test_a_good_import_is_let_through(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(["--help"], 0), (["--list"], 0), (["--space", "layernorm_vs_lorra"], 2)],
    ids=["help", "list", "misspelt"],
)
def test_answers_before_anything_heavy_is_imported(arguments: list[str], exit_code: int) -> None:
    probe = f"""
import runpy, sys
sys.argv = ["study.launch", *{arguments!r}]
code = 0
try:
    runpy.run_module("study.launch", run_name="__main__")
except SystemExit as exit:
    code = exit.code or 0
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print(code, *loaded, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == str(exit_code), done.stderr


def violations(path: str, source: str) -> list[str]:
    """What ``source`` imports although its ``path`` (from the root, with slashes) forbids it."""
    package = path.split("/")[0]
    found = []
    for line, module in _imports(path, source):
        top = module.split(".")[0]
        if top in ARROWS and top not in ARROWS[package]:
            found.append(f"{path}:{line} imports {module}: {package} must not know of {top}")
        elif top in DOORS and not any(fnmatch(path, door) for door in DOORS[top]):
            found.append(
                f"{path}:{line} imports {module}: {top} enters only by {', '.join(DOORS[top])}"
            )
    return found


def _imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that is imported, anywhere and in any way."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=0):
                assert module is not None
                yield node.lineno, module
            case ast.ImportFrom(module=module, names=names, level=level):
                above = path.split("/")[:-level]
                if above or module:
                    yield node.lineno, ".".join([*above, *([module] if module else [])])
                else:  # from .. import study, in a package: study's root
                    yield from ((node.lineno, alias.name) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module
