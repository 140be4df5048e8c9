"""A study goes on as it began, or says in one line why it cannot."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from study import report, spaces
from study.settings import Settings, agree, identity, open_folder, precision, read
from trainables.errors import BadInput

SETTINGS = Settings(space="smoke")
SPACE = spaces.load("smoke")


def begin(storage: Path, *, run: Collection[str] = tuple(SPACE.arms), name: str = "one") -> Path:
    return open_folder(storage, name, SETTINGS, SPACE, run=run, base={"precision": "bf16"})


def test_it_keeps_its_precision_and_who_it_is(tmp_path: Path) -> None:
    assert precision(tmp_path, "one", SETTINGS) == "auto", "the devices say"
    who = identity(begin(tmp_path))
    assert identity(begin(tmp_path)) == who != identity(begin(tmp_path, name="other"))
    assert precision(tmp_path, "one", SETTINGS) == "bf16"
    assert precision(tmp_path, "one", replace(SETTINGS, precision="fp32")) == "fp32"


def test_a_space_whose_budget_has_changed_is_another(tmp_path: Path) -> None:
    begin(tmp_path)
    agree(tmp_path, "one", SETTINGS, SPACE)
    changed = replace(SPACE, budget=replace(SPACE.budget, rungs=SPACE.budget.rungs + 1))
    with pytest.raises(BadInput, match="space 'smoke' has changed since study 'one' began"):
        agree(tmp_path, "one", SETTINGS, changed)


def test_an_arm_that_no_longer_fits_is_told(tmp_path: Path) -> None:
    """Which arms are run follows from memory, and so from where it is resumed."""
    begin(tmp_path)
    first, *others = sorted(SPACE.arms)
    with pytest.raises(
        BadInput, match=f"was begun with arms {first}, .* but here it is {others[0]}"
    ):
        begin(tmp_path, run=others)


def test_a_name_with_a_path_in_it_is_no_studys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = begin(tmp_path)
    (elsewhere / "results.json").write_text("{}")
    storage = tmp_path / "studies"
    storage.mkdir()
    begun = begin(storage, name="two")
    for name in ("../one", str(elsewhere), f"two/../../{elsewhere.name}", "."):
        with pytest.raises(BadInput, match=r"unknown study .*There are: two"):
            read(storage, name)
    (begun / "results.json").write_text("{}")
    assert report.main(["../one", "--storage", str(storage)]) == 2
    assert "unknown study with results '../one'" in capsys.readouterr().err
