"""Towers that several tests compose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.model_tools.composed import text_tower, vision_tower


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_tower(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_tower(tmp_path_factory.mktemp("text"))
