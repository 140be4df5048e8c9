"""Small models whose base is in four bits, for tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainables.conftest import SMALL, made_up
from trainables.models.common import quantisation
from trainables.models.common.quantisation import BaseBits
from trainables.workload import Workload


def needs_bitsandbytes() -> Any:
    """The package; without it, the test or the module that calls this is skipped."""
    return pytest.importorskip("bitsandbytes", reason='pip install -c constraints.txt -e ".[bits]"')


def in_four_bits(family: str, whole: tuple[str, ...] = ()) -> Workload:
    """A made-up workload for a small model of a family, quantised but for the slots ``whole``."""
    needs_bitsandbytes()
    model = SMALL[family]()
    quantisation.quantise(model, BaseBits(whole=whole))
    model.digest = quantisation.digest(model)
    return made_up(model)
