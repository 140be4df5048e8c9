"""Predicts the memory that each arm of a space needs, and where the arm would run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from search_spaces.declare import Arm, Space
from study.config import spaces
from study.config.deployment import MOST_SHARING
from study.planning.arm_placements import UNTUNED, ArmPlacements, PlacedArms
from study.planning.device_fit import Answer, place, place_untuned
from study.planning.placement import GIB, DeviceMemory, Infeasible, Placement
from study.planning.workload_profile import typical
from trainables.engine.training_settings import DEFAULT_TRAINING, UNDIVIDED
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.config.definition import StudyDefinition
    from study.planning.cluster_partition import ClusterPartition
    from study.planning.workload_profile import WorkloadProfile
    from trainables.memory.calibration import MeasuredSteps
    from trainables.memory.footprint import BatchShape, Footprint
    from trainables.model_contract import Skeleton
    from trainables.recipe import Recipe

LARGEST_STATE_FIRST = ("adamw", "muon", "adamw_8bit")
"""Optimizers, by the bytes of their state: 8, 4 and 2 for each value of a large matrix."""
PROBED = DEFAULT_TRAINING.optimizer
"""Optimizer of the steps of a probe."""
Probe = Callable[["Recipe", "BatchShape"], "MeasuredSteps | None"]
"""Function that takes three real training steps of a recipe and measures them."""


@dataclass(frozen=True, kw_only=True)
class ArmMemory:
    """Predicted memory and placement of one arm."""

    footprint: Footprint
    """Predicted memory of a whole batch on one device."""
    placement: Placement | Infeasible | None
    """Placement of the arm's trials; None if nothing is known of devices."""
    probed: MeasuredSteps | None = None
    """Measurement of three real steps, if they were taken."""
    correction: float = 1.0
    """Ratio of the memory that the real steps took to what was predicted of them."""

    @property
    def corrected(self) -> int:
        """Corrected peak bytes of a whole batch on one device."""
        return int(self.footprint.peak * self.correction)

    def plain(self) -> dict[str, Any]:
        """JSON-ready values, sizes in GiB."""
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
            stored = {"activation_checkpointing": "checkpointing"}
            values = {stored.get(name, name): v for name, v in asdict(self.placement).items()}
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
    devices: DeviceMemory | None,
    probe: Probe | None = None,
    divisible: bool = True,
) -> dict[str, ArmMemory]:
    """Predicted memory of each arm at the middle of its ranges, corrected if there is a ``probe``.
    It takes seconds per arm, with a progress bar on a terminal. ``divisible``: whether several
    devices can divide the base's weights."""
    console = Console(stderr=True, markup=False, emoji=False)
    quiet = not console.is_terminal
    items = space.arms.items()
    answer = GenerationMemory(model, batch, precision)
    found = {}
    for name, arm in track(items, "memory", console=console, transient=True, disable=quiet):
        predict = TrainingMemory(arm, model, batch, precision)
        probed = probe(predict.recipe, batch) if probe else None
        correction = predict.correction(probed)
        found[name] = ArmMemory(
            footprint=predict(predict.largest, 1),
            placement=predict.place(answer, devices, correction, divisible=divisible)
            if devices
            else None,
            probed=probed,
            correction=correction,
        )
    return found


def place_arms(
    definition: StudyDefinition,
    profile: WorkloadProfile,
    partition: ClusterPartition,
    *,
    precision: str,
    device_gib: float,
) -> PlacedArms:
    """Place each arm of a study, and the untuned model, by predicted memory. ``profile`` has what
    three steps of each arm took, by which the prediction is corrected.

    Raises:
        BadInput: no arm fits.
    """
    from trainables.model_lookup import skeleton_of

    workload = definition.workload
    by_memory, nowhere = predict_placements(
        definition.space,
        skeleton_of(workload.model, workload.image_size, precision, workload.base_bits),
        profile.batch(definition.budget),
        precision=precision,
        beams=profile.beams,
        devices=DeviceMemory(count=partition.hosts, gib=device_gib, host_gib=partition.host_gib),
        sharing=partition.trials_per_host,
        probed=profile.probed,
        divisible=workload.base_bits is None,
    )
    if not by_memory.by_arm:
        arm, first = next(iter(nowhere.items()))
        raise BadInput(f"no arm fits into the devices' memory; {arm}: {first.reason}")
    return PlacedArms(profile=profile, placements=by_memory, nowhere=nowhere)


