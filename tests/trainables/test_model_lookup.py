"""A family refuses a transformers that is older than it needs, before it is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainables.installed import install
from trainables import registry
from trainables.errors import BadInput
from trainables.model_lookup import GENERIC, family_of, skeleton_of

TYPES = {name: name.replace("_", "-") for name in registry.FAMILIES.names()} | {GENERIC: "gemma3"}
"""Family -> ``model_type`` of one of its models."""


def oldest(family: str) -> str:
    return registry.FAMILIES.text(family, "TRANSFORMERS")


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": TYPES[request.param]}))
    return folder


@pytest.mark.parametrize(("model", "name"), [(name, name) for name in TYPES], indirect=["model"])
def test_each_family_says_which_transformers_it_needs(
    model: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = oldest(name)
    for installed in (needed, "6.0.0"):
        with monkeypatch.context() as patched:
            (packages := tmp_path / installed).mkdir(exist_ok=True)
            install(packages, "transformers", installed)
            patched.syspath_prepend(str(packages))
            assert family_of(str(model)) == (name, model)
    install(tmp_path, "transformers", "5.8.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = f"a model of type '{TYPES[name]}' needs transformers >= {needed}, installed is 5.8.1"
    with pytest.raises(BadInput, match=said):
        family_of(str(model))


def test_a_preset_needs_what_its_family_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "transformers", "5.9.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = f"'gemma3' needs transformers >= {oldest(GENERIC)}, installed is 5.9.0"
    with pytest.raises(BadInput, match=said):
        skeleton_of("medgemma-4b")
