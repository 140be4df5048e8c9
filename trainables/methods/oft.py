"""OFT: trains rotations of each layer's input in blocks, which keep angles between its neurons.

(Qiu et al. 2023, arXiv 2306.07280; on inputs, by a Neumann series: arXiv 2506.19847)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.errors import BadInput
from trainables.methods.common import select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``oft``.

    A rotation of ``block`` dimensions has block (block - 1) / 2 parameters.
    """

    block: int = 32
    """Number of dimensions that are rotated together. It must divide the width of a layer's
    input."""
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Roles of the linear layers whose input is rotated."""

    def __post_init__(self) -> None:
        if self.block < 2:
            raise BadInput(f"oft block must be at least 2 but got {self.block}")


def apply(slot: Slot, config: Config) -> list[str]:
    """Insert the rotations. They start as the identity, so the output is unchanged at first.

    Raises:
        BadInput: the width of a layer is no multiple of ``block``.
    """
    from peft import OFTConfig, inject_adapter_in_model

    names = select.linear(slot, "oft", config.targets)
    widths = {slot.module.get_submodule(name).get_parameter("weight").shape[1] for name in names}
    for width in sorted(widths):
        if width % config.block:
            raise BadInput(
                f"oft block {config.block} does not divide {width}, the width of layers of "
                f"slot {slot.name!r}"
            )
    inject_adapter_in_model(
        OFTConfig(
            r=0,  # number of blocks, which follows from their size
            oft_block_size=config.block,
            target_modules=select.pattern(names),
        ),
        slot.module,
    )
    return select.adapters(slot)
