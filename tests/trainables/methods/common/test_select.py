"""Layers are selected by the roles that they play."""

from __future__ import annotations

import pytest
from torch import nn

from trainables.errors import BadInput
from trainables.methods.common import select
from trainables.model_contract import Slot


def test_a_selector_that_matches_nothing_names_what_there_is() -> None:
    there = Slot(name="vision", module=nn.Identity(), roles={"norm": ("a",), "query": ("b",)})
    with pytest.raises(
        BadInput, match="slot 'vision' has no layer of ffn_in, ffn_out; it has: norm"
    ):
        select.modules(there, ("ffn_in", "ffn_out"))
    with pytest.raises(BadInput, match="unknown role 'querry'; did you mean 'query'"):
        select.modules(there, ("norm", "querry"))
