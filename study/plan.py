"""Shows what each arm of a space trains and the memory that it takes; no weights are needed.

``python -m study.plan --space NAME --model NAME`` counts what each arm trains. With ``--batch-size
N`` it also predicts the memory of a training step, by what the memory is for. With
``--test-questions N`` it also says how small a difference between arms a study can show.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from search_spaces.declare import Space
from study.config import spaces
from study.config.setting_checks import check_number_of_splits
from study.config.settings import Settings
from study.config.space_changes import narrowing
from study.planning import memory_prediction, plan_tables, workload_profile
from study.planning.detectable import StudySize
from study.planning.placement import DeviceMemory
from study.planning.plan_tables import arms_table, cost_of_splits
from study.reporting.terminal import standard_console
from study.trials.text import count_text
from trainables.command import command
from trainables.data.common.wording import DEFAULT_ASKING
from trainables.errors import BadInput
from trainables.options import Parser, option, parse, same_option
from trainables.workload import PRECISIONS, WorkloadConfig

if TYPE_CHECKING:
    from study.planning.memory_prediction import ArmMemory
    from trainables.memory.footprint import BatchShape
    from trainables.model_contract import Skeleton
    from trainables.models.common.quantisation import BaseBits
    from trainables.recipe import ParameterCounts


MEMORY = "memory"
"""Title of the group of options about memory."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to count, and the batch and the devices to predict memory for."""

    space: str = same_option(Settings, "space", required=True)
    arm: str | None = same_option(Settings, "arm", help="arms to plan for")
    set: list[str] | None = same_option(Settings, "set")
    model: str = same_option(Settings, "model", help="'tiny', a preset, a folder, or hub:ORG/NAME")
    image_size: int | None = same_option(Settings, "image_size")
    seeds: int = same_option(Settings, "seeds")
    searches: int = same_option(Settings, "searches")
    splits: int = same_option(Settings, "splits", help="divisions of the data by image; 3 or more")
    against: str | None = same_option(Settings, "against")
    test_questions: int | None = option(
        None,
        help="say how small a difference a study with N test questions (in each split) can show",
    )
    test_images: int | None = option(
        None, help="different images of the test questions", default="as many as questions"
    )
    json: bool = option(False, help="a list of objects, one an arm")
    batch_size: int | None = option(
        None, group=MEMORY, help="predict the memory of a step with N questions"
    )
    images: int | None = option(
        None, group=MEMORY, help="different images in a batch", default="as many as questions"
    )
    question_tokens: int | None = option(
        None, group=MEMORY, help="tokens of the longest question", default="all it may have"
    )
    answer_tokens: int | None = option(
        None, group=MEMORY, help="tokens of the longest answer", default="all it may have"
    )
    probe: bool = option(False, group=MEMORY, help="take three real steps, and correct it by them")
    precision: str = option(
        WorkloadConfig.precision, group=MEMORY, choices=PRECISIONS, help="precision of a step"
    )
    base_bits: int | None = same_option(Settings, "base_bits")
    devices: int | None = option(
        None, group=MEMORY, help="say where each arm would run on N devices"
    )
    device_gib: float | None = option(None, group=MEMORY, help="memory of each device")
    host_gib: float | None = option(
        None, group=MEMORY, help="memory beside each device, to offload to", default="none"
    )


