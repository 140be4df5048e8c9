"""What every dataset keeps to. A new file in trainables/data joins by existing.

A dataset that can't do without files needs ``small/NAME.py`` here, with ``write(root)``: a small
copy of the form in which its authors publish it. Where ../shared/data/NAME is beside the
repository, the real files are held to the same.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainables import registry
from trainables.data.common.dataset import Dataset
from trainables.data.common.images import load_images
from trainables.errors import BadInput

HERE = Path(__file__).parent
SHARED = HERE.parents[3] / "shared" / "data"
NAMES = registry.DATASETS.names()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A dataset and the folder of its files; None: it has none."""

    name: str
    root: Path | None

    def load(self) -> Dataset:
        found = registry.DATASETS.find(self.name).load(self.root)
        assert isinstance(found, Dataset)
        return found


def small(name: str, root: Path) -> Case:
    """The dataset's small copy, in ``root``."""
    try:
        registry.DATASETS.find(name).load(None)
    except BadInput:
        file = HERE / "small" / f"{name}.py"
        assert file.is_file(), (
            f"dataset {name!r} needs a folder, so it needs {file.relative_to(HERE.parents[2])} "
            "with write(root), which writes a small copy of its published form"
        )
        importlib.import_module(f"tests.trainables.data.small.{name}").write(root)
        return Case(name=name, root=root)
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
    assert data.name == case.name
    assert data.description
    assert "\n" not in data.description


def test_questions_and_answers_are_texts(data: Dataset) -> None:
    for examples in data.splits().values():
        assert all(example.question.strip() and example.answer.strip() for example in examples)


def test_every_split_has_the_same_types_of_questions(data: Dataset) -> None:
    types = {example.answer_type for example in data.train}
    for examples in data.splits().values():
        assert {example.answer_type for example in examples} == types


def test_question_ids_are_unique(data: Dataset) -> None:
    ids = [example.question_id for examples in data.splits().values() for example in examples]
    assert len(set(ids)) == len(ids)


def test_training_and_validation_share_no_image(data: Dataset) -> None:
    train = {example.image_id for example in data.train}
    assert train.isdisjoint(example.image_id for example in data.validation)


def test_the_content_of_every_image_is_known(data: Dataset) -> None:
    ids, paths = zip(*data.images(), strict=True)
    assert list(ids) == sorted(set(ids)) == sorted(data.contents)
    images = load_images(paths[:8], 32)
    assert images.shape == (len(paths[:8]), 32, 32, 3)
    assert all(image.std() > 5 for image in images)  # something is to be seen


def test_loads_the_same_twice(case: Case, data: Dataset) -> None:
    assert case.load() == data


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_or_cut_off_is_named(name: str, tmp_path: Path) -> None:
    case = small(name, tmp_path)
    if case.root is None:
        pytest.skip(f"{name} makes its own files")
    (_, cut), *_, (_, gone) = case.load().images()
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(BadInput, match=f"{cut} can't be read"):
        load_images([path for _, path in case.load().images()], 32)
    gone.unlink()
    with pytest.raises(BadInput, match=f"1 of .* images are missing, first {gone}"):
        case.load()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_complained_about_in_one_line(name: str, tmp_path: Path) -> None:
    if small(name, tmp_path).root is None:
        pytest.skip(f"{name} makes its own files")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=f"^{name}: .* has no .*--data-root") as error:
        Case(name=name, root=tmp_path / "empty").load()
    assert "\n" not in str(error.value)