def predict_placements(
    space: Space,
    model: Skeleton,
    batch: BatchShape,
    *,
    precision: str,
    beams: int,
    devices: DeviceMemory,
    sharing: int,
    probed: Mapping[str, MeasuredSteps | None],
    divisible: bool = True,
) -> tuple[ArmPlacements, dict[str, Infeasible]]:
    """Placement of each arm's trials, at most ``sharing`` on a device; and what runs nowhere, be it
    an arm or the untuned model. ``probed``: arm -> what three steps took, for arms of which it is
    known. ``divisible``: whether several devices can divide the base's weights."""
    memory_of = {
        name: TrainingMemory(arm, model, batch, precision) for name, arm in space.arms.items()
    }
    measured = {
        name: found.correction(probed[name])
        for name, found in memory_of.items()
        if probed.get(name) is not None
    }
    answer, size = GenerationMemory(model, batch, precision, beams), batch.questions

    def place_one(arm: str, correction: float) -> Placement | Infeasible:
        if arm == UNTUNED:
            return place_untuned(answer, size, devices, shared, correction, divisible=divisible)
        correction *= measured.get(arm, 1.0)
        return memory_of[arm].place(answer, devices, correction, sharing, divisible=divisible)

    found = {name: place_one(name, 1.0) for name in space.arms}
    by_arm = {name: where for name, where in found.items() if isinstance(where, Placement)}
    shared = min((where.sharing for where in by_arm.values()), default=1)
    found[UNTUNED] = untuned = place_one(UNTUNED, 1.0)
    return (
        ArmPlacements(
            by_arm,
            untuned if isinstance(untuned, Placement) else None,
            place_arm=place_one,
            devices=devices,
            corrections=measured,
        ),
        {name: where for name, where in found.items() if isinstance(where, Infeasible)},
    )


class GenerationMemory:
    """Predicts and remembers the memory of answering, for any number of questions."""

    def __init__(self, model: Skeleton, batch: BatchShape, precision: str, beams: int = 1) -> None:
        self.model, self.batch, self.precision, self.beams = model, batch, precision, beams
        self._found: dict[int, Footprint] = {}

    def __call__(self, questions: int) -> Footprint:
        """Footprint of answering ``questions`` at once, each about an image of its own."""
        from trainables.memory import generation_footprint

        if questions not in self._found:
            self._found[questions] = generation_footprint.predict(
                self.model,
                replace(self.batch, questions=questions, images=questions),
                beams=self.beams,
                precision=self.precision,
            )
        return self._found[questions]


class TrainingMemory:
    """Predicts and remembers the memory of training one arm at typical values, for any part of a
    batch. Of several batch sizes and optimizers it is the largest, and the one with the largest
    state."""

    def __init__(self, arm: Arm, model: Skeleton, batch: BatchShape, precision: str) -> None:
        """``batch`` is a batch of the space's size, which is also the arm's unless it names
        others."""
        self.arm, self.model, self.precision = arm, model, precision
        self.sizes = spaces.batch_sizes(arm, batch.questions)
        self.largest = max(self.sizes)
        images = -(-batch.images * self.largest // batch.questions)
        self.batch = replace(batch, questions=self.largest, images=images)
        self.optimizer = min(spaces.optimizers(arm), key=LARGEST_STATE_FIRST.index)
        self._found: dict[tuple[int, int, bool, str], Footprint] = {}

    @cached_property
    def recipe(self) -> Recipe:
        """The arm's recipe at typical values."""
        return typical(self.arm, self.model)

    def __call__(self, questions: int, pieces: int, twice: bool = False) -> Footprint:
        """Footprint of a training step in ``pieces`` pieces of ``questions`` questions each.
        ``twice``: with layers computed twice."""
        return self._remembered(questions, pieces, twice, self.optimizer)

    def place(
        self,
        answer: Answer,
        devices: DeviceMemory,
        correction: float = 1.0,
        most_sharing: int = MOST_SHARING,
        *,
        divisible: bool = True,
    ) -> Placement | Infeasible:
        """The cheapest placement of the arm's trials that fits (``device_fit.place``)."""
        return place(
            self,
            answer,
            self.largest,
            devices,
            correction,
            most_sharing,
            other_sizes=self.sizes,
            undivided=bool({*spaces.optimizers(self.arm)} & {*UNDIVIDED}),
            divisible=divisible,
        )

    def correction(self, probed: MeasuredSteps | None) -> float:
        """Ratio of the memory that a probe took to what is predicted of the same steps, which are
        AdamW's; 1 without a probe."""
        if probed is None:
            return 1.0
        steps = self._remembered(probed.micro_batch, probed.pieces, False, PROBED)
        return probed.peak / steps.peak

    def _remembered(self, questions: int, pieces: int, twice: bool, optimizer: str) -> Footprint:
        key = (questions, min(pieces, 2), twice, optimizer)
        if key not in self._found:
            self._found[key] = self._predict(*key)
        return self._found[key]

    def _predict(self, questions: int, pieces: int, twice: bool, optimizer: str) -> Footprint:
        from trainables import recipe
        from trainables.engine.activation_checkpointing import checkpoint_layers
        from trainables.memory import footprint
        from trainables.weight_sharing import share_weights

        network = share_weights(self.model.network)
        applied = recipe.apply(self.recipe, self.model, network, seed=0)
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
            optimizer=optimizer,
        )
