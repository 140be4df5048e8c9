"""What each arm of a space will take, and where it would run: predicted, shown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.declare import Arm, Space
from study import spaces
from study.placement import GIB, Devices, Infeasible, Placement, as_told, place
from study.placements import Placements

if TYPE_CHECKING:
    from trainables.footprint import BatchShape, Footprint
    from trainables.models.contract import Skeleton


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One arm."""

    footprint: Footprint
    """Of a whole batch on one device."""
    placement: Placement | Infeasible | None
    """None if nothing is known of devices."""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values, sizes in GiB."""
        found: dict[str, Any] = {"memory": self.footprint.gib()}
        if self.placement is not None:
            values = asdict(self.placement)
            for size in {"peak", "least"} & set(values):
                values[f"{size}_gib"] = values.pop(size) / GIB
            feasible = isinstance(self.placement, Placement)
            found["placement"] = {"feasible": feasible, **values}
        return found


def arms(
    space: Space, model: Skeleton, batch: BatchShape, *, precision: str, devices: Devices | None
) -> dict[str, Predicted]:
    """Each arm at the middle of its ranges. It takes seconds an arm; who watches sees a bar."""
    console = Console(stderr=True)
    quiet = not console.is_terminal
    items = space.arms.items()
    found = {}
    for name, arm in track(items, "memory", console=console, transient=True, disable=quiet):
        predict = Predictor(arm, model, batch, precision)
        found[name] = Predicted(
            footprint=predict(batch.questions, 1),
            placement=place(predict, batch.questions, devices) if devices else None,
        )
    return found


def placements(
    space: Space,
    model: Skeleton,
    batch: BatchShape,
    *,
    precision: str,
    devices: Devices,
    sharing: int,
) -> tuple[Placements, dict[str, Infeasible]]:
    """Where the trials of each arm run, at most ``sharing`` on a device; and the arms that run
    nowhere."""
    predictors = {name: Predictor(arm, model, batch, precision) for name, arm in space.arms.items()}

    def placed(arm: str, correction: float) -> Placement | Infeasible:
        found = place(predictors[arm], batch.questions, devices, correction)
        if isinstance(found, Infeasible) or found.devices > 1:
            return found
        if found.sharing <= sharing:
            return found
        reason = f"{found.reason}, of whom there are to be {sharing}"
        lane = "shared" if sharing > 1 else "solo"
        return replace(found, sharing=sharing, lane=lane, reason=reason)

    by_arm = {name: placed(name, 1.0) for name in space.arms}
    feasible = {name: found for name, found in by_arm.items() if isinstance(found, Placement)}
    untuned = as_told(
        devices=1,
        deepspeed="off",
        batch_size=batch.questions,
        sharing=min((found.sharing for found in feasible.values()), default=1),
        reason="it only answers",
    )
    return (
        Placements(feasible, untuned, place=placed, devices=devices),
        {name: found for name, found in by_arm.items() if isinstance(found, Infeasible)},
    )


class Predictor:
    """The memory of one arm at typical values, for any part of a batch; it keeps what it found."""

    def __init__(self, arm: Arm, model: Skeleton, batch: BatchShape, precision: str) -> None:
        self.arm, self.model, self.batch, self.precision = arm, model, batch, precision
        self._found: dict[tuple[int, int, bool], Footprint] = {}

    def __call__(self, questions: int, pieces: int, twice: bool = False) -> Footprint:
        """Of a training step in ``pieces`` of so many ``questions``, layers computed ``twice``."""
        key = (questions, min(pieces, 2), twice)
        if key not in self._found:
            self._found[key] = self._predict(*key)
        return self._found[key]

    def _predict(self, questions: int, pieces: int, twice: bool) -> Footprint:
        from trainables import footprint, recipe
        from trainables.checkpointing import checkpoint_layers
        from trainables.fork import fork
        from trainables.recipe import Recipe

        plain, _ = spaces.draw(self.arm, self.model.slots, spaces.middle)
        network = fork(self.model.network)
        applied = recipe.apply(Recipe.of(plain), self.model, network, seed=0)
        if twice:
            checkpoint_layers(network)
        images = min(self.batch.images, questions)
        return footprint.predict(
            self.model,
            network,
            applied,
            training=replace(self.batch, questions=questions, images=images),
            pieces=pieces,
            precision=self.precision,
        )


def memory_table(arms: Mapping[str, Predicted]) -> Table:
    """An arm a row. Beside the weights, the fp32 copies and adapters of the trial are apart."""
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


def placement_table(arms: Mapping[str, Predicted]) -> Table:
    """An arm a row, with the reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "lane", "devices", "engine", "batch", "at once", "why"):
        table.add_column(column)
    for arm, predicted in arms.items():
        found = predicted.placement
        if isinstance(found, Infeasible):
            table.add_row(arm, "[red]none[/]", "", "", "", "", found.reason)
        if not isinstance(found, Placement):
            continue
        pieces = f" x {found.pieces}" if found.pieces > 1 else ""
        pieces += ", layers twice" if found.checkpointing else ""
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
