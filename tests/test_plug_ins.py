"""What a file of a plug-in folder keeps, whichever its kind: it is found, it has what its kind must
have, and importing it costs little. A file joins by being there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from study.config.spaces import SPACES
from trainables.registry import DATASETS, FAMILIES, MEASURES, METHODS, Registry

ROOT = Path(__file__).parents[1]

MUST_HAVE: Mapping[Registry, Mapping[str, str]] = {
    METHODS: {
        "Config": "a frozen, keyword-only dataclass of the settings, each with a default",
        "apply": "a function (slot, config) that changes the slot's module and returns the names "
        "of the parameters to train",
    },
    DATASETS: {"load": "a function (root: Path | None) that returns what dataset.build made"},
    MEASURES: {"MEASURE": "a Measure, of trainables.measures.common.measure"},
    FAMILIES: {
        "load": "a function (path, image_size, precision) that returns the model of a folder",
        "skeleton": "a function (source, image_size, precision) that returns the structure of a "
        "preset or of a folder, without weights",
        "PRESETS": "a dict literal of well-known models, {} if there are none",
    },
    SPACES: {"SPACE": "a Space, of search_spaces.declare"},
}
"""Kind of plug-in -> the names that its file must define, and what each is."""

NO_MEMBERS = ["search_spaces/declare.py"]
"""Files of a plug-in folder that are no plug-in."""

CHEAP = {"numpy"}
"""Packages that a plug-in may import at its top: they load in a tenth of a second."""


def path(kind: Registry, name: str) -> str:
    return f"{kind.package.replace('.', '/')}/{name}.py"


FILES = [
    pytest.param(kind, file.stem, id=f"{kind.kind} {file.stem}")
    for kind in MUST_HAVE
    for file in sorted((ROOT / kind.package.replace(".", "/")).glob("[!_]*.py"))
    if path(kind, file.stem) not in NO_MEMBERS
]


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_file_has_what_its_kind_must_have(kind: Registry, name: str) -> None:
    assert name in kind.names(), (
        f"{path(kind, name)} is not found as a {kind.kind}, since it defines no {kind.defines!r} "
        f"at its top level: {MUST_HAVE[kind][kind.defines]}. (What several files of the folder "
        "share belongs into its folder common/.)"
    )
    module = kind.find(name)
    lacking = {has: what for has, what in MUST_HAVE[kind].items() if not hasattr(module, has)}
    assert not lacking, f"{path(kind, name)} must also define " + "; ".join(
        f"{has}: {what}" for has, what in lacking.items()
    )
    assert (module.__doc__ or "").strip(), f"{path(kind, name)} needs a docstring: what it is"


IMPORTER = """
import importlib, os, sys
import study.config.spaces
for name in sys.argv[1:]:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    before = set(sys.modules)
    importlib.import_module(name)
    packages = {module.partition(".")[0] for module in sys.modules.keys() - before}
    print(name, *sorted(packages - sys.stdlib_module_names), flush=True)
    os._exit(0)
"""
"""Imports each module by itself, on top of what is imported before a space is checked, and prints
the packages that came with it."""


@pytest.fixture(scope="module")
def imported() -> Mapping[str, set[str]]:
    """Plug-in -> the foreign packages that importing it imports. Families are left out: nothing
    imports them before a model is wanted, and they are made of torch."""
    names = [f"{k.package}.{name}" for k in MUST_HAVE if k is not FAMILIES for name in k.names()]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {"trainables", "study", "search_spaces"}
    lines = [line.split() for line in done.stdout.splitlines()]
    return {
        name: {package for package in packages if package[0] != "_"} - ours
        for name, *packages in lines
    }


@pytest.mark.parametrize(("kind", "name"), [f for f in FILES if f.values[0] is not FAMILIES])
def test_importing_a_file_imports_nothing_heavy(
    kind: Registry, name: str, imported: Mapping[str, set[str]]
) -> None:
    heavy = imported.get(f"{kind.package}.{name}", set()) - CHEAP
    assert not heavy, (
        f"importing {path(kind, name)} imports {', '.join(sorted(heavy))}: every complaint about "
        "a misspelt name would wait for it. Import it inside the functions that use it. (A method "
        "with an nn.Module of its own defines the class inside apply, or in common/.)"
    )
