"""A workload loads the data and the model that its configuration names."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.small import jsonl, slake, vqa_rad
from trainables.data.common.images import load_images
from trainables.errors import BadInput
from trainables.workload import Workload, WorkloadConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of datasets."""
    for small in (jsonl, slake, vqa_rad):
        folder = tmp_path / small.__name__.rpartition(".")[2]
        folder.mkdir()
        small.write(folder)
    return tmp_path


def test_a_dataset_lies_in_the_folder_or_in_the_one_of_its_name(root: Path) -> None:
    above = WorkloadConfig(data="slake", data_root=str(root)).dataset()
    assert above == WorkloadConfig(data="slake", data_root=str(root / "slake")).dataset()


def test_several_datasets_are_one(root: Path) -> None:
    config = WorkloadConfig(data="jsonl,slake,vqa_rad", data_root=str(root))
    config.check()
    data = config.dataset()
    assert data.name == config.data
    assert {e.question_id.split(":")[0] for e in data.test} == {"jsonl", "slake", "vqa_rad"}


def test_a_dataset_split_by_image_keeps_its_split_when_joined(root: Path) -> None:
    both, alone = (
        WorkloadConfig(data=data, data_root=str(root), split="by_image").dataset()
        for data in ("jsonl,vqa_rad", "vqa_rad")
    )
    joined = {e.question_id for e in both.test if e.question_id.startswith("vqa_rad:")}
    assert joined == {f"vqa_rad:{e.question_id}" for e in alone.test}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "phantom,slak"}, "unknown dataset 'slak'; did you mean 'slake'"),
        ({"data": "phantom,"}, "unknown dataset ''"),
        ({"data": "phantom,phantom"}, "names a dataset twice"),
        ({"split": "image"}, "unknown split 'image'"),
        ({"data_root": "/nowhere"}, "is not a folder"),
    ],
)
def test_bad_input_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        WorkloadConfig(**given).check()


def test_images_are_those_of_the_dataset_in_its_order(root: Path) -> None:
    workload = Workload.load(WorkloadConfig(data="jsonl", data_root=str(root)))
    paths = [path for _, path in workload.dataset.images()]
    assert np.array_equal(workload.images_NSSC, load_images(paths, workload.model.image_size))
    examples, rows = workload.dataset.train, workload.rows["train"]
    assert [paths[row.image] for row in rows] == [example.image for example in examples]
    assert workload.batch("train", [0, 1]).question_BQ.shape[0] == 2


@pytest.mark.parametrize(
    ("answers", "tokens"),
    [
        (["yes"] * 90 + ["left lung"] * 10, 10),  # as MISS was trained
        (["normal heart"] * 10 + ["the heart is normal and the lungs are clear of it"] * 90, 13),
        (["no"] * 199 + ["the heart is normal and the lungs are clear of it"], 10),  # 1 in 200
    ],
)
def test_answers_may_be_as_long_as_training_answers_are(
    tmp_path: Path, answers: list[str], tokens: int
) -> None:
    lines = [
        {**line, "split": split, "answer": answer}
        for split in ("train", "validation", "test")
        for line, answer in zip(itertools.cycle(jsonl.rows()), answers, strict=False)
    ]
    jsonl.write(tmp_path, lines)
    workload = Workload.load(WorkloadConfig(data="jsonl", data_root=str(tmp_path)))
    assert workload.answer_tokens == tokens
    for rows in workload.rows.values():
        assert max(len(row.answer) for row in rows) <= tokens
        assert len({row.answer[-1] for row in rows}) == 1, "what is cut keeps its end"
    assert workload.with_dataset(workload.dataset).answer_tokens == tokens


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "[" * 100_000])
def test_a_damaged_configuration_of_a_model_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match="give back the model's file"):
        WorkloadConfig(model=str(tmp_path)).check()


def test_a_workload_is_divided_anew_with_the_same_images_and_tokens(root: Path) -> None:
    loaded = Workload.load(WorkloadConfig(data="jsonl", data_root=str(root), split="by_image"))
    other = loaded.divided(1)
    assert other is loaded.divided(1) and loaded.divided(0) is loaded
    assert other.images_NSSC is loaded.images_NSSC and other.dataset.digest != loaded.dataset.digest
    assert other.answer_tokens == loaded.answer_tokens
    anew = Workload.from_parts(
        loaded.model, other.dataset, loaded.device, None, loaded.answer_tokens
    )
    assert other.rows == anew.rows and np.array_equal(other.images_NSSC, anew.images_NSSC)
