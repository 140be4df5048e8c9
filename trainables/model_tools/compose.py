"""Compose a BLIP of pretrained parts: ``python -m trainables.model_tools.compose``.

The parts are an image encoder that was trained on millions of pictures (DINOv2; RAD-DINO for chest
X-rays) and a text encoder that was trained on much text (MiniLM, or any other BERT). The first
becomes the image encoder of a BLIP for visual question answering. The second initialises both its
question encoder and its answer decoder. The two have never been trained together, so the layers
that connect them are trained at the end: on the training split of a dataset, by a trial like those
of any study.

From DINOv2-S and MiniLM this makes a real base model of 47M parameters that trains on a CPU.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trainables.command import command
from trainables.model_tools.composing.compose_config import ComposeConfig
from trainables.options import Parser, parse

if TYPE_CHECKING:
    from trainables.models.blip import Blip


def run(config: ComposeConfig) -> Blip:
    """Compose, align and save a model, and return the model that was saved.

    Raises:
        BadInput: the parts don't fit together, the data can't be read, or the folder can't be
            written.
    """
    data = config.workload()
    import torch

    from trainables.model_tools.blip_folder import check_writable, write
    from trainables.model_tools.composing.align import align
    from trainables.model_tools.composing.model_card import card
    from trainables.model_tools.composing.towers import join, read
    from trainables.models import blip
    from trainables.workload import Workload

    parts = read(config)
    check_writable("--out", config.out)
    torch.set_num_threads(config.threads)
    model = join(parts, config)
    count = sum(p.numel() for p in model.network.parameters())
    print(f"{count:,} parameters, {len(model.tokenizer):,} word pieces, {model.image_size} px")
    write(config.out, model, card(config, parts, model, None))
    if config.epochs:
        model = blip.load(config.out)  # read back, so that it has a digest
        workload = Workload.from_parts(model, data.dataset(), torch.device("cpu"), _show)
        aligned = align(
            workload, epochs=config.epochs, lr=config.lr, seed=config.seed, progress=_show
        )
        for what, figure in aligned.figures().items():
            print(f"{what}: {figure}")
        write(config.out, model, card(config, parts, model, aligned))
    print(f"{config.out}: use it with --model {config.out}")
    return blip.load(config.out)


def _show(done: int, total: int) -> None:
    """Show the progress of images on a terminal."""
    if sys.stderr.isatty():
        end = "" if done < total else "\n"
        print(f"\rimages {done:,}/{total:,}", end=end, file=sys.stderr, flush=True)


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for bad input."""
    parser = Parser(
        prog="python -m trainables.model_tools.compose", description=__doc__.splitlines()[0]
    )
    run(parse(parser, arguments, ComposeConfig))
    return 0


if __name__ == "__main__":
    sys.exit(main())
