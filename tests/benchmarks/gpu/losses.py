"""Part 1: losses of every method on the device, against the CPU's, in fp32."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch

from tests.benchmarks.gpu.machine import NOTHING, Machine, Measurement, Result, Verdict
from tests.trainables.made_workload import WORDS, made_up
from trainables import registry
from trainables.errors import BadInput
from trainables.model_contract import Model
from trainables.recipe import Recipe
from trainables.training.trial import Trial
from trainables.training.trial_config import TrialConfig
from trainables.workload import Workload

TITLE = "losses as on the CPU"
FAR = 1e-3
"""Largest relative difference between a loss on the device and on the CPU."""
GOAL = f"every method's losses in fp32 within {FAR:g} of the CPU's"
WEIGHT = 3
FAMILIES = ("blip", "llava")
ENGINES = ("0", "3")
"""DeepSpeed's engines that are compared with plain PyTorch on the CPU."""
STEPS, QUESTIONS = 4, 8


def measurements(machine: Machine) -> list[Measurement]:
    """Every method in every slot of a small random model of each family; and where the shapes are
    not small, DeepSpeed's ZeRO with LoRA."""
    found = [
        Measurement(
            name=f"{family} {method}", take=partial(compare, family, method, machine.device)
        )
        for family in FAMILIES
        for method in registry.METHODS.names()
        if method != "frozen"
    ]
    zero = [
        Measurement(
            name=f"blip lora, ZeRO-{engine}",
            take=partial(compare, "blip", "lora", machine.device, engine),
            needs=("deepspeed",),
        )
        for engine in ENGINES
    ]
    return found + zero * (not machine.small)


def line(result: Result) -> str:
    """The largest difference."""
    return f"losses {result['first']:.4f} to {result['last']:.4f}, {result['difference']:.1e} off"


def verdict(results: Mapping[str, Result]) -> Verdict:
    """How many are within the goal."""
    found = {name: r["difference"] for name, r in results.items() if "difference" in r}
    if not found:
        return NOTHING
    within = sum(difference <= FAR for difference in found.values())
    worst = max(found, key=found.__getitem__)
    text = f"{within} of {len(found)} within {FAR:g}; the furthest is {worst}, {found[worst]:.1e}"
    return Verdict(within == len(found), text)


def compare(family: str, method: str, device: torch.device, engine: str = "off") -> Result:
    """Losses of training and of validation on the device and on the CPU, the largest relative
    difference between them, and what a method has no layers for in this family."""
    try:
        host = trained(family, method, torch.device("cpu"))
        found = trained(family, method, device, engine)
    except BadInput as error:
        return {"left_out": str(error)}
    off = [abs(a - b) / abs(b) for a, b in zip(found, host, strict=True)]
    return {"difference": max(off), "first": found[0], "last": found[-2], "losses": found}


def trained(family: str, method: str, device: torch.device, engine: str = "off") -> list[float]:
    """Loss of each step of a trial, and its validation loss."""
    workload = _workload(family, device.type)
    tuning = {"method": method, "everywhere": True}
    config = TrialConfig(
        recipe=Recipe.from_plain(dict.fromkeys(workload.model.slots, tuning)),
        lr=3e-3,
        seed=0,
        max_examples=64,
        batch_size=QUESTIONS,
    )
    trial = Trial(workload, config, precision="fp32", deepspeed=engine)
    losses = [trial.train(QUESTIONS * (step + 1)) for step in range(STEPS)]
    return [*losses, trial.validation_loss()]


@cache
def _workload(family: str, kind: str) -> Workload:
    return made_up(copy.deepcopy(_model(family)), torch.device(kind))


@cache
def _model(family: str) -> Model:
    made: Any = import_module(f"tests.trainables.models.small.{family}")
    words: Sequence[str] = WORDS
    model: Model = made.small(words)
    return model
