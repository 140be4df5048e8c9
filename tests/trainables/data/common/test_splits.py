"""Splits by image, and datasets joined."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainables.data import made
from tests.trainables.data.small import jsonl as small_jsonl
from tests.trainables.data.small import slake as small_slake
from trainables.data import jsonl, phantom, slake, slake_zh, vqa_rad
from trainables.data.common.dataset import Dataset, seal
from trainables.data.common.splits import by_image, joined
from trainables.errors import BadInput

REAL = Path(__file__).parents[5] / "shared" / "data" / "vqa_rad"


def sides(dataset: Dataset) -> dict[str, str]:
    """Content of an image -> the only split that it is in."""
    found: dict[str, str] = {}
    for split, examples in dataset.splits().items():
        for example in examples:
            assert found.setdefault(dataset.contents[example.image_id], split) == split
    return found


def test_no_image_is_in_two_splits_whatever_it_is_called(tmp_path: Path) -> None:
    """Forty pictures, each under two names, in whatever split."""
    asked = [
        made.Asked(split=split, picture=number, image=f"{split}{number}.png")
        for number in range(40)
        for split in ("train", "test")
    ]
    data = made.dataset(tmp_path, [*asked, made.Asked(split="validation", picture=0)])
    anew = by_image(data)
    assert len(sides(anew)) == 40
    assert Counter(e for s in anew.splits().values() for e in s) == Counter(
        e for s in data.splits().values() for e in s
    )
    assert anew.digest != data.digest
    assert anew.contents == data.contents


def test_the_same_image_goes_the_same_way_in_every_dataset(tmp_path: Path) -> None:
    small_jsonl.write(tmp_path)
    data = jsonl.load(tmp_path)
    few = made.dataset(
        tmp_path / "few",
        [made.Asked(split=("train", "validation", "test")[i % 3], picture=i) for i in range(30)],
    )
    assert sides(by_image(data)) == sides(by_image(few))


def test_the_split_is_the_same_for_ever() -> None:
    """Studies are compared by it: another way of splitting needs another name."""
    anew = by_image(phantom.load(None))
    counts = [len(examples) for examples in anew.splits().values()]
    assert counts == [1612, 259, 415]
    assert anew.digest == "0ce67d58539ca8f53c82c9a9f4b42be7df49e503105970291337ce1da5fbb654"


def test_each_further_split_divides_the_same_images_anew() -> None:
    """Studies are continued by these splits: another way of making them needs another name."""
    first = by_image(phantom.load(None))
    second, third = by_image(first, 1), by_image(first, 2)
    assert (len(second.test), len(third.test)) == (426, 450)
    for other in (second, third):
        assert other.contents == first.contents and len(sides(other)) == 540
        assert Counter(e for s in other.splits().values() for e in s) == Counter(
            e for s in first.splits().values() for e in s
        )
    assert len({first.digest, second.digest, third.digest}) == 3
    of_first, of_second = sides(first), sides(second)
    shared = sum(side == "test" == of_second[image] for image, side in of_first.items())
    assert 10 < shared < 35, "a fifth of the fifth of 540 images: 22"
    assert by_image(first).digest == first.digest


def test_the_images_of_a_patient_go_the_same_way() -> None:
    drawn = phantom.load(None)
    patients = {image: f"p{i // 3}" for i, (image, _) in enumerate(drawn.images())}
    named = {
        split: [replace(e, patient=patients[e.image_id]) for e in examples]
        for split, examples in drawn.splits().items()
    }
    data = seal(name="p", description="", contents=drawn.contents, **named)
    assert data.digest == drawn.digest, "whose image it is changes no trial"
    anew = by_image(data)
    assert len(sides(anew)) == 540 and anew.digest != by_image(drawn).digest
    found = [{e.patient for e in examples} for examples in anew.splits().values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 180
    both = joined([data, replace(drawn, name="q")])
    assert {e.patient[:3] for e in both.train} == {"p:p", ""}


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    asked = [made.Asked(split=s, picture=0) for s in ("train", "validation", "test")]
    with pytest.raises(BadInput, match=r"none of its 1 images falls into .*keep the official"):
        by_image(made.dataset(tmp_path, asked))


def test_joined_datasets_are_named_in_their_ids(tmp_path: Path) -> None:
    small_slake.write(tmp_path)
    english, chinese = slake.load(tmp_path), slake_zh.load(tmp_path)
    both = joined([english, chinese])
    assert both.name == "slake,slake_zh"
    assert len(both.test) == len(english.test) + len(chinese.test)
    assert both.test[0].question_id == f"slake:{english.test[0].question_id}"
    assert both.test[-1].image_id == f"slake_zh:{chinese.test[-1].image_id}"
    assert both.contents["slake:xmlab0/source.jpg"] == english.contents["xmlab0/source.jpg"]
    assert both.digest not in (english.digest, chinese.digest, joined([chinese, english]).digest)
    assert joined([english]) is english
    with pytest.raises(BadInput, match="used twice"):
        joined([english, english])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real VQA-RAD is not in {REAL}")
def test_the_real_vqa_rad_by_image() -> None:
    data = by_image(vqa_rad.load(REAL))
    assert len(sides(data)) == 314
    assert {s: len(e) for s, e in data.splits().items()} == {
        "train": 1566,
        "validation": 231,
        "test": 451,
    }
