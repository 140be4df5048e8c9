"""PathVQA: its types of questions, and pickles that would do more than hold data."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from tests.trainables.data.small.path_vqa import rows, write
from trainables.data import path_vqa
from trainables.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


@pytest.fixture
def train(root: Path) -> Path:
    """The pickle of the training split."""
    return root / "pvqa" / "qas" / "train" / "train_qa.pkl"


def test_yes_and_no_are_closed(root: Path) -> None:
    closed, opened, *_ = path_vqa.load(root).test
    assert (closed.answer, closed.answer_type) == ("yes", "closed")
    assert (opened.answer, opened.answer_type) == ("neutrophils", "open")
    assert (closed.question_id, closed.image_id) == ("test-1", "test_0000")
    assert closed.image == root / "pvqa" / "images" / "test" / "test_0000.jpg"


def test_the_archives_folder_may_be_given_itself(root: Path) -> None:
    assert path_vqa.load(root / "pvqa") == path_vqa.load(root)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(root: Path, train: Path, protocol: int) -> None:
    train.write_bytes(pickle.dumps(rows("train"), protocol=protocol))
    assert len(path_vqa.load(root).train) == 4


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_something_is_refused(
    root: Path, train: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    train.write_bytes(pickle.dumps([Harmful()], protocol=protocol))
    with pytest.raises(BadInput, match=r"can't read .*train_qa\.pkl .*mkdir.*published file"):
        path_vqa.load(root)
    assert not (root / "harmed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't read"),
        (b"no pickle", "can't read"),
        (pickle.dumps(rows("train"))[:-20], "can't read"),
        (pickle.dumps(OrderedDict()), "OrderedDict"),
        (pickle.dumps({"a": 1}), "holds no list"),
        (pickle.dumps([1]), "row 1 of .* should be an object, not 1; use the published file"),
        (pickle.dumps([{"image": "train_0000"}]), "row 1 of .* lacks question"),
        (pickle.dumps([{**rows("train")[0], "image": "../../../../secret"}]), "outside"),
        (
            pickle.dumps([{**rows("train")[0], "answer": float("nan")}]),
            "row 1 of .*: answer should be a text, not NaN",
        ),
    ],
    ids=["empty", "text", "cut off", "class", "dict", "number", "lacking", "path", "nan"],
)
def test_other_files_are_refused_in_one_line(
    root: Path, train: Path, content: bytes, message: str
) -> None:
    train.write_bytes(content)
    with pytest.raises(BadInput, match=message) as error:
        path_vqa.load(root)
    assert "\n" not in str(error.value)


def test_says_which_split_is_missing(root: Path) -> None:
    (root / "pvqa" / "images" / "val").rename(root / "elsewhere")
    with pytest.raises(BadInput, match="has no 'images/val'"):
        path_vqa.load(root)
