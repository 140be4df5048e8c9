"""What every dataset keeps. A file in ``trainables/data`` joins by being there.

A dataset that can't do without files brings ``small(root, picture)``, which writes a small copy of
the form in which its authors publish it. Where other tests vary the copy, it is ``write(root)`` of
``small/NAME.py`` here instead. Where ../shared/data/NAME is beside the repository, the real files
are held to the same.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.data.pictures import picture
from trainables import registry
from trainables.data.common.dataset import Dataset
from trainables.data.common.images import load_images
from trainables.errors import BadInput

HERE = Path(__file__).parent
SHARED = HERE.parents[3] / "shared" / "data"
NAMES = registry.DATASETS.names()


def file(case: Case) -> str:
    return f"trainables/data/{case.name}.py"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A dataset and the folder of its files; None: it has none."""

    name: str
    root: Path | None

    def load(self) -> Dataset:
        found = registry.DATASETS.find(self.name).load(self.root)
        assert isinstance(found, Dataset), (
            f"load of {file(self)} must return what dataset.build made, but it returned a "
            f"{type(found).__name__}"
        )
        return found


def small(name: str, root: Path) -> Case:
    """The dataset's small copy, in ``root``."""
    module: Any = registry.DATASETS.find(name)
    try:
        module.load(None)
    except BadInput:
        if hasattr(module, "small"):
            module.small(root, picture)
            return Case(name=name, root=root)
        assert (HERE / "small" / f"{name}.py").is_file(), (
            f"dataset {name!r} needs a folder to read, so trainables/data/{name}.py must also "
            "define small(root, picture), which writes a small copy of its format to root; "
            "picture(path, number) draws one of its images. The contract tests read the copy."
        )
        importlib.import_module(f"tests.trainables.data.small.{name}").write(root)
        return Case(name=name, root=root)
    except Exception as error:  # of a dataset that breaks the contract, which the test explains
        pytest.fail(
            f"load(None) of trainables/data/{name}.py raised {error!r}: a dataset that needs a "
            f"folder must raise dataset.needs_root({name!r})"
        )
    return Case(name=name, root=None)


@pytest.fixture(
    scope="module",
    params=[*NAMES, *(f"real {name}" for name in NAMES if (SHARED / name).is_dir())],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    *real, name = str(request.param).split()
    if real:
        return Case(name=name, root=SHARED / name)
    return small(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def data(case: Case) -> Dataset:
    return case.load()


def test_is_named_after_its_file_and_described_in_one_line(case: Case, data: Dataset) -> None:
    assert data.name == case.name, f"{file(case)} must give dataset.build name={case.name!r}"
    assert data.description, f"{file(case)} must give dataset.build a description, of one line"
    assert "\n" not in data.description, f"the description of {file(case)} has several lines"


def test_questions_and_answers_are_texts(data: Dataset) -> None:
    for split, examples in data.splits().items():
        for example in examples:
            assert example.question.strip() and example.answer.strip(), (
                f"question {example.question_id!r} of {data.name} ({split}) or its answer is empty"
            )


def test_every_split_has_the_same_types_of_questions(data: Dataset) -> None:
    types = {example.answer_type for example in data.train}
    for examples in data.splits().values():
        assert {example.answer_type for example in examples} == types, (
            f"the splits of {data.name} must ask for the same types of answers"
        )


def test_question_ids_are_unique(data: Dataset) -> None:
    ids = [example.question_id for examples in data.splits().values() for example in examples]
    assert len(set(ids)) == len(ids)


def test_training_and_validation_share_no_image(data: Dataset) -> None:
    train = {example.image_id for example in data.train}
    both = train & {example.image_id for example in data.validation}
    assert not both, (
        f"train and validation of {data.name} share images: {sorted(both)[:3]}; a dataset without "
        "a validation split of its own makes one with dataset.carve, which divides by image"
    )


def test_the_content_of_every_image_is_known(data: Dataset) -> None:
    ids, paths = zip(*data.images(), strict=True)
    assert list(ids) == sorted(set(ids)) == sorted(data.contents)
    images = load_images(paths[:8], 32)
    assert images.shape == (len(paths[:8]), 32, 32, 3)
    assert all(image.std() > 5 for image in images), f"images of {data.name} show nothing"


def test_loads_the_same_twice(case: Case, data: Dataset) -> None:
    assert case.load() == data, (
        f"{file(case)} gives other questions or another order each time: sort what a folder lists, "
        "and draw nothing at random"
    )


@pytest.fixture
def copied(name: str, tmp_path: Path) -> Case:
    """A small copy of a dataset's own folder, for a test to damage."""
    case = small(name, tmp_path)
    if case.root is None:
        pytest.skip(f"{name} makes its own files")
    return case


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_or_cut_off_is_named(copied: Case) -> None:
    (_, cut), *_, (_, gone) = copied.load().images()
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(BadInput, match=f"{cut} can't be read"):
        load_images([path for _, path in copied.load().images()], 32)
    gone.unlink()
    with pytest.raises(BadInput, match=f"1 of .* images are missing, first {gone}"):
        copied.load()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_complained_about_in_one_line(copied: Case, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    try:
        Case(name=copied.name, root=tmp_path / "empty").load()
    except Exception as error:  # of a dataset that breaks the contract, which the test explains
        said = isinstance(error, BadInput) and str(error)
        assert said and re.fullmatch(f"{copied.name}: .* has no .*--data-root", said), (
            f"in an empty folder {file(copied)} says {error!r}: it must find its files with "
            f"published_files.first({copied.name!r}, root, [FILE]), which says what is missing"
        )
    else:
        pytest.fail(f"{file(copied)} finds something in an empty folder")
