"""The benchmark of start-up times functions by name, in processes of its own."""

import inspect
from importlib import import_module
from operator import attrgetter

import pytest

from tests.benchmarks.start_up import FUNCTIONS


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_start_up_times_is_there(function: str) -> None:
    module, name = function.split(":")
    assert inspect.isroutine(attrgetter(name)(import_module(module)))
