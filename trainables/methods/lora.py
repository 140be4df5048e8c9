"""LoRA: trains a product of two thin matrices beside each frozen matrix.

(Hu et al. 2021, arXiv 2106.09685; rank-stabilized: Kalajdzievski 2023, arXiv 2312.03732; LoRA+:
Hayou et al. 2024, arXiv 2402.12354)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import BadInput
from trainables.methods.common import layers, select

if TYPE_CHECKING:
    from trainables.model_contract import Slot


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``lora``.

    The update of a weight is (alpha / rank) B A, where A is (rank, in) and B (out, rank).
    """

    BY_BAND: ClassVar = ("rank", "alpha_per_rank")
    """Settings that may have a value for each band: the first, middle and last third of the slot's
    layers (``trainables.methods.common.layers.band_of``)."""

    rank: int | tuple[int, ...] = 8
    alpha_per_rank: float | tuple[float, ...] = 2.0
    """Factor of the update, alpha / rank, so that rank and step size can be searched
    independently."""
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Roles of the layers that get an update; a fused ``qkv`` stands for query and value. A text
    may name them too: ``query,value``, which is the default, ``attention``, ``ffn`` or ``all``; see
    ``trainables.methods.common.roles``."""
    rank_stabilized: bool = False
    """Whether the factor is alpha / sqrt(rank) (rsLoRA), so that high ranks learn as fast as low
    ones."""
    lr_ratio: float = 1.0
    """Learning rate of B as a multiple of that of A (LoRA+); its authors advise 2 to 16."""

    def __post_init__(self) -> None:
        method = type(self).__module__.rpartition(".")[2]
        for rank in layers.by_band(self.rank):
            if rank < 1:
                raise BadInput(f"{method} rank must be at least 1 but got {rank}")
        positive = [("alpha_per_rank", value) for value in layers.by_band(self.alpha_per_rank)]
        for name, value in (*positive, ("lr_ratio", self.lr_ratio)):
            if value <= 0:
                raise BadInput(f"{method} {name} must be positive but got {value}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"{method} dropout must be in [0, 1) but got {self.dropout}")


def apply(slot: Slot, config: Config) -> dict[str, float]:
    """Insert the adapters. B starts at zero, so the output is unchanged at first.

    Returns:
        name of each trained parameter -> its factor on the trial's learning rate.
    """
    return add(slot, config, decomposed=False)


def add(slot: Slot, config: Config, *, decomposed: bool) -> dict[str, float]:
    """Insert LoRA, or DoRA if ``decomposed``.

    Returns:
        name of each trained parameter -> its factor on the trial's learning rate.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    names = select.modules(slot, config.targets)
    ranks, per_rank = layers.by_band(config.rank), layers.by_band(config.alpha_per_rank)
    # peft says that alpha is an integer, and takes any number.
    alphas: list[Any] = [a * rank for a, rank in zip(per_rank, ranks, strict=True)]
    rank_of, alpha_of = dict[str, int](), dict[str, Any]()
    if isinstance(config.rank, tuple) or isinstance(config.alpha_per_rank, tuple):
        band_of = layers.band_of(slot)
        rank_of = {select.exactly(name): ranks[band_of(name)] for name in names}
        alpha_of = {select.exactly(name): alphas[band_of(name)] for name in names}
    inject_adapter_in_model(
        LoraConfig(
            r=ranks[0],
            lora_alpha=alphas[0],
            rank_pattern=rank_of,
            alpha_pattern=alpha_of,
            lora_dropout=config.dropout,
            target_modules=select.pattern(names),
            use_rslora=config.rank_stabilized,
            use_dora=decomposed,
        ),
        slot.module,
    )
    adapted: list[Any] = [m for m in slot.module.modules() if isinstance(m, LoraLayer)]
    for layer in adapted if decomposed else ():
        _magnitudes_in_fp32(layer)
    faster = {id(parameter) for layer in adapted for parameter in layer.lora_B.parameters()}
    trained = {name: slot.module.get_parameter(name) for name in select.adapters(slot)}
    return {n: config.lr_ratio if id(p) in faster else 1.0 for n, p in trained.items()}


def _magnitudes_in_fp32(layer: Any) -> None:
    """Compute the magnitudes of a DoRA layer in fp32.

    peft computes them in the base's precision, so that a bf16 base would change at the start.
    """
    for adapter, magnitudes in layer.lora_magnitude_vector.items():
        magnitudes.update_layer(
            base_layer=layer.get_base_layer(),
            lora_A=layer.lora_A[adapter].weight.float(),
            lora_B=layer.lora_B[adapter].weight.float(),
            scaling=layer.scaling[adapter],
        )
