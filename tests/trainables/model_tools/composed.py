"""Random towers, and models that are composed of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

from trainables.model_tools.composing import towers as model_towers
from trainables.model_tools.composing.compose_config import ComposeConfig
from trainables.models.blip import Blip

WORDS = "are the lungs normal ? yes no 2 left right ##s ##al is this a chest x - ray".split()
SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]


def vision_tower(folder: Path, **other: Any) -> Path:
    """A random DINOv2 whose layer scales and norms are far from doing nothing."""
    torch.manual_seed(0)
    config = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    tower = Dinov2Model(
        Dinov2Config(**{**config, "image_size": 70, "layerscale_value": 0.3, **other})
    )
    shaken(tower).save_pretrained(folder)
    return folder


def text_tower(folder: Path, **other: Any) -> Path:
    """A random BERT."""
    torch.manual_seed(1)
    vocabulary = [*SPECIAL, *LETTERS, *dict.fromkeys(w for w in WORDS if w not in LETTERS)]
    config = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config |= {"intermediate_size": 64, "vocab_size": len(vocabulary)}
    tower = BertModel(BertConfig(**{**config, **other}))
    shaken(tower).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def shaken(tower: Any) -> Any:
    """Change all weights, so that none is 0 or 1 and a forgotten one would be noticed."""
    for parameter in tower.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return tower.eval()


def config(vision: Path, text: Path, out: Path, **other: Any) -> ComposeConfig:
    defaults = {"image_size": 28, "text_layers": 0, "vocabulary": 0, "epochs": 0, "threads": 1}
    return ComposeConfig(vision=str(vision), text=str(text), out=out, **{**defaults, **other})


def seen(tower: Dinov2Model, images_USSC: np.ndarray[Any, Any]) -> Tensor:
    """The features of images by the tower itself, as it wants its pixels."""
    pixels_UCSS = torch.from_numpy(images_USSC).permute(0, 3, 1, 2).float() / 255
    imagenet = model_towers.Normalisation()
    mean, deviation = (
        torch.tensor(of).view(3, 1, 1) for of in (imagenet.image_mean, imagenet.image_std)
    )
    with torch.no_grad():
        features: Tensor = tower((pixels_UCSS - mean) / deviation).last_hidden_state
    return features


def given(model: Blip, images_USSC: np.ndarray[Any, Any]) -> Tensor:
    """The features of images by a composed model, as the family gives it its pixels."""
    rows = [model.tokenize(question="", answer="", image=i) for i in range(len(images_USSC))]
    batch = model.collate(rows, images_USSC)
    with torch.no_grad():
        features: Tensor = model.network.vision_model(batch.pixels_UCSS).last_hidden_state
    return features


def images(side: int, count: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
