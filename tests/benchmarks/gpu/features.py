"""Part 4: features of the frozen image encoder on the device, against the CPU's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tests.benchmarks import shapes
from tests.benchmarks.gpu.machine import NOTHING, Machine, Measurement, Result, Verdict
from trainables.devices import accelerator
from trainables.memory.measure import release_cached
from trainables.recipe import Recipe
from trainables.training.frozen_features import Features
from trainables.workload import Workload

TITLE = "features as on the CPU"
FAR = 1e-3
"""Largest difference in fp32, relative to the largest value."""
GOAL = f"in fp32 within {FAR:g} of the CPU's, relative to the largest value"
WEIGHT = 1
IMAGES = 4
"""Images of each split."""


def measurements(machine: Machine) -> list[Measurement]:
    """Both precisions of one model: MISS's, or the one that ships."""
    shape = "tiny" if machine.small else "miss"
    return [
        Measurement(name=f"{shape} {precision}", take=partial(compare, shape, precision))
        for precision in ("fp32", "bf16")
    ]


def line(result: Result) -> str:
    """The difference, and how long both took."""
    return (
        f"{result['difference']:.1e} off; {result['images']} images in {result['seconds']:.2f} s, "
        f"on the CPU in {result['cpu_seconds']:.2f}"
    )


def verdict(results: Mapping[str, Result]) -> Verdict:
    """The difference in each precision."""
    found = {name: r for name, r in results.items() if "difference" in r}
    if not found:
        return NOTHING
    exact = [r["difference"] <= FAR for name, r in found.items() if name.endswith("fp32")]
    text = "; ".join(f"{name} {r['difference']:.1e} off" for name, r in found.items())
    return Verdict(all(exact) if exact else None, text)


def compare(shape: str, precision: str) -> Result:
    """The largest difference of a feature, relative to the largest feature."""
    workload = shapes.workload(shape, images=IMAGES)
    found, seconds = features(workload, precision)
    workload.model.network.to("cpu")
    release_cached()
    host, cpu_seconds = features(replace(workload, device=torch.device("cpu")), precision)
    return {
        "difference": float((found - host).abs().max() / host.abs().max()),
        "images": len(host),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def features(workload: Workload, precision: str) -> tuple[Tensor, float]:
    """Features of the training images, of shape (images, tokens, width), and the seconds that
    those of training and validation took."""
    frozen = {slot: {"method": "frozen"} for slot in workload.model.slots}
    cache = Features(workload, precision=precision)
    accelerator.synchronise()
    began = time.perf_counter()
    stages = cache.usable(min(cache.frozen_stages(Recipe.from_plain(frozen)), 1))
    assert stages == 1, cache.refused
    seconds = time.perf_counter() - began
    images = sorted({row.image for row in workload.rows["train"]})
    return cache.image_features("train", images, stages).float(), seconds
