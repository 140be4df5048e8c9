"""A file is a member when it defines the name that its folder asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables import registry
from trainables.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's own, by name."""
    package = tmp_path / f"members_of_{tmp_path.name}"  # names are remembered for good
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plain.py").write_text("def load():\n    return 1\n")
    (package / "assigned.py").write_text("load = print\n")
    (package / "annotated.py").write_text("load: object = print\n")
    (package / "explodes.py").write_text("load = 1\nraise RuntimeError('imported')\n")
    (package / "helper.py").write_text("def other():\n    def load(): pass\n")
    (package / "_private.py").write_text("load = print\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return package.name


def test_members_are_found_without_importing_them(folder: str) -> None:
    assert registry.names(folder, "load") == ("annotated", "assigned", "explodes", "plain")


def test_a_member_is_imported_by_name(folder: str) -> None:
    assert registry.find("thing", folder, "load", "plain").load() == 1


@pytest.mark.parametrize("name", ["helper", "_private", "plian"])
def test_what_is_no_member_is_refused(folder: str, name: str) -> None:
    with pytest.raises(BadInput, match=f"unknown thing '{name}'") as refused:
        registry.find("thing", folder, "load", name)
    assert "There are: annotated, assigned, explodes, plain" in str(refused.value)


@pytest.mark.parametrize("place", [registry.METHODS, registry.DATASETS, registry.FAMILIES])
def test_our_own_members_can_be_imported(place: tuple[str, str]) -> None:
    names = registry.names(*place)
    assert names
    for name in names:
        assert hasattr(registry.find("member", *place, name), place[1])
