"""Tables of a study's plan: arms, predicted memory, measured steps and placement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from search_spaces.declare import Choice, Range, Space
from study.config import spaces
from study.planning.memory_prediction import ArmMemory
from study.planning.placement import GIB, Infeasible, Placement
from study.trials.colours import terminal_styles
from study.trials.text import short
from trainables.engine.training_settings import DEFAULT_TRAINING

if TYPE_CHECKING:
    from trainables.models.common.quantisation import BaseBits, SlotBits
    from trainables.recipe import ParameterCounts, SlotCount


def arms_table(space: Space, applied: Mapping[str, ParameterCounts]) -> Table:
    """Table of arms: what is searched in each, with a learning rate and training settings that are
    fixed, and what it trains."""
    table = Table(title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "searched", "trains", "parameters", "percent"):
        right = column in ("parameters", "percent")
        table.add_column(column, justify="right" if right else "left")
    styles = terminal_styles(space.declared)
    for arm, found in applied.items():
        searched = spaces.ranges(space.arms[arm])
        declared = {"lr": space.arms[arm].lr, **space.arms[arm].training}
        told = {n: v for n, v in declared.items() if n not in searched}
        table.add_row(
            Text(arm, style=styles[arm]),
            ", ".join(
                [f"{name} {_range(values)}" for name, values in searched.items()]
                + [f"{n}={short(v) if isinstance(v, str) else v}" for n, v in told.items()]
            ),
            _trains(found),
            f"{found.trained_parameters:,}",
            f"{found.trained_percent:.3f}",
        )
    return table


def cost_of_splits(splits: int, trials: int | None, time_limit: str = "") -> str:
    """How much more several splits cost than one, in words.

    Args:
        splits: number of splits.
        trials: number of trials of the search that was named, which is that of all splits together;
            None or 0: none was named.
        time_limit: value of ``--budget`` if it limits time; empty if it does not.
    """
    if trials:
        return f"{splits} times the confirmations, and the trials are divided among the splits"
    if time_limit:
        return f"{splits} times the confirmations, in the time of --budget"
    return f"{splits} times the trials, confirmations and time of one split"


def without_effect(space: Space, vectors_alone: Collection[str]) -> list[str]:
    """Lines that say which training settings do nothing in an arm: weight decay and Muon are for
    matrices, and ``vectors_alone`` are the arms that train none."""
    lines = []
    for name in vectors_alone:
        arm = space.arms[name]
        found = {
            "weight_decay": "weight decay" * isinstance(arm.training.get("weight_decay"), Range),
            "optimizer": "Muon" * ("muon" in spaces.optimizers(arm)),
        }
        told = " and ".join(filter(None, found.values()))
        changes = [
            f"{name}/{s}={getattr(DEFAULT_TRAINING, s)}" for s, text in found.items() if text
        ]
        if changes:
            lines.append(
                f"arm {name!r} trains no matrices, which {told} would be for; --set "
                f"{' '.join(changes)} leaves it out there"
            )
    return lines


def _trains(applied: ParameterCounts) -> str:
    """What a recipe trains in words, as ``layernorm: vision 2,880 in 4 of 4 layers`` or ``vision
    frozen, fusion full 1,488,480 in 4 of 4 layers``."""
    if len({count.tuning for count in applied.counts}) == 1:
        slots = ", ".join(f"{c.slot} {_number(c)}" for c in applied.counts)
        return f"{applied.counts[0].tuning}: {slots}"
    return ", ".join(
        f"{c.slot} {c.tuning}" + (f" {_number(c)}" if c.trained_parameters else "")
        for c in applied.counts
    )


def _number(count: SlotCount) -> str:
    """Number of values that are trained in a slot, and in how many of its layers."""
    layers = f" in {count.trained_layers} of {count.total_layers} layers"
    layers += " without their experts" * count.without_experts
    return f"{count.trained_parameters:,}{layers * bool(count.total_layers)}"


def _range(values: Range) -> str:
    if isinstance(values, Choice):
        return "{" + ", ".join(map(_value, values.values)) + "}"
    return f"{values.low:g} to {values.high:g}"


def _value(value: Any) -> str:
    """A value of a choice; a tuple, and a text with commas, in brackets; several words in quotation
    marks."""
    if isinstance(value, str) and len(value.split()) > 1:
        return short(value)
    if isinstance(value, tuple) or (isinstance(value, str) and "," in value):
        return f"({value if isinstance(value, str) else ','.join(map(_value, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def bits_text(slots: Sequence[SlotBits], bits: BaseBits, space: Space) -> str:
    """What is in four bits in each slot, and why other linear layers are not."""
    trainers, parts = spaces.weight_trainers(space), []
    for found in slots:
        if found.slot in bits.whole:
            parts.append(f"{found.slot} as it is, since {trainers[found.slot]}")
        elif found.kept:
            parts.append(f"{found.slot} as it is, since transformers keeps it in fp32")
        elif not found.quantised:
            parts.append(f"{found.slot} as it is, without linear layers that methods wrap")
        else:
            left = f" (not {', '.join(found.left)})" * bool(found.left)
            parts.append(
                f"{found.quantised} of {found.quantised + len(found.left)} linear layers of "
                f"{found.slot}{left}"
            )
    experts = "experts, " * any(found.experts for found in slots)
    return (
        f"in {bits.bits} bits (NF4): {'; '.join(parts)}; {experts}embeddings, heads, norms and "
        "convolutions as they are"
    )


def memory_table(arms: Mapping[str, ArmMemory]) -> Table:
    """Table of each arm's predicted memory. The fp32 copies and adapters of a trial are a column
    apart from the weights."""
    every = [found.footprint for found in arms.values()]
    slots = list(dict.fromkeys(slot for found in every for slot in found.activations))
    columns = ["peak", "weights", "trained", "gradients", "optimizer"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for column in (*columns, *(f"kept by {slot}" for slot in slots), "features", "other"):
        table.add_column(column, justify="right")
    for arm, found in zip(arms, every, strict=True):
        sizes = [getattr(found, column) for column in columns]
        sizes += [found.activations.get(slot, 0) for slot in slots]
        sizes += [sum(found.features.values()), found.batch + found.workspace]
        table.add_row(arm, *(f"{size / GIB:.2f}" for size in sizes))
    return table


def probe_table(arms: Mapping[str, ArmMemory]) -> Table:
    """Table of each arm's probe: what was predicted, what three steps took, and what a whole batch
    takes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for column in ("at once", "predicted", "probed", "correction", "corrected"):
        table.add_column(column, justify="right")
    for arm, found in arms.items():
        probed = found.probed
        if probed is None:
            table.add_row(arm, "1", "", Text("did not fit", style="red"), "", "")
            continue
        sizes = (probed.peak / found.correction, probed.peak)
        table.add_row(
            arm,
            str(probed.micro_batch),
            *(f"{size / GIB:.3f}" for size in sizes),
            f"{found.correction:.3f}",
            f"{found.corrected / GIB:.3f}",
        )
    return table


def placement_table(arms: Mapping[str, ArmMemory]) -> Table:
    """Table of each arm's placement, with the reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "lane", "devices", "engine", "batch", "at once", "why"):
        table.add_column(column)
    for arm, predicted in arms.items():
        found = predicted.placement
        if isinstance(found, Infeasible):
            table.add_row(arm, Text("none", style="red"), "", "", "", "", found.reason)
        if not isinstance(found, Placement):
            continue
        pieces = f" x {found.pieces}" if found.pieces > 1 else ""
        pieces += ", layers twice" if found.activation_checkpointing else ""
        at_once = f"{found.sharing} a device" if found.sharing > 1 else "1"
        table.add_row(
            arm,
            found.lane,
            str(found.devices),
            found.engine,
            f"{found.micro_batch}{pieces}",
            at_once,
            found.reason,
        )
    return table
