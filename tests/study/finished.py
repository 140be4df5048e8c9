"""A study that has come to its end without a model: made-up losses and answers, real records."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.declare import Arm, Choice, LogUniform, Space, method
from study.analysis import results
from study.analysis.result_types import StudyResults
from study.config.definition import several
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import answers
from study.storage.study_folder import StudyFolder
from study.trials.record import Outcome, TrialEnd
from study.trials.searches import arm_of
from study.trials.spec import Kind, TrialSpec
from tests.study.made_up import play, rules
from trainables.data.common.dataset import Dataset, Example
from trainables.measures.common.scores import score
from trainables.training.blind import BLIND

LR = LogUniform(1e-5, 1e-1)
SPACE = Space(
    question="Which of <five> arms & why?",
    arms={
        "layernorm": Arm(everywhere=method("layernorm"), lr=LR),
        "lora": Arm(everywhere=method("lora", rank=Choice(2, 8, 32)), lr=LR),
        "full": Arm(everywhere=method("full"), lr=LR),
        "ia3": Arm(everywhere=method("ia3"), lr=LR),
        "bitfit": Arm(everywhere=method("bitfit"), lr=LR),
    },
)
CHANCES = {"lora": 0.72, "layernorm": 0.71, "full": 0.66, "ia3": 0.36, "untuned": 0.3}
TRAINED = {"lora": 90_000, "layernorm": 9_000, "full": 4_000_000, "ia3": 6_000, "untuned": 0}
PROTOCOL: dict[str, Any] = {
    "command": "python -m study.launch --space made_up",
    "begun": "2026-01-01 00:00:00 +0000",
    "settings": {"space": "made_up", "model": "tiny", "margin": 1.0, "under": "memory<80GiB"},
    "budget": {"trials": 40, "max_examples": 960},
    "precision": "fp32",
    "model": {"name": "tiny", "digest": "0" * 64},
    "data": {
        "name": "made up",
        "digest": "0",
        "questions": {"test": 400},
        "findings": ["warn: two lookalikes"],
    },
    "versions": {"python": "3.11"},
}


def dataset(name: str = "made up", images_a_patient: int = 0, images: int = 100) -> Dataset:
    """Test images, four questions each: two open ones, two of yes or no."""
    examples = []
    for image in range(images):
        for number in range(4):
            closed = number % 2 == 0
            word = ("yes", "no")[(image + number // 2) % 2] if closed else f"w{image % 7}"
            examples.append(
                Example(
                    question_id=f"{image}-{number}",
                    image_id=f"i{image}",
                    image=Path(f"/nowhere/{image}.png"),
                    question="?",
                    answer=word,
                    answer_type="closed" if closed else "open",
                    patient=f"p{image // images_a_patient}" if images_a_patient else "",
                )
            )
    test = tuple(examples)
    return Dataset(
        name=name,
        description="made up",
        train=test[:40],
        validation=test[:40],
        test=test,
        contents={},
        digest="0",
    )


Lost = Callable[[TrialSpec], Outcome | None]
"""How a trial ends before its first report; None if it does not."""
SAID = {
    Outcome.DIVERGED: "loss is nan",
    Outcome.OUT_OF_MEMORY: "RuntimeError: [enforce fail] can't allocate memory",
    Outcome.FAILED: "RuntimeError: <no> & never",
}


def bitfit(spec: TrialSpec) -> Outcome | None:
    """Arm ``bitfit`` never comes far enough to be confirmed."""
    return Outcome.FAILED if spec.arm.startswith("bitfit") else None


def finish(
    scheduler: StudyScheduler, folder: Path, splits: Mapping[str, Dataset], lost: Lost = bitfit
) -> None:
    """Run all trials."""
    while not scheduler.done:
        spec = scheduler.next()
        assert spec is not None
        if (outcome := lost(spec)) is not None:
            scheduler.ended(spec.id, TrialEnd(outcome=outcome, error=SAID[outcome]))
        elif spec.kind is Kind.SEARCH:
            play(scheduler, spec, _costs(spec), {"validation.overall": _validation(spec)})
        else:
            play(scheduler, spec, _costs(spec), _scores(spec, folder, splits))


def collected(
    folder: Path,
    *,
    space: Space = SPACE,
    trials: int = 40,
    ood: bool = False,
    lost: Lost = bitfit,
    images_a_patient: int = 0,
    measure: str = "overall",
    searches: int = 1,
    base: str = "made up",
    asked: int = 100,
    name: str = "one",
    times_if_diverged: int = 1,
) -> StudyResults:
    """The results of a whole made-up study in ``folder``; ``base`` is a part of its trials'
    ids, and ``asked`` the number of test images."""
    space = several(space, searches)
    others = {"other set": dataset("other set")} if ood else {}
    data = dataset(images_a_patient=images_a_patient, images=asked)
    splits = {"test": data, **{f"ood.{name}": each for name, each in others.items()}}
    scheduler = StudyScheduler(
        replace(
            rules(space=space, trials=trials),
            searches=searches,
            base=base,
            times_if_diverged=times_if_diverged,
        ),
        StudyJournal(folder),
    )
    finish(scheduler, folder, splits, lost)
    trials_ended = results.FinishedTrials(
        space=space,
        objectives=(),
        records=[*scheduler.journal.records.values()],
        best=scheduler.best(),
        gains=scheduler.gains.found(),
        searches=searches,
        diverged_at=scheduler.diverged_at(),
    )
    return results.collect(
        name,
        StudyFolder.from_path(folder),
        trials_ended,
        data,
        others,
        PROTOCOL | ({"against": space.against} if space.against else {}),
        margin=1.0,
        measure=measure,
    )


def _costs(spec: TrialSpec) -> dict[str, float]:
    trained = TRAINED[arm_of(spec.arm, 2)]
    return {
        "seconds": 10.0 + trained / 1e6,
        "peak_memory_gib": 1.0 + trained / 1e7,
        "trained_parameters": trained,
        "trained_percent": trained / 4e4,
    }


def _validation(spec: TrialSpec) -> float:
    return 100 * CHANCES[arm_of(spec.arm, 2)] - random.Random(spec.id).random()


def _scores(spec: TrialSpec, folder: Path, splits: Mapping[str, Dataset]) -> dict[str, float]:
    scores, trial = {"validation.overall": _validation(spec)}, spec.id
    for name, data in splits.items():
        given = []
        for example in data.test:
            # Hard questions are hard for all arms; the rest is luck of the seed.
            hard = random.Random(f"{example.question_id} {name}").random()
            luck = random.Random(f"{trial} {example.question_id}").gauss(0, 0.1)
            given.append(example.answer if hard + luck < CHANCES[arm_of(spec.arm, 2)] else "wrong")
        likely = [_likelihoods(e, given[i]) for i, e in enumerate(data.test)]
        kept = likely if name == "test" else None
        answers.write(StudyFolder.from_path(folder), spec.id, name, data.test, given, kept)
        scores |= answers.named(name, score(data.test, given, kept))
        for way in BLIND if name == "test" else ():
            # Arm ia3 answers every question without the image as with it.
            without = given if arm_of(spec.arm, 2) == "ia3" else ["yes"] * len(given)
            answers.write(StudyFolder.from_path(folder), spec.id, way, data.test, without)
            scores |= answers.named(way, score(data.test, without))
    return scores


def _likelihoods(example: Example, answer: str) -> list[float] | None:
    """Log-likelihoods by which an answer is the likeliest with a probability of three quarters."""
    if example.answer_type != "closed":
        return None
    return [math.log(0.75 if answer == one else 0.25) for one in ("yes", "no")]
