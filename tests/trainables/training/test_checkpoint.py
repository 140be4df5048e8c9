"""A trial goes on from its last whole checkpoint as if nothing had happened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainables.cut_short import cut, every_cut
from tests.trainables.training.trials import config, losses
from trainables.training.trial import Trial
from trainables.workload import Workload


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_restored_trial_goes_on_as_if_nothing_had_happened(
    workload: Workload, tmp_path: Path, stop: int
) -> None:
    dropping = config(workload, tuning={"dropout": 0.3})
    whole = Trial(workload, dropping)
    expected = losses(whole, 8)
    first = Trial(workload, dropping)
    losses(first, stop)
    first.save(tmp_path, {"rung": stop})
    del first
    torch.manual_seed(99)
    second = Trial(workload, dropping)
    assert second.restore(tmp_path)
    assert (second.examples_seen, second.report) == (8 * stop, {"rung": stop})
    assert losses(second, 8 - stop) == pytest.approx(expected[stop:], abs=1e-6)
    assert second.validation_loss() == pytest.approx(whole.validation_loss(), abs=1e-6)


def test_the_last_whole_save_counts(workload: Workload, tmp_path: Path) -> None:
    trial = Trial(workload, config(workload))
    assert not trial.restore(tmp_path / "none")
    for _ in range(2):
        losses(trial, 1)
        trial.save(tmp_path)
    trial.save(tmp_path)  # again at the same point
    (tmp_path / "partial-000000000099-1").mkdir()  # killed while it saved
    other = Trial(workload, config(workload))
    assert other.restore(tmp_path)
    assert (other.examples_seen, other.report) == (16, {})
    losses(other, 1)
    other.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["000000000024"]


def save_twice(trial: Trial, folder: Path, beside: Path) -> None:
    """Save after one step and after two; the first checkpoint stays, as if a machine had failed."""
    losses(trial, 1)
    trial.save(folder, {"rung": 1})
    shutil.copytree(folder, beside)
    losses(trial, 1)
    trial.save(folder, {"rung": 2})
    shutil.copytree(beside, folder, dirs_exist_ok=True)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an earlier version"])
def test_of_checkpoints_that_are_cut_short_the_one_before_counts(
    made: Callable[..., Workload], tmp_path: Path, listed: bool
) -> None:
    workload = made("llava")
    dropping = config(workload, tuning={"dropout": 0.3})
    undisturbed = Trial(workload, dropping)
    expected = [*losses(undisturbed, 4), undisturbed.validation_loss()]
    save_twice(Trial(workload, dropping), tmp_path / "whole", tmp_path / "first")
    tried = 0
    for what, folder in every_cut(tmp_path / "whole", tmp_path / "cut", listed=listed):
        trial = Trial(workload, dropping)
        assert trial.restore(folder), what
        assert (trial.examples_seen, trial.report) == (8, {"rung": 1}), what
        assert trial.broken == ([16] if listed or "engine.txt" not in what else []), what
        assert [*losses(trial, 3), trial.validation_loss()] == expected[1:], what
        tried += 1
    assert tried == (15 if listed else 12)


def test_without_a_whole_checkpoint_a_trial_begins_anew(
    made: Callable[..., Workload], tmp_path: Path
) -> None:
    workload = made("llava")
    expected = losses(Trial(workload, config(workload)), 3)
    trial = Trial(workload, config(workload))
    losses(trial, 2)
    trial.save(tmp_path / "whole")
    for what, folder in every_cut(tmp_path / "whole", tmp_path / "cut"):
        again = Trial(workload, config(workload))
        assert not again.restore(folder), what
        assert (again.examples_seen, again.broken) == (0, [16]), what
        assert losses(again, 2) == expected[:2], what
        again.save(folder)  # in the place of the one that is cut short
        assert [path.name for path in folder.iterdir()] == ["000000000016"], what
        third = Trial(workload, config(workload))
        assert third.restore(folder) and third.examples_seen == 16, what
        if "report" in what:
            assert losses(third, 1) == expected[2:], what


@pytest.mark.parametrize("lost", ["trained.safetensors", "optimizer.pt", "report.json"])
@pytest.mark.parametrize("damage", ["zeros", "gone"])
def test_files_that_are_damaged_or_gone_are_found_out(
    workload: Workload, tmp_path: Path, lost: str, damage: str
) -> None:
    save_twice(Trial(workload, config(workload)), tmp_path / "whole", tmp_path / "first")
    file = tmp_path / "whole" / "000000000016" / lost
    size = file.stat().st_size
    file.unlink()
    if damage == "zeros":  # the size reached the disk, and what is in it did not
        file.write_bytes(bytes(size))
    trial = Trial(workload, config(workload))
    assert trial.restore(tmp_path / "whole") and trial.examples_seen == 8


def test_a_checkpoint_has_its_name_when_it_is_on_the_disk(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trial"
    trial = Trial(workload, config(workload))
    done: list[int | str] = []
    sync, rename = os.fsync, Path.rename

    def synced(number: int) -> None:
        done.append(os.fstat(number).st_ino)
        sync(number)

    def renamed(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    trial.save(folder)
    (checkpoint,) = folder.iterdir()
    before, after = done[: done.index("renamed")], done[done.index("renamed") :]
    inside = [path.stat().st_ino for path in checkpoint.iterdir()]
    assert set(before) == {*inside, checkpoint.stat().st_ino}
    assert after == ["renamed", folder.stat().st_ino]


def test_the_older_checkpoint_stays_until_the_newer_was_looked_at(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, rename = Trial(workload, config(workload)), Path.rename
    losses(trial, 1)
    trial.save(tmp_path)

    def losing(path: Path, target: Path) -> Path:
        cut(path / "optimizer.pt", "by a byte")
        return rename(path, target)

    losses(trial, 1)
    with monkeypatch.context() as disk:
        disk.setattr(Path, "rename", losing)
        with pytest.raises(OSError, match="000000000016 is not there as it was written"):
            trial.save(tmp_path)
    other = Trial(workload, config(workload))
    assert other.restore(tmp_path) and other.examples_seen == 8
