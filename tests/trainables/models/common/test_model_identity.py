"""A model's digest changes with everything that its answers depend on, and with nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainables import made_llava
from trainables.model_lookup import TINY
from trainables.models import blip, llava
from trainables.models.common import model_identity
from trainables.models.common.chat_template import DATE

DATED = (
    "{{ bos_token }}Today is {{ strftime_now('%d %B %Y') }}. "
    "{% for m in messages %}<image>\n{{ m['content'][1]['text'] }}{% endfor %} user :"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_llava.write(tmp_path / "model")


def digest(folder: Path) -> str:
    return model_identity.digest(llava.load(folder), folder)


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_it_is_the_same_wherever_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("a model")
    assert digest(tmp_path / "moved") == digest(folder)
    assert digest(folder).startswith(model_identity.VERSION_2)


def retokenized(content: dict[str, Any]) -> None:
    """Swap two words of a vocabulary."""
    words = content["model"]["vocab"]
    words["yes"], words["no"] = words["no"], words["yes"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer_config.json", lambda content: content.update(chat_template=DATED)),
        ("tokenizer.json", retokenized),
        ("config.json", lambda content: content.update(vision_feature_select_strategy="full")),
    ],
    ids=["chat template", "tokenizer", "configuration"],
)
def test_it_changes_with_each_part(
    name: str, change: Callable[[dict[str, Any]], Any], folder: Path
) -> None:
    before = digest(folder)
    edited(folder, name, change)
    assert digest(folder) != before


def test_processors_and_the_size_of_images_count(folder: Path) -> None:
    before = digest(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert digest(folder) != before
    larger = blip.load(TINY, 128)
    assert model_identity.digest(larger, TINY) != model_identity.digest(blip.load(TINY), TINY)


def test_a_template_with_the_date_is_told_the_same_date_always(folder: Path) -> None:
    edited(folder, "tokenizer_config.json", lambda c: c.update(chat_template=DATED))
    assert f"Today is {DATE:%d %B %Y}." in llava.load(folder).prompt.text


def test_it_is_compared_in_the_version_of_the_one_that_is_stored(folder: Path) -> None:
    model = llava.load(folder)
    assert model_identity.digest_like("0" * 64, model, folder) == model.digest
    assert model_identity.digest_like("2:0", model, folder) == digest(folder)
