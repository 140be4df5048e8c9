"""Datasets as they are copied to the hub: parquet with the images in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.trainables.data.pictures import picture
from trainables.data import path_vqa, vqa_rad
from trainables.data.common.images import load_images
from trainables.errors import BadInput
from trainables.workload import WorkloadConfig


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medvlm-study"


def rows(tmp_path: Path, first: int, count: int) -> list[dict[str, Any]]:
    """Two questions about each picture, as the hub's libraries write them."""
    found = []
    for number in range(first, first + count):
        image = {"bytes": picture(tmp_path / f"{number}.jpg", number).read_bytes(), "path": None}
        found.append({"image": image, "question": "is this a ct ?", "answer": "Yes"})
        found.append({"image": image, "question": "what is this ?", "answer": f"organ {number}"})
    return found


def write(file: Path, table: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(table), file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Training in two files; an image of it is in test, too."""
    data = tmp_path / "copy" / "data"
    write(data / "train-00000-of-00002-ab.parquet", rows(tmp_path, 0, 20))
    write(data / "train-00001-of-00002-cd.parquet", rows(tmp_path, 20, 10))
    write(data / "test-00000-of-00001-ef.parquet", rows(tmp_path, 29, 3))
    return tmp_path / "copy"


def test_vqa_rad_has_its_validation_images_carved(root: Path, cache: Path) -> None:
    data = vqa_rad.load(root)
    assert len(data.train) + len(data.validation) == 60 and len(data.test) == 6
    assert 0 < len(data.validation) < 20
    assert len(data.images()) == 32, "equal bytes are one image"
    closed, opened, *_ = data.test
    assert (closed.answer, closed.answer_type) == ("Yes", "closed")
    assert (opened.answer, opened.answer_type) == ("organ 29", "open")
    assert load_images([opened.image], 48).std() > 10
    assert WorkloadConfig(data="vqa_rad", data_root=str(root)).dataset() == data
    assert len(list((cache / "unpacked").glob("vqa_rad-*/*"))) == 32


def test_path_vqa_has_three_splits(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the validation split is empty"):
        path_vqa.load(root)
    write(root / "data" / "validation-00000-of-00001.parquet", rows(tmp_path, 40, 2))
    data = path_vqa.load(root)
    assert [len(examples) for examples in data.splits().values()] == [60, 4, 6]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train-0.parquet", b"PAR1 and no more", "can't be read"),
        ("dev-0.parquet", None, "is of no split; a file's name begins with train, validation"),
        ("train-0.parquet", [{"image": {"bytes": b"", "path": "x.jpg"}}], "has no column question"),
        (
            "train-0.parquet",
            [{"image": {"bytes": None, "path": "x.jpg"}, "question": "a", "answer": "b"}],
            r"row 1 of .*parquet: image.bytes should be bytes, not null",
        ),
        (
            "train-0.parquet",
            [{"image": {"bytes": b"", "path": "x.jpg"}, "question": "a", "answer": "b"}],
            r"row 1 of .*parquet: image: its bytes are missing",
        ),
        (
            "train-0.parquet",
            [{"image": b"1", "question": "a", "answer": "b"}],
            r"row 1 of .*parquet: image should be an object, not b'1'",
        ),
        (
            "train-0.parquet",
            [{"image": {"bytes": b"1", "path": None}, "question": "a", "answer": float("nan")}],
            r"row 1 of .*parquet: answer should be a text, not NaN",
        ),
        (
            "train-0.parquet",
            [
                {"image": {"bytes": b"1", "path": None}, "question": q, "answer": "b"}
                for q in ("a", None)
            ],
            r"row 2 of .*parquet: question should be a text, not null",
        ),
    ],
)
def test_another_form_is_refused_in_one_line(
    tmp_path: Path, name: str, content: Any, said: str, cache: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        write(tmp_path / name, content or rows(tmp_path, 0, 1))
    with pytest.raises(BadInput, match=said) as refused:
        vqa_rad.load(tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(cache.glob("unpacked/vqa_rad-*"))
