"""Shows what each arm of a space trains and the memory that it takes; no weights are needed.

``python -m study.plan --space NAME --model NAME`` counts what each arm trains. With ``--batch-size
N`` it also predicts the memory of a training step, by what the memory is for.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from study.config import spaces
from study.planning import memory_prediction, plan_tables, workload_profile
from study.planning.placement import DeviceMemory
from study.planning.plan_tables import arms_table
from trainables.command import command
from trainables.errors import BadInput

if TYPE_CHECKING:
    from study.planning.memory_prediction import ArmMemory
    from trainables.memory.footprint import BatchShape
    from trainables.model_contract import Skeleton
    from trainables.recipe import ParameterCounts


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = _parser().parse_args(arguments)
    _check(given)
    space = spaces.load(given.space)
    from trainables.model_lookup import skeleton_of

    model = skeleton_of(given.model, given.image_size, given.precision)
    applied = workload_profile.arms(space, model)
    memory = {}
    if given.batch_size:
        devices = None
        if given.devices:
            host_gib = given.host_gib or 0.0
            devices = DeviceMemory(count=given.devices, gib=given.device_gib, host_gib=host_gib)
        shape = _shape(given, model)
        memory = memory_prediction.arms(
            space,
            model,
            shape,
            precision=given.precision,
            devices=devices,
            probe=_probe(given) if given.probe else None,
        )
    if given.json:
        rows = [_row(name, found, memory.get(name)) for name, found in applied.items()]
        print(json.dumps(rows, indent=2))
        return 0
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    parameters = sum(p.numel() for p in model.network.parameters())
    console.print(f"[bold]{space.question}[/]")
    console.print(f"  model    {model.name}, {parameters:,} parameters")
    console.print("  counted  at the middle of each range\n")
    console.print(arms_table(space, applied))
    if memory:
        console.print(
            f"\nPeak memory of a training step in GiB, for what: {given.precision}, "
            f"{shape.questions} questions about {shape.images} images of {model.image_size} px, "
            f"{shape.question_tokens} + {shape.answer_tokens} tokens each\n"
        )
        console.print(plan_tables.memory_table(memory))
    if given.probe:
        console.print("\nThe same in GiB beside three real steps here, and a whole batch by both\n")
        console.print(plan_tables.probe_table(memory))
    if given.devices:
        console.print(f"\nOn {given.devices} devices of {given.device_gib:g} GiB\n")
        console.print(plan_tables.placement_table(memory))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.plan",
        description="What each arm of a space trains in a model, and the memory it takes; no "
        "weights are needed.",
    )
    parser.add_argument(
        "--space", required=True, metavar="NAME", help="a search space, or a file.py of your own"
    )
    parser.add_argument(
        "--model",
        default="tiny",
        metavar="NAME",
        help="'tiny', a preset, a folder, or hub:ORG/NAME [tiny]",
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels a side [the model's]")
    parser.add_argument("--json", action="store_true", help="a list of objects, one an arm")
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--batch-size", type=int, metavar="N", help="predict the memory of a step with N questions"
    )
    memory.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="number of different images in a batch [as many as questions]",
    )
    memory.add_argument(
        "--question-tokens",
        type=int,
        metavar="N",
        help="tokens of the longest question [all it may have]",
    )
    memory.add_argument(
        "--answer-tokens",
        type=int,
        metavar="N",
        help="tokens of the longest answer [all it may have]",
    )
    memory.add_argument(
        "--probe", action="store_true", help="take three real steps, and correct it by them"
    )
    memory.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="[fp32]")
    memory.add_argument(
        "--devices", type=int, metavar="N", help="say where each arm would run on N devices"
    )
    memory.add_argument("--device-gib", type=float, metavar="X", help="memory of each device")
    memory.add_argument(
        "--host-gib",
        type=float,
        metavar="X",
        help="memory beside each device, to offload to [none]",
    )
    return parser


def _check(given: argparse.Namespace) -> None:
    """Refuse sizes that are out of range or that do not go together."""
    of_a_batch = ("batch_size", "images", "question_tokens", "answer_tokens")
    for name in (*of_a_batch, "devices", "device_gib", "host_gib"):
        value = getattr(given, name)
        if value is not None and not 1 <= value < math.inf:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if value is not None and given.batch_size is None:
            raise BadInput(f"--{name.replace('_', '-')} is for --batch-size N, which is missing")
    if given.images is not None and given.images > given.batch_size:
        raise BadInput(
            f"--images {given.images} is more than the {given.batch_size} questions of a batch"
        )
    if given.probe and given.batch_size is None:
        raise BadInput("--probe is for --batch-size N, which is missing")
    if (given.devices is None) != (given.device_gib is None):
        raise BadInput("--devices N and --device-gib X belong together; give both or neither")


def _probe(given: argparse.Namespace) -> memory_prediction.Probe:
    """Load the model, and return a function that takes three steps of a recipe in it."""
    from functools import partial

    from trainables.memory.calibration import measure_steps
    from trainables.workload import WorkloadConfig

    config = WorkloadConfig(
        model=given.model, image_size=given.image_size, precision=given.precision
    )
    model, device = config.load_model()
    found: memory_prediction.Probe = partial(
        measure_steps, model, precision=given.precision, device=device
    )
    return found


def _shape(given: argparse.Namespace, model: Skeleton) -> BatchShape:
    from trainables.memory.footprint import BatchShape

    return BatchShape(
        questions=given.batch_size,
        images=given.images or given.batch_size,
        question_tokens=given.question_tokens or model.question_tokens,
        answer_tokens=given.answer_tokens or model.answer_tokens,
    )


def _row(name: str, applied: ParameterCounts, memory: ArmMemory | None) -> dict[str, Any]:
    """One arm as JSON. Percentages are of all parameters, adapters included."""
    row: dict[str, Any] = {
        "arm": name,
        "recipe": {count.slot: count.tuning for count in applied.counts},
        "trained_parameters": applied.trained_parameters,
        "total_parameters": applied.total_parameters,
        "percent": applied.trained_percent,
        "slots": [asdict(count) for count in applied.counts],
    }
    return row | (memory.plain() if memory else {})


if __name__ == "__main__":
    sys.exit(main())