NEEDED_WITH = {
    "images": ("batch_size",),
    "question_tokens": ("batch_size",),
    "answer_tokens": ("batch_size",),
    "probe": ("batch_size",),
    "devices": ("batch_size", "device_gib"),
    "device_gib": ("batch_size", "devices"),
    "host_gib": ("batch_size", "devices", "device_gib"),
}
"""Options that mean nothing without others."""


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input."""
    given = parse(_parser(), arguments, Request, groups=(MEMORY,))
    _check(given)
    whole = narrowing.compared_against(spaces.load(given.space), given.against)
    space = narrowing.narrow(whole, given.arm, given.set or ())
    from trainables.model_lookup import skeleton_of
    from trainables.models.common.quantisation import slot_bits
    from trainables.shared_layers.quantised_linear import count_values

    bits = spaces.base_bits(given.base_bits, space)
    model = skeleton_of(given.model, given.image_size, given.precision, bits)
    applied = workload_profile.arms(space, model)
    memory = {}
    if given.batch_size:
        devices = None
        if given.devices and given.device_gib:
            host_gib = given.host_gib or 0.0
            devices = DeviceMemory(count=given.devices, gib=given.device_gib, host_gib=host_gib)
        shape = _shape(given, given.batch_size, model)
        memory = memory_prediction.arms(
            space,
            model,
            shape,
            precision=given.precision,
            devices=devices,
            probe=_probe(given, bits) if given.probe else None,
            divisible=bits is None,
        )
    if given.json:
        rows = [_row(name, found, memory.get(name)) for name, found in applied.items()]
        print(json.dumps(rows, indent=2))
        return 0
    console = standard_console()
    parameters = count_values(model.network)
    console.print(Text(space.question, style="bold"))
    if narrowed := narrowing.options_text(given.arm, given.set):
        console.print(f"  space    narrowed by {narrowed}")
    console.print(f"  model    {model.name}, {parameters:,} parameters")
    if bits is not None:
        shown = plan_tables.bits_text(slot_bits(model), bits, space)
        console.print(f"  base     {shown}")
    placing = any(map(spaces.placing, space.arms.values()))
    texts = ", and of choices that say where a method acts at what trains most" * placing
    console.print(f"  counted  at the middle of each range{texts}\n")
    console.print(arms_table(space, applied))
    for line in plan_tables.without_effect(space, workload_profile.vectors_alone(applied)):
        console.print(Text(line, style="yellow"))
    if given.splits > 1:
        console.print(f"\n{_of_splits(given, space)}")
    if given.test_questions:
        size = StudySize(
            questions=given.test_questions,
            images=given.test_images or given.test_questions,
            arms=len(space.arms),
            seeds=given.seeds,
            searches=given.searches,
            splits=given.splits,
            against=space.against is not None,
        )
        claims = size.splits < 2 and size.arms > 1
        console.print(f"\nA study claims {size.claim}" if claims else "")
        console.print(f"A study shows {size.text}, {size.supposing}")
    if memory:
        console.print(
            f"\nPeak memory of a training step in GiB, for what: {given.precision}, "
            f"{shape.questions} questions about {shape.images} images of {model.image_size} px, "
            f"{shape.question_tokens} + {shape.answer_tokens} tokens each"
            + "; an arm with batch sizes of its own: the largest" * _own_batches(space)
            + "\n"
        )
        console.print(plan_tables.memory_table(memory))
        if _own_prompts(space):
            console.print(
                "\nTokens of the arms' own prompts are not counted, since no tokenizer is read: "
                "study.launch --dry-run counts them"
            )
    if given.probe:
        console.print("\nThe same in GiB beside three real steps here, and a whole batch by both\n")
        console.print(plan_tables.probe_table(memory))
    if given.devices:
        console.print(f"\nOn {given.devices} devices of {given.device_gib:g} GiB\n")
        console.print(plan_tables.placement_table(memory))
    return 0


def _of_splits(given: Request, space: Space) -> str:
    """What several splits cost, in words."""
    arms, times, named = len(space.arms), given.splits, space.budget.trials
    trials = named or spaces.default_trials(space) * times
    confirmed = (
        f"{count_text(arms, 'arm')} x {times} splits x {count_text(given.seeds, 'seed')} = "
        f"{count_text(arms * times * given.seeds, 'training')}"
    )
    few = f"; give study.launch --trials {arms * times} or more" * (trials < arms * times)
    return (
        f"{times} splits take {cost_of_splits(times, named)}: at most "
        f"{count_text(trials, 'trial')} of search, and {confirmed} to confirm it{few}"
    )


def _own_batches(space: Space) -> bool:
    return any(spaces.BATCH_SIZE in arm.training for arm in space.arms.values())


def _own_prompts(space: Space) -> bool:
    return any(asking != DEFAULT_ASKING for asking in spaces.askings(space, DEFAULT_ASKING))


def _parser() -> Parser:
    return Parser(
        prog="python -m study.plan",
        description="What each arm of a space trains in a model, and the memory it takes; no "
        "weights are needed.",
    )


def _check(given: Request) -> None:
    """Refuse sizes that are out of range or that do not go together."""
    of_a_batch = ("batch_size", "images", "question_tokens", "answer_tokens")
    for name in (*of_a_batch, "devices", "device_gib", "host_gib"):
        value = getattr(given, name)
        if value is not None and not 1 <= value < math.inf:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    _check_complete(given)
    for name in ("seeds", "searches", "splits", "test_questions", "test_images"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    check_number_of_splits(given.splits)
    if given.splits > 1 and given.searches > 1:
        raise BadInput(
            f"--splits {given.splits} does not go with --searches {given.searches}: leave one away"
        )
    if given.test_images and given.test_images > (given.test_questions or 0):
        raise BadInput(
            f"--test-images {given.test_images} needs as many --test-questions at least, got "
            f"{given.test_questions or 'none'}"
        )
    if given.images and given.batch_size and given.images > given.batch_size:
        raise BadInput(
            f"--images {given.images} is more than the {given.batch_size} questions of a batch"
        )


def _check_complete(given: Request) -> None:
    """Refuse an option of ``NEEDED_WITH`` without all others that it needs."""
    for option_name, needed in NEEDED_WITH.items():
        missing = [f"--{name.replace('_', '-')} N" for name in needed if not getattr(given, name)]
        if getattr(given, option_name) and missing:
            raise BadInput(
                f"--{option_name.replace('_', '-')} is for {' and '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} missing"
            )


def _probe(given: Request, bits: BaseBits | None) -> memory_prediction.Probe:
    """Load the model, and return a function that takes three steps of a recipe in it."""
    from functools import partial

    from trainables.memory.calibration import measure_steps

    config = WorkloadConfig(
        model=given.model,
        image_size=given.image_size,
        precision=given.precision,
        base_bits=bits,
    )
    model, device = config.load_model()
    found: memory_prediction.Probe = partial(
        measure_steps, model, precision=given.precision, device=device
    )
    return found


def _shape(given: Request, questions: int, model: Skeleton) -> BatchShape:
    from trainables.memory.footprint import BatchShape

    if given.question_tokens and given.question_tokens > model.question_tokens:
        raise BadInput(
            f"--question-tokens {given.question_tokens} is more than the {model.question_tokens} "
            "that the model reads of a question"
        )
    most = model.longest_answer
    if given.answer_tokens and most is not None and given.answer_tokens > most:
        raise BadInput(
            f"--answer-tokens {given.answer_tokens} is more than the {most} for which the model "
            "has positions"
        )
    return BatchShape(
        questions=questions,
        images=given.images or questions,
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
