"""Measures memory and time of three training steps of each arm on one of the study's devices.

The measurements correct the memory predictions before trials are placed. An actor takes them on a
node that runs trials, because the driver's machine need not have a device: on Kubernetes the head
has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from study.planning.cluster_partition import ClusterPartition
from trainables.errors import BadInput

if TYPE_CHECKING:
    import torch

    from trainables.memory.calibration import MeasuredSteps
    from trainables.memory.footprint import BatchShape
    from trainables.model_contract import Model
    from trainables.recipe import Recipe
    from trainables.workload import WorkloadConfig

SILENT_SECONDS = 30.0
"""Seconds without a free device after which a message says that the study waits."""


class CalibrationActor:
    """Measures training steps in a process that has a device."""

    def __init__(self, config: WorkloadConfig) -> None:
        self._config = config

    def load(self) -> bool:
        """Load the model onto the device; False if the device has no room for it.

        Raises:
            BadInput: the model does not exist or cannot be read.
        """
        return self._loaded is not None

    def probe(
        self, recipes: Mapping[str, Recipe], shape: BatchShape
    ) -> dict[str, MeasuredSteps | None]:
        """Measure three training steps on a batch of ``shape``, for each arm in ``recipes``; None
        for an arm of which not even one question fits.

        Raises:
            BadInput: the model does not exist or cannot be read.
        """
        from trainables.memory.calibration import measure_steps

        if self._loaded is None:
            return dict.fromkeys(recipes)
        model, device = self._loaded
        precision = self._config.precision
        return {
            arm: measure_steps(model, recipe, shape, precision=precision, device=device)
            for arm, recipe in recipes.items()
        }

    @cached_property
    def _loaded(self) -> tuple[Model, torch.device] | None:
        """The model and its device; None if the device has no room for the model."""
        from trainables.memory.measure import is_out_of_memory

        try:
            return self._config.load_model()
        except Exception as error:  # out of memory has several exception types
            if is_out_of_memory(error):
                return None
            raise


class Calibrator:
    """The driver's handle of a ``CalibrationActor``. It requests a device and loads the model as
    soon as it is made, so that the model is ready when the recipes to measure are known."""

    def __init__(self, config: WorkloadConfig, partition: ClusterPartition) -> None:
        actor: Any = ray.remote(CalibrationActor)
        self._calibrator = actor.options(num_cpus=partition.cpus, num_gpus=partition.gpus).remote(
            config
        )
        self._loaded = self._calibrator.load.remote()

    def take(
        self, recipes: Mapping[str, Recipe], shape: BatchShape, say: Callable[[str], None]
    ) -> dict[str, MeasuredSteps | None]:
        """Measure the arms in ``recipes`` and release the device. The result is empty if the actor
        has died, for instance because a step used up the host's memory: memory predictions are used
        uncorrected then.

        Raises:
            BadInput: the model does not exist, or cannot be read, on the node with the device.
        """
        try:
            ready, _ = ray.wait([self._calibrator.__ray_ready__.remote()], timeout=SILENT_SECONDS)
            if not ready:
                say("measuring three steps of each arm: waiting for a free device")
            ray.get(self._loaded)
            found: dict[str, MeasuredSteps | None] = ray.get(
                self._calibrator.probe.remote(recipes, shape)
            )
        except RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise BadInput(str(error.cause)) from None
            raise
        except RayActorError:
            say(
                "the process that measured three steps of each arm has died: "
                "memory predictions stay uncorrected"
            )
            return {}
        finally:
            ray.kill(self._calibrator)
        return found
