"""Make a model of pretrained parts: ``python -m trainables.models.compose``.

An image encoder that has seen millions of pictures (DINOv2; RAD-DINO for chest X-rays) and a text
encoder that has read much (MiniLM, or any other BERT) become one BLIP for visual question
answering: the first is its image encoder, the second starts both its question encoder and its
answer decoder. The two have never met. So what connects them is trained at the end, on the training
split of a dataset, by a trial as any study has them.

With DINOv2-S and MiniLM it is a real base of 47M parameters that trains on a CPU.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import BadInput
from trainables.workload import WorkloadConfig

if TYPE_CHECKING:
    from trainables.models.blip import Blip


def _option(default: int | float | str | None, help_: str) -> Any:
    shown = "" if default is None else " [%(default)s]"
    return field(default=default, metadata={"help": help_ + shown})


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """Of what, and how long the parts are aligned. Every field is an option of the command."""

    vision: str = field(metadata={"help": "a DINOv2: folder, or hub:facebook/dinov2-small"})
    text: str = field(
        metadata={"help": "a BERT as wide: folder, or hub:sentence-transformers/all-MiniLM-L6-v2"}
    )
    out: Path = field(metadata={"help": "folder of the model; files of its names are replaced"})
    image_size: int = _option(224, "pixels a side, a multiple of the image encoder's patches")
    text_layers: int = _option(3, "of the text encoder, spread over its depth; 0: all")
    vocabulary: int = _option(14_500, "its most frequent word pieces; 0: all")
    data: str = _option("phantom", "dataset that the parts are aligned on, or several with commas")
    data_root: str | None = _option(None, "where it lies")
    split: str = _option(
        "official", "whose training part: official or by_image, as studies to come"
    )
    epochs: int = _option(10, "of alignment; 0: none")
    lr: float = _option(3e-4, "peak learning rate of the alignment")
    seed: int = _option(0, "of the new parts and of the alignment")
    threads: int = _option(2, "of the CPU")

    def __post_init__(self) -> None:
        """Refuse numbers that make no model, before any time is spent."""
        least = {"image_size": 1, "threads": 1}
        for name, value in vars(self).items():
            if isinstance(value, int) and value < least.get(name, 0):
                option = f"--{name.replace('_', '-')}"
                raise BadInput(f"{option} {value} is too small; give at least {least.get(name, 0)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"--lr {self.lr} is not positive; 0.0003 is the usual")

    def workload(self) -> WorkloadConfig:
        """The data, checked as those of a study."""
        config = WorkloadConfig(data=self.data, data_root=self.data_root, split=self.split)
        config.check()
        return config


def run(config: ComposeConfig) -> Blip:
    """Compose, align and save; the model that was saved.

    Raises:
        BadInput: parts that don't fit together, data that can't be read, a folder that can't be
            written to.
    """
    data = config.workload()
    import torch

    from trainables.models import blip
    from trainables.models._align import align
    from trainables.models._compose_card import card
    from trainables.models._folder import writable, write
    from trainables.models._parts import join, read
    from trainables.workload import Workload

    parts = read(config)
    writable("--out", config.out)
    torch.set_num_threads(config.threads)
    model = join(parts, config)
    count = sum(p.numel() for p in model.network.parameters())
    print(f"{count:,} parameters, {len(model.tokenizer):,} word pieces, {model.image_size} px")
    write(config.out, model, card(config, parts, model, None))
    if config.epochs:
        model = blip.load(config.out)  # as it is called by its digest from now on
        workload = Workload.of(model, data.dataset(), torch.device("cpu"), _show)
        aligned = align(
            workload, epochs=config.epochs, lr=config.lr, seed=config.seed, progress=_show
        )
        for what, figure in aligned.figures().items():
            print(f"{what}: {figure}")
        write(config.out, model, card(config, parts, model, aligned))
    print(f"{config.out}: use it with --model {config.out}")
    return blip.load(config.out)


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "" if done < total else "\n"
        print(f"\rimages {done:,}/{total:,}", end=end, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainables.models.compose", description=__doc__.splitlines()[0]
    )
    for option in fields(ComposeConfig):
        required = option.default is MISSING
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type={"Path": Path, "int": int, "float": float}.get(str(option.type), str),
            required=required,
            default=None if required else option.default,
            help=option.metadata["help"],
        )
    try:
        run(ComposeConfig(**vars(parser.parse_args(arguments))))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
