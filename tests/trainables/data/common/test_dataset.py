"""What ``build`` refuses, what the digest covers, and how a split is carved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainables.data.common.dataset import Dataset, Example, build, carve
from trainables.errors import BadInput


def example(root: Path, number: int) -> Example:
    image = root / f"{number}.pgm"
    image.write_bytes(b"P5\n1 1\n255\n" + bytes([number]))
    return Example(
        question_id=f"q{number}",
        image_id=f"i{number}",
        image=image,
        question="is this a ct?",
        answer="yes",
        answer_type="closed",
    )


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, list[Example]]:
    names = ("train", "validation", "test")
    return {name: [example(tmp_path, number)] for number, name in enumerate(names)}


def made(root: Path, splits: dict[str, list[Example]]) -> Dataset:
    return build(name="toy", description="a toy", root=root, **splits)


def test_images_are_listed_once(tmp_path: Path, splits: dict[str, list[Example]]) -> None:
    splits["train"].append(replace(splits["train"][0], question_id="again"))
    ids = [image_id for image_id, _ in made(tmp_path, splits).images()]
    assert ids == ["i0", "i1", "i2"]


def test_an_empty_split_is_refused(tmp_path: Path, splits: dict[str, list[Example]]) -> None:
    with pytest.raises(BadInput, match="validation split is empty"):
        made(tmp_path, {**splits, "validation": []})


def test_a_question_id_used_twice_is_refused(
    tmp_path: Path, splits: dict[str, list[Example]]
) -> None:
    splits["test"][0] = replace(splits["test"][0], question_id="q0")
    with pytest.raises(BadInput, match=r"'q0'.*used twice"):
        made(tmp_path, splits)


def test_one_image_id_for_two_files_is_refused(
    tmp_path: Path, splits: dict[str, list[Example]]
) -> None:
    splits["test"][0] = replace(splits["test"][0], image_id="i0")
    with pytest.raises(BadInput, match="one id is one file"):
        made(tmp_path, splits)


def test_missing_images_are_counted_and_the_first_named(
    tmp_path: Path, splits: dict[str, list[Example]]
) -> None:
    (tmp_path / "1.pgm").unlink()
    (tmp_path / "2.pgm").unlink()
    with pytest.raises(BadInput, match=r"2 of 3 images are missing, first .*1\.pgm"):
        made(tmp_path, splits)


@pytest.mark.parametrize("path", ["../outside.pgm", "a/../../outside.pgm"])
def test_a_path_that_leaves_the_root_is_refused(
    tmp_path: Path, splits: dict[str, list[Example]], path: str
) -> None:
    splits["test"][0] = replace(splits["test"][0], image=tmp_path / path)
    with pytest.raises(BadInput, match="outside"):
        made(tmp_path, splits)


def test_the_digest_is_of_the_content_not_of_the_place(
    tmp_path: Path, splits: dict[str, list[Example]]
) -> None:
    before = made(tmp_path, splits).digest
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = {name: [example(elsewhere, i)] for i, name in enumerate(splits)}
    assert made(elsewhere, moved).digest == before

    (tmp_path / "0.pgm").write_bytes(b"P5\n1 1\n255\n\x09")
    assert made(tmp_path, splits).digest != before
    answer = {**moved, "test": [replace(moved["test"][0], answer="no")]}
    assert made(elsewhere, answer).digest != before


def test_carving_goes_by_image_alone(tmp_path: Path) -> None:
    examples = [example(tmp_path, number) for number in range(200)]
    twice = examples + [replace(e, question_id=f"{e.question_id}b") for e in examples]
    rest, carved = carve(twice, share=0.25, salt="s")
    assert {e.image_id for e in rest}.isdisjoint(e.image_id for e in carved)
    assert 0.15 < len(carved) / len(twice) < 0.35
    fewer, _ = carve(examples[:50], share=0.25, salt="s")
    assert set(fewer) <= set(rest)  # further images move none of those before
    assert carve(twice, share=0.25, salt="other")[1] != carved
