"""What each arm of a space will take, and where it would run: predicted, shown, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from search_spaces.declare import Arm, Space
from study import spaces
from study.fitting import place, place_untuned
from study.placement import GIB, Devices, Infeasible, Placement
from study.placements import UNTUNED, Placements

if TYPE_CHECKING:
    from trainables.footprint import BatchShape, Footprint
    from trainables.models.contract import Skeleton
    from trainables.probe import Probed
    from trainables.recipe import Recipe

Probe = Callable[["Recipe", "BatchShape"], "Probed | None"]
"""Takes three real steps of a recipe."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One arm."""

    footprint: Footprint
    """Of a whole batch on one device."""
    placement: Placement | Infeasible | None
    """None if nothing is known of devices."""
    probed: Probed | None = None
    """What three real steps took, if they were taken."""
    correction: float = 1.0
    """What they took to what was predicted of them."""

    @property
    def corrected(self) -> int:
        """Peak bytes of a whole batch on one device."""
        return int(self.footprint.peak * self.correction)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready values, sizes in GiB."""
        found: dict[str, Any] = {"memory": self.footprint.gib()}
        if self.probed is not None:
            found["probe"] = {
                "micro_batch": self.probed.micro_batch,
                "pieces": self.probed.pieces,
                "peak_gib": self.probed.peak / GIB,
                "correction": self.correction,
                "corrected_gib": self.corrected / GIB,
            }
        if self.placement is not None:
            values = asdict(self.placement)
            for size in {"peak", "host", "least"} & set(values):
                values[f"{size}_gib"] = values.pop(size) / GIB
            feasible = isinstance(self.placement, Placement)
            found["placement"] = {"feasible": feasible, **values}
        return found


def arms(
    space: Space,
    model: Skeleton,
    batch: BatchShape,
    *,
    precision: str,
    devices: Devices | None,
    probe: Probe | None = None,
) -> dict[str, Predicted]:
    """Each arm at the middle of its ranges, corrected if there is a ``probe``. It takes seconds an
    arm; who watches sees a bar."""
    console = Console(stderr=True)
    quiet = not console.is_terminal
    items = space.arms.items()
    answer = Answering(model, batch, precision)
    found = {}
    for name, arm in track(items, "memory", console=console, transient=True, disable=quiet):
        predict = Predictor(arm, model, batch, precision)
        probed = probe(spaces.typical(arm, model.slots), batch) if probe else None
        correction = predict.correction(probed)
        found[name] = Predicted(
            footprint=predict(batch.questions, 1),
            placement=place(predict, answer, batch.questions, devices, correction)
            if devices
            else None,
            probed=probed,
            correction=correction,
        )
    return found


def placements(
    space: Space,
    model: Skeleton,
    batch: BatchShape,
    *,
    precision: str,
    beams: int,
    devices: Devices,
    sharing: int,
    probed: Mapping[str, Probed | None],
) -> tuple[Placements, dict[str, Infeasible]]:
    """Where the trials of each arm run, at most ``sharing`` on a device; and what runs nowhere, be
    it an arm or the untuned model. ``probed``: what three steps took, of arms of which it is known.
    """
    predictors = {name: Predictor(arm, model, batch, precision) for name, arm in space.arms.items()}
    measured = {
        name: found.correction(probed[name])
        for name, found in predictors.items()
        if probed.get(name) is not None
    }
    answer, size = Answering(model, batch, precision, beams), batch.questions

    def placed(arm: str, correction: float) -> Placement | Infeasible:
        if arm == UNTUNED:
            return place_untuned(answer, size, devices, shared, correction)
        correction *= measured.get(arm, 1.0)
        return place(predictors[arm], answer, size, devices, correction, sharing)

    found = {name: placed(name, 1.0) for name in space.arms}
    by_arm = {name: where for name, where in found.items() if isinstance(where, Placement)}
    shared = min((where.sharing for where in by_arm.values()), default=1)
    found[UNTUNED] = untuned = placed(UNTUNED, 1.0)
    return (
        Placements(
            by_arm,
            untuned if isinstance(untuned, Placement) else None,
            place=placed,
            devices=devices,
            corrections=measured,
        ),
        {name: where for name, where in found.items() if isinstance(where, Infeasible)},
    )


class Answering:
    """The memory that answering takes, of any number of questions; it keeps what it found."""

    def __init__(self, model: Skeleton, batch: BatchShape, precision: str, beams: int = 1) -> None:
        self.model, self.batch, self.precision, self.beams = model, batch, precision, beams
        self._found: dict[int, Footprint] = {}

    def __call__(self, questions: int) -> Footprint:
        """Of so many at once, each about an image of its own."""
        from trainables import answering

        if questions not in self._found:
            self._found[questions] = answering.predict(
                self.model,
                replace(self.batch, questions=questions, images=questions),
                beams=self.beams,
                precision=self.precision,
            )
        return self._found[questions]


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

    def correction(self, probed: Probed | None) -> float:
        """What a probe took, to what is predicted of the same; 1 if there was none."""
        if probed is None:
            return 1.0
        return probed.peak / self(probed.micro_batch, probed.pieces).peak

    def _predict(self, questions: int, pieces: int, twice: bool) -> Footprint:
        from trainables import footprint, recipe
        from trainables.checkpointing import checkpoint_layers
        from trainables.fork import fork

        network = fork(self.model.network)
        applied = recipe.apply(
            spaces.typical(self.arm, self.model.slots), self.model, network, seed=0
        )
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


def probe_table(arms: Mapping[str, Predicted]) -> Table:
    """An arm a row: what was predicted and what three steps took, and what a whole batch takes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for column in ("at once", "predicted", "probed", "correction", "corrected"):
        table.add_column(column, justify="right")
    for arm, found in arms.items():
        probed = found.probed
        if probed is None:
            table.add_row(arm, "1", "", "[red]did not fit[/]", "", "")
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
