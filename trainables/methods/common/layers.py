"""Layers of a slot: the blocks of its stack, counted from its input.

A method may be limited to some of them by its setting ``layers``, which every method has, and a
setting may differ between their first, middle and last third.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from trainables.errors import BadInput, NoMatchingLayer

if TYPE_CHECKING:
    from torch import nn

    from trainables.model_contract import Slot

T = TypeVar("T")
ALL = "all"
"""Value of ``layers`` for the whole slot, with what is outside of its blocks."""
BANDS = ("first", "middle", "last")
"""Thirds of a slot's layers."""
FORMS = "'all', or 'first:N' or 'last:N' with a number N of at least 1"


def check(layers: str) -> None:
    """Check the form of ``layers``.

    Raises:
        BadInput: it is neither ``all`` nor like ``first:4`` or ``last:8``.
    """
    if layers != ALL and not re.fullmatch(r"(first|last):[1-9]\d*", layers):
        raise BadInput(f"layers must be {FORMS}, but got {layers!r}")


def limited(slot: Slot, layers: str) -> Slot:
    """The slot with the roles of those modules that are in the blocks that ``layers`` names, and no
    others.

    Raises:
        NoMatchingLayer: the slot has no blocks.
        BadInput: it has fewer blocks than ``layers`` names.
    """
    if layers == ALL:
        return slot
    end, _, count = layers.partition(":")
    there = _blocks(slot, f"layers={layers}")
    if int(count) > len(there):
        raise BadInput(f"slot {slot.name!r} has {len(there)} layers, fewer than {layers} names")
    chosen = there[: int(count)] if end == "first" else there[-int(count) :]
    roles = {
        role: kept
        for role, names in slot.roles.items()
        if (kept := tuple(name for name in names if is_in(name, chosen)))
    }
    return replace(slot, roles=roles)


def is_in(name: str, blocks: Sequence[str]) -> bool:
    """Whether a module or parameter is in one of the blocks, or is one of them."""
    return any(f"{name}.".startswith(f"{block}.") for block in blocks)


def by_band(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """A value for each band, of a value for all or of one for each."""
    return value if isinstance(value, tuple) else (value,) * len(BANDS)


def band_of(slot: Slot) -> Callable[[str], int]:
    """Function from the name of a module of the slot to its band: 0, 1 or 2.

    A block is in the band in which its middle lies: block i of n, counted from 0, in band
    floor(3 (i + 1/2) / n). So of 12 blocks each band has 4, and of 2 one is first and one is last.
    A module outside of all blocks is in the first band if it comes before them, else in the last.

    Raises:
        NoMatchingLayer: the slot has no blocks.
    """
    blocks = _blocks(slot, "a setting by band")
    order = [name for name, _ in slot.module.named_modules()]

    def band(name: str) -> int:
        for place, block in enumerate(blocks):
            if is_in(name, [block]):
                return 3 * (2 * place + 1) // (2 * len(blocks))
        return 0 if order.index(name) < order.index(blocks[0]) else 2

    return band


def _blocks(slot: Slot, asked: str) -> tuple[str, ...]:
    """Names of the blocks of a slot, for ``asked``; in the order in which tokens pass them.

    Raises:
        NoMatchingLayer: the slot has none.
    """
    if not (found := slot.roles.get("block", ())):
        there = ", ".join(sorted(slot.roles)) or "none"
        raise NoMatchingLayer(
            f"slot {slot.name!r} has no block for {asked}; it has: {there}", lacks="block"
        )
    return found


def stacked_weights(module: nn.Module) -> list[nn.Parameter]:
    """Weights that a module holds for several experts at once, as bare parameters of shape (E, D,
    D): no linear layers, so no role names them."""
    return [
        parameter
        for part in module.modules()
        if not hasattr(part, "kernel_size")  # as a convolution has
        for parameter in part._parameters.values()
        if parameter is not None and parameter.ndim == 3 and len(parameter) > 1
    ]
