"""Derives DeepSpeed's configuration from a trial, without importing DeepSpeed or PyTorch.

DeepSpeed's default sizes are made for models of billions of trained parameters. With them it would
take 2 GiB to exchange the gradients of an adapter, and ZeRO-3 would never release a model below a
billion parameters, since all of it is used again soon.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

BUCKET = 500_000_000
"""Maximum number of values that are exchanged at once, which is DeepSpeed's default."""
PERSISTENT = 10_000
"""Number of values up to which ZeRO-3 does not partition a weight: biases and gains. DeepSpeed's
default, 100,000, would leave the matrices of a small model on every worker."""
OFFLOAD = "-offload"
"""Suffix of an engine kind whose optimizer, and under ZeRO-3 whose weights, are in host memory."""
RESERVED_KEYS = ("train_batch_size", "gradient_accumulation_steps", "optimizer", "scheduler")
"""Keys that a user's configuration must not have: the study decides them, alike for all trials."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a trial that decide its configuration, in numbers of values."""

    trained: int
    """Number of trained values."""
    layer: int
    """Number of values of the largest layer, frozen or not."""

    @classmethod
    def measure(cls, network: Module, trained: Mapping[str, Parameter]) -> Sizes:
        """Sizes of a network of which some parameters are trained."""
        layers = (sum(p.numel() for p in m.parameters(recurse=False)) for m in network.modules())
        return cls(trained=sum(p.numel() for p in trained.values()), layer=max(layers))


def partitions_weights(kind: str) -> bool:
    """Whether an engine kind (see ``configuration``) partitions the weights among its workers, or
    has them in host memory, as ZeRO-3 does."""
    if kind.startswith("{"):
        return zero_stage(json.loads(kind)) == 3
    return kind.removesuffix(OFFLOAD) == "3"


def divides_optimizer(kind: str) -> bool:
    """Whether an engine kind divides what is trained among its workers, as ZeRO-1 to 3 do, or has
    it in host memory."""
    if kind == "off":
        return False
    if kind.startswith("{"):
        return zero_stage(json.loads(kind)) > 0
    return kind != "0"


def zero_stage(configuration: Mapping[str, Any]) -> int:
    """ZeRO stage of a DeepSpeed configuration."""
    return int(configuration.get("zero_optimization", {}).get("stage", 0))


def configuration(kind: str, sizes: Sizes, *, pinned: bool, max_grad_norm: float) -> dict[str, Any]:
    """DeepSpeed's configuration for an engine kind, with sizes as small as the trial allows.

    Args:
        kind: ``off``, which has an empty configuration; a ZeRO stage, ``0`` to ``3``; a stage
            followed by ``OFFLOAD``; or a user's configuration as JSON, which is taken as it is.
        sizes: sizes of the trial.
        pinned: whether there is pinned host memory, from which a device copies by itself.
        max_grad_norm: norm to which gradients are clipped; 0: no clipping.
    """
    if kind == "off":
        return {}
    # DeepSpeed requires a micro batch size; the trial makes its batches itself.
    micro_batch = {"train_micro_batch_size_per_gpu": 1}
    if kind.startswith("{"):
        return {**json.loads(kind), **micro_batch}
    stage, offload = int(kind.removesuffix(OFFLOAD)), kind.endswith(OFFLOAD)
    # DeepSpeed needs a bucket that divides evenly among the workers.
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
    host = {"device": "cpu", "pin_memory": pinned}
    if offload:
        zero["offload_optimizer"] = host
    if offload and stage == 3:
        zero["offload_param"] = host
    return {
        **micro_batch,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": zero,
        # An offloaded optimizer is PyTorch's AdamW too: DeepSpeed's own for CPUs rounds otherwise.
        "zero_force_ds_cpu_optimizer": False,
    }


def summary(configuration: Mapping[str, Any]) -> str:
    """Summary of a configuration in one line, for users."""
    zero, stage = configuration.get("zero_optimization", {}), zero_stage(configuration)
    parts = [f"ZeRO-{stage}"]
    names = {"offload_optimizer": "the optimizer", "offload_param": "the weights"}
    offloaded = [name for key, name in names.items() if key in zero]
    if offloaded:
        parts.append(f"{' and '.join(offloaded)} in host memory")
    if "reduce_bucket_size" in zero:
        parts.append(f"{zero['reduce_bucket_size']:,} values exchanged at once")
    if stage == 3 and "stage3_max_live_parameters" in zero:
        parts.append(f"{zero['stage3_max_live_parameters']:,} values of weights kept whole at once")
    if configuration.get("gradient_clipping"):
        parts.append(f"gradients clipped at {configuration['gradient_clipping']:g}")
    return ", ".join(parts)
