"""Order in which the test files run, for ``make test``; tests that need newer packages than the
installed ones; and when garbage is searched for."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from trainables.errors import too_old

WEIGHTS = {"slow": 20, "long": 4}
"""Marker -> how many unmarked tests take as long as one with it, roughly."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first. Processes take whole files, in this order, so that
    none is left alone with a long file at the end. Skip tests marked ``needs``, of a package, whose
    installed version is older."""
    for item in items:
        for mark in item.iter_markers("needs"):
            if (error := too_old("it", *mark.args)) is not None:
                item.add_marker(pytest.mark.skip(reason=str(error)))
    weights: Counter[str] = Counter()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        weights[item.nodeid.split("::")[0]] += max(
            (weight for name, weight in WEIGHTS.items() if name in marks), default=0
        )
    items.sort(key=lambda item: -weights[item.nodeid.split("::")[0]])


def pytest_sessionstart() -> None:
    """Search for no garbage while the tests' modules are imported: there is next to none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage, which it makes several times
    slower."""
    gc.collect()
    gc.freeze()
    gc.enable()
