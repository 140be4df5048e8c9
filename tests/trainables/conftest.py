"""A small random model of every family, and a small made-up workload for it.

A model family joins all contract suites by being a file in ``trainables/models``. The family of
many classes joins those of ``WITH_CLASSES`` with each class, of which a sample is run at once; the
rest are marked ``by_hand`` and run by hand. So are the families of ``SAMPLED``.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import made_image_text
from tests.trainables.made_workload import WORDS, made_up
from tests.trainables.models.small import image_text_to_text
from trainables import registry
from trainables.model_contract import Model
from trainables.model_lookup import GENERIC
from trainables.workload import Workload

__all__ = ["WORDS", "made_up"]  # tests of other folders import them from here


WITH_CLASSES = ("test_families", "test_methods", "test_virtual", "test_pack")
"""Modules of tests that every class of ``model_lookup.GENERIC`` takes part in."""
FAST = {"test_families": 20, "test_methods": 50, "test_virtual": 50, "test_pack": 30}
"""Module of tests -> one of how many tests of a class is run with the fast ones."""
ALWAYS = "gemma3"
"""Class of which every test of ``test_families`` is a fast one."""

SAMPLED = ("blip_2", "instructblip")
"""Families of which every test of ``test_families`` is a fast one, and of other tests one of
``OF_SAMPLED``."""
OF_SAMPLED = 20


def small(family: str) -> Model:
    """A small random model of a family, the same at every call. The family's file makes it
    (``small``), or ``models/small/FAMILY.py`` here. One of a class is called as ``GENERIC/CLASS``.
    """
    family, _, kind = family.partition("/")
    if kind:
        return image_text_to_text.small(WORDS, kind)
    module: Any = registry.FAMILIES.find(family)
    beside = Path(__file__).parent / "models" / "small" / f"{family}.py"
    if not hasattr(module, "small"):
        assert beside.is_file(), (
            f"trainables/models/{family}.py must define small(words), which returns a small random "
            "model that knows these words: the contract tests train it within a second. (What "
            f"several tests vary lies in tests/trainables/models/small/{family}.py instead.)"
        )
        module = importlib.import_module(f"tests.trainables.models.small.{family}")
    model: Model = module.small(WORDS)
    return model


OWN = [family for family in registry.FAMILIES.names() if family != GENERIC]
OF_CLASSES = [f"{GENERIC}/{kind}" for kind in made_image_text.CLASSES]
SMALL: Mapping[str, Callable[[], Model]] = {
    family: partial(small, family) for family in (*OWN, *OF_CLASSES)
}
"""Model family -> a small random model of it, the same at every call."""


NEEDS = pytest.mark.needs("transformers", registry.FAMILIES.text(GENERIC, "TRANSFORMERS"))
"""Marks a test, or all of a module, that reads a model of the generic family."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Golden numbers must not depend on how many cores a sum was split over; and small matrices are
    faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``family``, or what follows from it, for each family."""
    own = any("family" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "family" in metafunc.fixturenames and not own:
        name = metafunc.module.__name__.rpartition(".")[2]
        families = [*OWN, *(OF_CLASSES if name in WITH_CLASSES else ())]
        metafunc.parametrize("family", families, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most tests of classes, and of families of ``SAMPLED``, ``by_hand``: which ones
    follows from their names. A test of a family needs the transformers that the family needs."""
    for item in items:
        kind = getattr(item, "callspec", None) and str(item.callspec.params.get("family", ""))
        if kind and (oldest := transformers_of(kind)):
            item.add_marker(pytest.mark.needs("transformers", oldest))
        if not kind or not (kind.startswith(f"{GENERIC}/") or kind in SAMPLED):
            continue
        name = item.module.__name__.rpartition(".")[2]
        whole = name == "test_families" and kind in (f"{GENERIC}/{ALWAYS}", *SAMPLED)
        one_of = OF_SAMPLED if kind in SAMPLED else FAST[name]
        if not whole and zlib.crc32(item.name.encode()) % one_of:
            item.add_marker(pytest.mark.by_hand)


def transformers_of(kind: str) -> str:
    """Oldest transformers that a family, or a class of ``GENERIC``, says that it needs."""
    name = kind.partition("/")[0]
    return registry.FAMILIES.text(name, "TRANSFORMERS") if name in registry.FAMILIES.names() else ""


@pytest.fixture(scope="session")
def family(request: pytest.FixtureRequest) -> str:
    """The name of a model family: every test that takes it, or what follows, runs for each."""
    return str(request.param)


@pytest.fixture(scope="session")
def model(family: str) -> Model:
    """A small random model, shared: no test may change it."""
    return SMALL[family]()


@pytest.fixture(scope="session")
def made() -> Callable[..., Workload]:
    """Makes a workload of a test's own: ``made(family, dtype=torch.bfloat16)``."""

    def make(family: str, dtype: torch.dtype = torch.float32) -> Workload:
        model = SMALL[family]()
        model.network.to(dtype)
        return made_up(model)

    return make


@pytest.fixture(scope="session")
def workload(model: Model) -> Workload:
    """A made-up workload for ``model``."""
    return made_up(model)
