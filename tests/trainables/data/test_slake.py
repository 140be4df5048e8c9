"""SLAKE: its languages, its two layouts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.data.small.slake import FILES, rows, write
from trainables.data import slake, slake_both, slake_zh
from trainables.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def test_a_language_is_a_dataset(root: Path) -> None:
    english, chinese, both = slake.load(root), slake_zh.load(root), slake_both.load(root)
    assert [e.answer for e in english.test] == ["MRI", "Yes"] * 2
    assert [e.answer for e in chinese.test] == ["核磁共振", "有"] * 2
    assert set(both.test) == set(english.test) | set(chinese.test)
    assert len({english.digest, chinese.digest, both.digest}) == 3


def test_reads_the_published_fields(root: Path) -> None:
    first, second, *_ = slake.load(root).validation
    assert (first.question_id, first.image_id) == ("200", "xmlab2/source.jpg")
    assert first.image == root / "imgs" / "xmlab2" / "source.jpg"
    assert (first.answer_type, first.question_type) == ("open", "Modality")
    assert (second.answer_type, second.question_type) == ("closed", "Organ")


@pytest.mark.parametrize("folder", slake.FOLDERS)
def test_lies_in_the_folder_or_in_the_one_of_the_archive(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    write(tmp_path / folder)
    assert slake.load(tmp_path).test[0].image == tmp_path / folder / "imgs/xmlab4/source.jpg"


def test_the_hubs_name_of_the_validation_file_is_known(root: Path) -> None:
    (root / "validate.json").rename(root / "validation.json")
    assert len(slake.load(root).validation) == 4


@pytest.mark.parametrize("missing", [*FILES, "imgs"])
def test_says_what_is_missing(root: Path, missing: str) -> None:
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(BadInput, match=f"has no .*'{missing}'") as error:
        slake.load(root)
    assert "\n" not in str(error.value)


def changed(**fields: Any) -> list[dict[str, Any]]:
    first, *rest = rows("train.json")
    return [{**first, **fields}, *rest]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "can't read"),
        ('{"a": 1}', "holds no list"),
        ("[1]", "row 1 of .* should be an object, not 1; use the published file"),
        ('[{"q_lang": "en"}]', "row 1 of .* lacks qid"),
        (json.dumps(changed(answer_type="MAYBE")), "answer_type should be 'OPEN' or 'CLOSED'"),
        (json.dumps(changed(q_lang="en ")), "did you mean 'en'"),
        (json.dumps(changed(answer=float("nan"))), "row 1 of .*: answer should be a text, not NaN"),
        (json.dumps(changed(content_type=None)), "content_type should be a text, not null"),
        (json.dumps(changed(img_name="../../secret.jpg")), "outside"),
        (json.dumps(changed(img_name="/etc/passwd")), "outside"),
        (json.dumps(changed(qid=400)), "'400'.*used twice"),
        ("[]", "no question in en"),
    ],
)
def test_other_files_are_refused_in_one_line(root: Path, content: str, message: str) -> None:
    (root / "train.json").write_text(content)
    with pytest.raises(BadInput, match=message) as error:
        slake.load(root)
    assert "\n" not in str(error.value)
