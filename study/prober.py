"""Three real steps of each arm on one of the study's devices, before its trials are placed.

The driver's machine need not have a device: on Kubernetes the head has none. So this is an actor
where trials will be, and what it sees is what a prediction of memory is corrected by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from study.devices import Devices
from trainables.errors import BadInput

if TYPE_CHECKING:
    import torch

    from trainables.footprint import BatchShape
    from trainables.models.contract import Model
    from trainables.probe import Probed
    from trainables.recipe import Recipe
    from trainables.workload import WorkloadConfig

SILENT_SECONDS = 30.0
"""After which the user is told that no device is free."""


class Prober:
    """In a process that has a device."""

    def __init__(self, config: WorkloadConfig) -> None:
        self._config = config

    def load(self) -> bool:
        """Bring the model to the device; whether it has room for it.

        Raises:
            BadInput: the model is not there or not readable.
        """
        return self._loaded is not None

    def probe(self, recipes: Mapping[str, Recipe], shape: BatchShape) -> dict[str, Probed | None]:
        """Arm -> what three steps of a batch of ``shape`` take; None: not one question fits.

        Raises:
            BadInput: see ``load``.
        """
        from trainables.probe import probe

        if self._loaded is None:
            return dict.fromkeys(recipes)
        model, device = self._loaded
        precision = self._config.precision
        return {
            arm: probe(model, recipe, shape, precision=precision, device=device)
            for arm, recipe in recipes.items()
        }

    @cached_property
    def _loaded(self) -> tuple[Model, torch.device] | None:
        from trainables import memory

        try:
            return self._config.load_model()
        except Exception as error:  # memory is out by several types
            if memory.lacks(error):
                return None
            raise


class Probes:
    """The driver's end. The device is asked for at once, so that the model is there when it is
    known what to probe."""

    def __init__(self, config: WorkloadConfig, devices: Devices) -> None:
        actor: Any = ray.remote(Prober)
        self._prober = actor.options(num_cpus=devices.cpus, num_gpus=devices.gpus).remote(config)
        self._loaded = self._prober.load.remote()

    def take(
        self, recipes: Mapping[str, Recipe], shape: BatchShape, say: Callable[[str], None]
    ) -> dict[str, Probed | None]:
        """What the arms take, and give the device back. Empty if whoever was asked has died, of
        what a step took beside the device, say: then nothing is known but what is predicted.

        Raises:
            BadInput: the model is not there or not readable where the device is.
        """
        try:
            ready, _ = ray.wait([self._prober.__ray_ready__.remote()], timeout=SILENT_SECONDS)
            if not ready:
                say("each arm takes three steps on a device first: waiting until one is free")
            ray.get(self._loaded)
            found: dict[str, Probed | None] = ray.get(self._prober.probe.remote(recipes, shape))
        except RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise BadInput(str(error.cause)) from None
            raise
        except RayActorError:
            say("who took three steps of each arm has died: memory is as predicted, uncorrected")
            return {}
        finally:
            ray.kill(self._prober)
        return found
