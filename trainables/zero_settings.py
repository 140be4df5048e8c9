"""DeepSpeed's configuration, derived from the trial, without importing DeepSpeed or PyTorch.

Its own sizes are made for models of billions of trained parameters: it would take 2 GiB for the
gradients of an adapter on their way, and ZeRO-3 would never let go of a model below a billion
parameters, since all of it is used again soon.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

CLIP_NORM = 1.0
BUCKET = 500_000_000
"""Values that are exchanged at once at most; DeepSpeed's own size."""
PERSISTENT = 10_000
"""Values of a weight that ZeRO-3 does not divide: biases and gains. Its own 100,000 would leave the
matrices of a small model on every worker."""
OFFLOAD = "-offload"
"""What a kind ends with whose optimizer, and under ZeRO-3 whose weights, are in host memory."""
OURS = ("train_batch_size", "gradient_accumulation_steps", "optimizer", "scheduler")
"""What a user's configuration must not have: the study decides it, alike for all trials."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What of a trial decides it. Numbers of values."""

    trained: int
    layer: int
    """Of the largest layer, frozen or not."""

    @classmethod
    def of(cls, network: Module, trained: Mapping[str, Parameter]) -> Sizes:
        """Those of a network, of which some parameters are trained."""
        layers = (sum(p.numel() for p in m.parameters(recurse=False)) for m in network.modules())
        return cls(trained=sum(p.numel() for p in trained.values()), layer=max(layers))


def divides(kind: str) -> bool:
    """Whether an engine of a kind (see ``configuration``) divides the weights among its workers, or
    has them in host memory: ZeRO-3 does."""
    if kind.startswith("{"):
        return int(json.loads(kind).get("zero_optimization", {}).get("stage", 0)) == 3
    return kind.removesuffix(OFFLOAD) == "3"


def configuration(kind: str, sizes: Sizes, *, cuda: bool) -> dict[str, Any]:
    """As small as the trial allows.

    Args:
        kind: ``off``, for which there is none; a ZeRO stage, ``0`` to ``3``; the same with
            ``OFFLOAD`` behind it; or a configuration of the user's as JSON, which is taken as it
            is.
        sizes: of the trial.
        cuda: host memory from which a device may copy by itself can be had.
    """
    if kind == "off":
        return {}
    micro_batch = {"train_micro_batch_size_per_gpu": 1}  # it must be said; batches are ours
    if kind.startswith("{"):
        return {**json.loads(kind), **micro_batch}
    stage, offload = int(kind.removesuffix(OFFLOAD)), kind.endswith(OFFLOAD)
    # Whole pieces of every worker, which DeepSpeed asks for.
    bucket = min(math.ceil(max(sizes.trained, 1) / 1024) * 1024, BUCKET)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_prefetch_bucket_size": sizes.layer,
        "stage3_max_live_parameters": 2 * sizes.layer,
        "stage3_max_reuse_distance": 2 * sizes.layer,
        "stage3_param_persistence_threshold": PERSISTENT,
    }
    host = {"device": "cpu", "pin_memory": cuda}
    if offload:
        zero["offload_optimizer"] = host
    if offload and stage == 3:
        zero["offload_param"] = host
    return {
        **micro_batch,
        "gradient_clipping": CLIP_NORM,
        "zero_optimization": zero,
        # Offloaded, it is PyTorch's AdamW all the same: DeepSpeed's own for CPUs rounds otherwise.
        "zero_force_ds_cpu_optimizer": False,
    }


def in_a_line(configuration: Mapping[str, Any]) -> str:
    """What is in it, for a reader."""
    zero = configuration.get("zero_optimization", {})
    said = [f"ZeRO-{zero.get('stage', 0)}"]
    offloaded = {"offload_optimizer": "the optimizer", "offload_param": "the weights"}
    there = [what for key, what in offloaded.items() if key in zero]
    if there:
        said.append(f"{' and '.join(there)} in host memory")
    if "reduce_bucket_size" in zero:
        said.append(f"{zero['reduce_bucket_size']:,} values exchanged at once")
    if zero.get("stage") == 3 and "stage3_max_live_parameters" in zero:
        said.append(f"{zero['stage3_max_live_parameters']:,} values of weights kept whole at once")
    if "gradient_clipping" in configuration:
        said.append(f"gradients clipped at {configuration['gradient_clipping']:g}")
    return ", ".join(said)
