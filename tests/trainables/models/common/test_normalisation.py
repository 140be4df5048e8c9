"""Images are normalised by the numbers in a model's folder, and by CLIP's if it has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

# Where torchvision is not installed, transformers 5.9 has it under this name alone.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from tests.trainables import made_blip2, made_llava
from trainables import model_lookup
from trainables.errors import BadInput
from trainables.models import blip, blip_2, instructblip, llava
from trainables.models.common import clip, normalisation
from trainables.models.instructblip import InstructBlip

FILE = "preprocessor_config.json"
OTHER = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.01}
WRITERS: dict[str, tuple[ModuleType, Callable[[Path], Path]]] = {
    "llava": (llava, made_llava.write),
    "blip_2": (blip_2, made_blip2.write),
    "instructblip": (instructblip, lambda path: made_blip2.write(path, InstructBlip)),
}


def edited(folder: Path, **settings: Any) -> None:
    found = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(found | settings))


def pixels(model: Any) -> torch.Tensor:
    row = model.tokenize(question="is this a ct ?", answer="yes", image=0)
    found: torch.Tensor = model.collate([row], noise(model.image_size)).pixels_UCSS
    return found


def noise(size: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_with_other_numbers_gives_other_pixels(name: str, tmp_path: Path) -> None:
    """Pixels are those of transformers' processor, and the digest of version 1 is another: a
    study which was begun with other pixels is not continued."""
    family, write = WRITERS[name]
    folder = write(tmp_path / name)
    usual = family.load(folder)
    images = noise(usual.image_size)
    assert torch.equal(pixels(usual), clip.pixels(images))
    (folder / FILE).rename(tmp_path / FILE)
    without = family.load(folder)
    (tmp_path / FILE).rename(folder / FILE)
    assert torch.equal(pixels(without), pixels(usual)) and without.digest == usual.digest
    edited(folder, image_mean=clip.MEAN, image_std=clip.DEVIATION, rescale_factor=1 / 255)
    said = family.load(folder)
    assert torch.equal(pixels(said), pixels(usual)) and said.digest == usual.digest
    edited(folder, **OTHER)
    other = family.load(folder)
    theirs: Any = AutoImageProcessor.from_pretrained(folder)
    torch.testing.assert_close(
        pixels(other), theirs(images[0], return_tensors="pt")["pixel_values"]
    )
    assert not torch.allclose(pixels(other), pixels(usual), atol=0.1)
    assert other.digest != usual.digest


def test_the_model_that_ships_has_the_pixels_it_had(tmp_path: Path) -> None:
    tiny = blip.load(model_lookup.TINY)
    assert torch.equal(pixels(tiny), clip.pixels(noise(tiny.image_size)))


def test_the_file_of_transformers_5_comes_first(tmp_path: Path) -> None:
    """Settings of the image processor stand there among the processor's."""
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": OTHER}))
    (tmp_path / FILE).write_text(json.dumps({"image_mean": 0.1}))
    found = normalisation.of_folder(tmp_path)
    assert found.mean == (0.5, 0.4, 0.3) and found.scale == 0.01
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_length": 9}))
    assert normalisation.of_folder(tmp_path).mean == (0.1, 0.1, 0.1)


def test_images_may_be_neither_scaled_nor_normalised(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"do_rescale": False, "do_normalize": False}))
    images = noise(8)
    found = normalisation.of_folder(tmp_path).pixels(images)
    assert torch.equal(found, torch.from_numpy(images).permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"image_mean": [0.5]}', "image_mean of .* must be a number for each of 3 colours"),
        ('{"image_std": 0}', "image_std of .* must be a number above 0 for each of 3 colours"),
        ('{"rescale_factor": "x"}', "rescale_factor of .* must be above 0, not 'x'"),
        ("[1]", r"must hold an object, not \[1\]"),
        ("{", "can't be read"),
    ],
)
def test_numbers_that_cannot_be_are_refused(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(BadInput, match=told):
        normalisation.of_folder(tmp_path)
