"""What a file of a plug-in folder keeps, whichever its kind: it is found, it has what its kind must
have, and importing it costs little. A file joins by being there."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from search_spaces.declare import Space
from study.config.search_methods import SEARCHERS, STOPPERS
from study.config.spaces import SPACES
from trainables.measures.common.measure import Column, Kind, Measure
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
        "folder or of a preset, which is a file, without weights",
    },
    SPACES: {"SPACE": "a Space, of search_spaces.declare"},
    SEARCHERS: {"point": "a function (past, arm) that returns the values of the arm's parameters"},
    STOPPERS: {
        "Stopper": "a class made with (reduction), whose record returns whether a trial goes on",
        "passing": "a function (reduction) that returns the share of trials that go on, roughly",
    },
}
"""Kind of plug-in -> the names that its file must define, and what each is."""

CALLED: Mapping[Registry, Mapping[str, tuple[str, ...]]] = {
    METHODS: {"apply": ("slot", "config")},
    DATASETS: {"load": ("root",), "small": ("root", "picture")},
    FAMILIES: {
        "load": ("path", "image_size", "precision"),
        "skeleton": ("source", "image_size", "precision"),
        "small": ("words",),
    },
    SEARCHERS: {"point": ("past", "arm")},
    STOPPERS: {"Stopper": ("reduction",), "passing": ("reduction",)},
}
"""Kind of plug-in -> the functions of its file, with the arguments that they are given."""

NO_MEMBERS = ["search_spaces/declare.py"]
"""Files of a plug-in folder that are no plug-in."""

LATE = (FAMILIES, SEARCHERS, STOPPERS)
"""Kinds of plug-in that are imported only after all input was checked."""

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


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_what_a_file_has_is_of_the_right_form(kind: Registry, name: str) -> None:
    module = kind.find(name)
    if not all(hasattr(module, has) for has in MUST_HAVE[kind]):
        pytest.skip("what it lacks is said above")
    wrong = [
        f"{function} must take ({', '.join(given)}), in this order"
        for function, given in CALLED.get(kind, {}).items()
        if hasattr(module, function) and not takes(getattr(module, function), given)
    ]
    wrong += FORMS[kind](module) if kind in FORMS else []
    assert not wrong, f"in {path(kind, name)}, " + "; ".join(wrong)


def takes(function: Callable[..., object], arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def wrong_method(module: Any) -> Iterator[str]:
    config = module.Config
    if not dataclasses.is_dataclass(config):
        yield "Config must be decorated with @dataclass(frozen=True, kw_only=True)"
        return
    fields = dataclasses.fields(config)
    if not config.__dataclass_params__.frozen or not all(field.kw_only for field in fields):
        yield "Config must be decorated with @dataclass(frozen=True, kw_only=True)"
    if lacking := [field.name for field in fields if lacks_default(field)]:
        yield f"every setting of Config must have a default: {', '.join(lacking)}"


def lacks_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def wrong_measure(module: Any) -> Iterator[str]:
    measure = module.MEASURE
    if not isinstance(measure, Measure):
        yield "MEASURE must be a Measure, of trainables.measures.common.measure"
        return
    if measure.of not in get_args(Kind):
        yield f"of={measure.of!r} of MEASURE must be one of {', '.join(get_args(Kind))}"
    if not (measure.columns and all(isinstance(c, Column) for c in measure.columns.values())):
        yield "columns of MEASURE must map the name of each number to a Column"
    if not takes(measure.score, ("predicted", "examples")):
        yield "score of MEASURE must take (predicted, examples), all of a split"


def wrong_space(module: Any) -> Iterator[str]:
    if not isinstance(module.SPACE, Space):
        yield "SPACE must be a Space, of search_spaces.declare"


FORMS: Mapping[Registry, Callable[[Any], Iterator[str]]] = {
    METHODS: wrong_method,
    MEASURES: wrong_measure,
    SPACES: wrong_space,
}
"""Kind of plug-in -> what its file has in a wrong form, each with what it must be."""


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
    names = [f"{k.package}.{name}" for k in MUST_HAVE if k not in LATE for name in k.names()]
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


@pytest.mark.parametrize(("kind", "name"), [f for f in FILES if f.values[0] not in LATE])
def test_importing_a_file_imports_nothing_heavy(
    kind: Registry, name: str, imported: Mapping[str, set[str]]
) -> None:
    heavy = imported.get(f"{kind.package}.{name}", set()) - CHEAP
    assert not heavy, (
        f"importing {path(kind, name)} imports {', '.join(sorted(heavy))}: every complaint about "
        "a misspelt name would wait for it. Import it inside the functions that use it. (A method "
        "with an nn.Module of its own defines the class inside apply, or in common/.)"
    )
