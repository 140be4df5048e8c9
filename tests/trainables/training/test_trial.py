"""The loop has its golden losses and data order, stops and continues, and fails clearly."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.cut_short import cut, every_cut
from trainables.engine.training_settings import TrainingSettings
from trainables.errors import BadInput
from trainables.model_contract import Batch
from trainables.recipe import Recipe
from trainables.training.regime import Regime
from trainables.training.trial import Diverged, Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

GOLDEN = Path(__file__).with_name("golden_losses.json")
"""family/method -> training loss of each step, then the validation loss. They hold a refactoring to
the same arithmetic. Where the arithmetic is changed on purpose, write them anew with
``GOLDEN=write pytest tests/trainables/training/test_trial.py -k golden`` and say why in the
commit."""

QUESTIONS = 24  # of the made-up training split


def config(workload: Workload, method: str = "lora", **settings: Any) -> TrialConfig:
    tuning = {"method": method, "everywhere": True, **settings.pop("tuning", {})}
    return TrialConfig(
        **{
            "recipe": Recipe.of(dict.fromkeys(workload.model.slots, tuning)),
            "lr": 3e-3,
            "seed": 0,
            "max_examples": 64,
            "batch_size": 8,
            **settings,
        }
    )


def warmed(share: float) -> TrainingSettings:
    return TrainingSettings(warmup=share)


def losses(trial: Trial, steps: int) -> list[float]:
    size = trial.config.batch_size
    return [trial.train(trial.examples_seen + size) for _ in range(steps)]


@pytest.mark.parametrize("method", ["layernorm", "lora", "full"])
def test_golden_losses(family: str, workload: Workload, method: str) -> None:
    trial = Trial(workload, config(workload, method))
    found = [*losses(trial, 8), trial.validation_loss()]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("GOLDEN") == "write":
        golden[f"{family}/{method}"] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    if not any(key.startswith(f"{family}/") for key in golden):
        pytest.skip(f"GOLDEN=write pytest -k golden_losses writes those of {family}")
    assert found == pytest.approx(golden[f"{family}/{method}"], rel=1e-4)


def test_two_runs_agree_to_the_bit_whatever_runs_beside_them(workload: Workload) -> None:
    dropping = config(workload, tuning={"dropout": 0.3})
    alone = Trial(workload, dropping)
    expected = [*losses(alone, 6), alone.validation_loss()]
    trial, neighbour = Trial(workload, dropping), Trial(workload, config(workload, "full", seed=5))
    found = []
    for _ in range(6):
        torch.rand(7)  # somebody else uses torch's generator
        found += losses(trial, 1)
        losses(neighbour, 1)
    assert [*found, trial.validation_loss()] == expected
    assert trial.answers("test") == alone.answers("test")


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


def test_the_seed_changes_data_and_adapters(workload: Workload) -> None:
    one, other = (Trial(workload, config(workload, seed=seed)) for seed in (0, 1))
    assert losses(one, 2) != losses(other, 2)


@pytest.mark.parametrize("batch_size", [5, 8])
def test_every_question_is_seen_once_an_epoch(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    seen: list[int] = []
    whole = Workload.batch

    def noted(self: Workload, split: str, indices: Sequence[int]) -> Batch:
        assert split == "train"
        seen.extend(indices)
        return whole(self, split, indices)

    monkeypatch.setattr(Workload, "batch", noted)
    trial = Trial(workload, config(workload, "layernorm", batch_size=batch_size))
    trial.train(3 * QUESTIONS)
    epochs = [seen[i : i + QUESTIONS] for i in range(0, 3 * QUESTIONS, QUESTIONS)]
    assert all(sorted(epoch) == list(range(QUESTIONS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert trial.examples_seen == math.ceil(3 * QUESTIONS / batch_size) * batch_size


def test_the_schedule(workload: Workload) -> None:
    schedule = config(workload, lr=2.0, max_examples=100, batch_size=2, training=warmed(0.2)).lr_at
    assert [schedule(n + 1) for n in (5, 10, 20)] == pytest.approx([0.5, 1.0, 2.0])
    assert [schedule(n + 1) for n in (40, 60, 100, 120)] == pytest.approx(
        [1 + math.sqrt(0.5), 1.0, 0.0, 0.0]
    )
    assert config(workload, lr=2.0, training=warmed(0), batch_size=2).lr_at(1) == 2.0


@pytest.mark.parametrize(
    ("schedule", "rates"), [("linear", [2.0, 1.5, 1.0, 0.0]), ("constant", [2.0, 2.0, 2.0, 2.0])]
)
def test_other_schedules_rise_alike(workload: Workload, schedule: str, rates: list[float]) -> None:
    training = TrainingSettings(warmup=0.2, schedule=schedule)
    lr_at = config(workload, lr=2.0, max_examples=100, batch_size=2, training=training).lr_at
    assert [lr_at(n + 1) for n in (5, 10)] == pytest.approx([0.5, 1.0])
    assert [lr_at(n + 1) for n in (20, 40, 60, 100)] == pytest.approx(rates)


@pytest.mark.parametrize("max_examples", [1, 8, 9, 100])
def test_no_step_is_wasted_on_a_learning_rate_of_0(workload: Workload, max_examples: int) -> None:
    few = config(workload, lr=1.0, max_examples=max_examples, training=warmed(0))
    steps = math.ceil(max_examples / few.batch_size)
    rates = [few.lr_at(few.batch_size * step) for step in range(1, steps + 1)]
    assert all(1 > rate > 0 for rate in rates)
    assert sum(rates) / steps == pytest.approx(0.5, abs=1e-9), "a cosine's mean"


def test_the_schedule_reaches_the_optimizer(workload: Workload) -> None:
    """Two trials that differ in nothing but what comes after the first step agree on that step."""
    short, long = (
        Trial(workload, config(workload, "layernorm", max_examples=n, training=warmed(0)))
        for n in (16, 64)
    )
    assert losses(short, 1) == losses(long, 1)
    assert losses(short, 1) != losses(long, 1)


def test_the_mean_loss_is_over_the_steps(workload: Workload) -> None:
    one, other = (Trial(workload, config(workload)) for _ in range(2))
    assert one.train(32) == pytest.approx(sum(losses(other, 4)) / 4, rel=1e-6)


def test_label_smoothing_is_trained_with_and_not_validated_with(workload: Workload) -> None:
    plain, smooth = (
        Trial(workload, config(workload, regime=Regime(label_smoothing=share)))
        for share in (0.0, 0.1)
    )
    assert plain.validation_loss() == smooth.validation_loss()
    assert losses(plain, 1) != losses(smooth, 1)
    assert plain.validation_loss() != smooth.validation_loss()


def test_grouped_questions_need_fewer_images_and_come_in_the_order_of_their_own(
    workload: Workload,
) -> None:
    plain, grouped = (
        Trial(workload, config(workload, regime=Regime(questions_per_image=together)))
        for together in (1, 4)
    )
    images = [len(trial.batch("train", trial.upcoming()).pixels_UCSS) for trial in (plain, grouped)]
    assert images[1] < images[0]
    assert losses(plain, 1) != losses(grouped, 1)


def test_batches_by_length_have_less_padding(workload: Workload) -> None:
    padding = []
    for by in (False, True):
        trial, padded = Trial(workload, config(workload, regime=Regime(group_by_length=by))), 0
        for _ in range(16):
            batch = trial.batch("train", trial.upcoming())
            for mask in (batch.question_mask_BQ, batch.answer_mask_BA):
                padded += int((mask == 0).sum())
            trial.examples_seen += trial.config.batch_size
        padding.append(padded)
    assert padding[1] < 0.7 * padding[0]


def test_every_validation_question_has_the_same_weight(workload: Workload) -> None:
    whole, model = Trial(workload, config(workload)), workload.model
    pieces = Trial(workload, config(workload), evaluation_batch=3)
    questions = len(workload.rows["validation"])
    alone = [
        float(model.losses(model.network, workload.batch("validation", [i])))
        for i in range(questions)
    ]
    for trial in (whole, pieces):
        assert trial.validation_loss() == pytest.approx(sum(alone) / questions, abs=1e-5)


def test_answers_are_in_the_order_of_the_data(workload: Workload) -> None:
    trial, model = Trial(workload, config(workload), evaluation_batch=3), workload.model
    alone = [
        model.answers(model.network, workload.batch("test", [i]))[0]
        for i in range(len(workload.rows["test"]))
    ]
    assert trial.answers("test") == alone


def test_what_trains_nothing_can_be_looked_at(workload: Workload, tmp_path: Path) -> None:
    trial = Trial(workload, config(workload, "frozen"))
    assert math.isfinite(trial.validation_loss())
    assert len(trial.answers("test")) == len(workload.rows["test"])
    for impossible in (
        lambda: trial.train(8),
        lambda: trial.save(tmp_path),
        lambda: trial.restore(tmp_path),
    ):
        with pytest.raises(BadInput, match="recipe frozen trains nothing"):
            impossible()


@pytest.mark.deepspeed
def test_a_base_that_is_not_on_the_device_is_brought_there_for_each_trial(
    workload: Workload,
) -> None:
    assert workload.resident
    elsewhere = replace(workload, device=torch.device("meta"))
    assert not elsewhere.resident
    brought = Trial(elsewhere, config(workload, "frozen")).losses.network
    assert {p.device.type for p in [*brought.parameters(), *brought.buffers()]} == {"meta"}
    assert {p.device.type for p in workload.model.network.parameters()} == {"cpu"}
    divided = Trial(elsewhere, config(workload, "lora"), deepspeed="3").losses.network
    assert {p.device.type for p in divided.parameters()} == {"cpu"}, "by DeepSpeed, bit by bit"


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


def test_a_huge_learning_rate_diverges(workload: Workload) -> None:
    trial = Trial(workload, config(workload, "full", lr=1e30, training=warmed(0)))
    with pytest.raises(Diverged, match=r"loss is (nan|inf) at \d+ examples"):
        trial.train(64)
        trial.validation_loss()


def test_a_validation_loss_that_is_no_number_diverges(workload: Workload) -> None:
    trial = Trial(workload, config(workload, "layernorm"))
    with torch.no_grad():
        next(iter(trial.applied.parameters.values())).fill_(math.nan)
    with pytest.raises(Diverged, match="validation loss is nan at 0 examples"):
        trial.validation_loss()
    with pytest.raises(Diverged, match="training loss is nan at 8 examples"):
        trial.train(8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", math.inf),
        ("max_examples", 0),
        ("batch_size", -1),
    ],
)
def test_settings_that_make_no_sense_are_refused(workload: Workload, name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{name} must .* but got {value}"):
        config(workload, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("questions_per_image", 0)],
)
def test_a_regime_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{name} must .* but got {value}"):
        Regime(**{name: value})


def test_questions_come_by_image_or_by_length() -> None:
    with pytest.raises(BadInput, match="questions_per_image 2 and group_by_length: give one"):
        Regime(questions_per_image=2, group_by_length=True)
