"""A small random model of every family, and a small made-up workload for it.

A new model family joins all contract suites by one entry in ``SMALL``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.made_llava import small_llava
from trainables import registry
from trainables.data.common.dataset import Dataset, Example
from trainables.model_contract import Model
from trainables.models.blip import Blip
from trainables.workload import Workload

WORDS = "is this a ct mri of the head chest liver lesion left right yes no one two where ?".split()
QUESTIONS = (
    ("is this a ct ?", "yes"),
    ("is this a mri of the head ?", "no"),
    ("where is the lesion ?", "left of the liver"),
    ("where ?", "chest"),
    ("is the lesion of the liver left or right of the head ?", "right"),
)
IMAGES = 6
SPLITS = {"train": 24, "validation": 10, "test": 7}


def small_blip(patch: int = 16, **settings: Any) -> Blip:
    """A random BLIP. Its weights are large enough for all its parts to matter: with the usual 0.02
    every answer would be as likely as any other, whatever the image."""
    from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate([*special, *WORDS])}, bos_token="[DEC]"
    )
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    common = {**width, "num_attention_heads": 2, "initializer_range": 0.2, **settings}
    text = {
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": common["hidden_size"],
        "max_position_embeddings": 40,
        "bos_token_id": special.index("[DEC]"),
        "eos_token_id": special.index("[SEP]"),
        "sep_token_id": special.index("[SEP]"),
        "pad_token_id": special.index("[PAD]"),
    }
    torch.manual_seed(0)
    network = BlipForQuestionAnswering(
        BlipConfig(
            text_config={**common, **text},
            vision_config={**common, "image_size": 32, "patch_size": patch},
        )
    )
    network.eval().requires_grad_(False)
    return Blip(name="small", digest="0" * 64, network=network, tokenizer=tokenizer)


SMALL: dict[str, Callable[[], Model]] = {
    "blip": small_blip,
    "llava": partial(small_llava, WORDS),
}
"""Model family -> a small random model of it, the same at every call."""


def made_up(model: Model) -> Workload:
    """Questions about noise: enough for whatever does not ask how good the answers are."""
    images_NSSC = np.random.default_rng(0).integers(
        0, 256, (IMAGES, model.image_size, model.image_size, 3), dtype=np.uint8
    )
    splits = {split: _examples(split, count) for split, count in SPLITS.items()}
    rows = {
        split: tuple(
            model.tokenize(question=e.question, answer=e.answer, image=int(e.image_id))
            for e in examples
        )
        for split, examples in splits.items()
    }
    return Workload(
        model=model,
        dataset=Dataset(
            name="made_up", description="noise", contents={}, digest="0" * 64, **splits
        ),
        images_NSSC=images_NSSC,
        rows=rows,
        device=torch.device("cpu"),
    )


def _examples(split: str, count: int) -> tuple[Example, ...]:
    return tuple(
        Example(
            question_id=f"{split}-{i}",
            image_id=str(i % IMAGES),
            image=Path(f"/nowhere/{i % IMAGES}.png"),
            question=QUESTIONS[i % len(QUESTIONS)][0],
            answer=QUESTIONS[i % len(QUESTIONS)][1],
            answer_type="open",
        )
        for i in range(count)
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Golden numbers must not depend on how many cores a sum was split over; and small matrices are
    faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=registry.FAMILIES.names())
def family(request: pytest.FixtureRequest) -> str:
    """The name of a model family: every test that takes it, or what follows, runs for each."""
    name = str(request.param)
    assert name in SMALL, f"model family {name!r} needs a small random model: see SMALL"
    return name


@pytest.fixture(scope="session")
def model(family: str) -> Model:
    """A small random model, shared: no test may change it."""
    return SMALL[family]()


@pytest.fixture(scope="session")
def made() -> Callable[..., Workload]:
    """Makes a workload of a test's own: ``made(family, dtype=torch.bfloat16)``."""

    def make(family: str, dtype: torch.dtype = torch.float32) -> Workload:
        model = SMALL[family]()
        model.network.to(dtype)
        return made_up(model)

    return make


@pytest.fixture(scope="session")
def workload(model: Model) -> Workload:
    """A made-up workload for ``model``, on the CPU."""
    return made_up(model)
