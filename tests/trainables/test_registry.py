"""A file is a member when it defines the name that its folder asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.errors import BadInput
from trainables.registry import Registry


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A package of the user's own."""
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
    return Registry("thing", package.name, "load")


def test_members_are_found_without_importing_them(things: Registry) -> None:
    assert things.names() == ("annotated", "assigned", "explodes", "plain")


def test_a_member_is_imported_by_name(things: Registry) -> None:
    assert things.find("plain").load() == 1


def test_a_text_of_a_member_is_read_without_importing_it(things: Registry) -> None:
    file = things.folder / "explodes.py"
    file.write_text('OLDEST = "5.4"\nNUMBER = 3\n' + file.read_text())
    assert things.text("explodes", "OLDEST") == "5.4"
    assert things.text("explodes", "NUMBER") == things.text("plain", "OLDEST") == ""


@pytest.mark.parametrize("name", ["helper", "_private", "plian"])
def test_what_is_no_member_is_refused(things: Registry, name: str) -> None:
    with pytest.raises(BadInput, match=f"unknown thing '{name}'") as refused:
        things.find(name)
    assert "here are: annotated, assigned, explodes, plain" in str(refused.value)


def test_a_file_that_is_no_python_is_named_in_one_line(things: Registry) -> None:
    (things.folder / "cut_off.py").write_text("def load():\n    return (\n")
    with pytest.raises(BadInput, match=r"cut_off\.py, line 2: .* never closed; mend or remove it"):
        things.names()


def test_the_help_of_an_option_lists_files_without_reading_them(things: Registry) -> None:
    (things.folder / "cut_off.py").write_text("def load():\n    return (\n")
    assert {"cut_off", "plain"} <= {*things.listed()} and "_private" not in things.listed()
