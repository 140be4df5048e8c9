"""Compares studies that were tested on the same questions, paired by question.

All pairs of arms of all studies are one family of tests, and all interactions another one; both are
corrected by Holm's method. If all studies declared the same arm against which the others are
compared, only pairs that have it are, and only interactions with it. What is claimed is what each
study claims: the tuned models, or, if every study searched each arm several times, the methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis import verdict
from study.analysis.arm_scores import arm_pairs, compare_parts
from study.analysis.result_types import ArmResult
from study.analysis.results_file import without_nan
from study.analysis.special_scores import measured
from study.comparison import comparable
from study.comparison.comparable import TEST, TestedStudy
from study.comparison.compared_types import (
    ComparedStudy,
    Interaction,
    StudyComparison,
    own_name,
)
from study.config.settings import ACCURACY
from study.statistics import pairwise
from study.statistics.score_types import Claim, Score
from study.statistics.uncertainty import LEVEL, Difference, Scores, holm
from trainables.errors import BadInput
from trainables.measures.common.deciding import Deciding, deciding
from trainables.measures.common.parts import PARTS, part_of

if TYPE_CHECKING:
    from trainables.data.common.dataset import Example

Array = np.ndarray[Any, Any]
MOST_SENTENCES = 3
"""Interactions that the verdict tells; the rest is in the table."""


def compare(studies: Sequence[TestedStudy]) -> StudyComparison:
    """Compare studies that ``comparable.read`` has returned.

    Raises:
        BadInput: the measure that decides cannot be found, or needs what a study has not stored.
    """
    examples = comparable.with_patients(studies)
    by = _deciding(studies)
    decides = ACCURACY if by is None else by.column
    claim = Claim.MODELS if _searched_once(studies) else Claim.METHODS
    margin = studies[0].used.settings.margin
    correct = {label(study, arm): study.credits(arm) for study, arm in _confirmed(studies)}
    resampled = _resampled(studies, by, examples)
    scores = resampled or _scores(correct, examples, decides)
    order = sorted(correct, key=lambda name: -float(scores.arms[name].scores_S.mean()))
    correct = {name: correct[name] for name in order}
    against = comparable.shared_reference(studies)
    references = [name for name in order if against is not None and own_name(name) == against]
    compared = compare_parts(
        correct,
        examples,
        margin=margin,
        claim=claim,
        by=by,
        resampled=resampled,
        against=references or None,
    )
    arms = {}
    for study in studies:
        for arm in study.results.arms:
            name = label(study, arm)
            test = {
                part: Score(mean=e.mean, low=e.low, high=e.high)
                for part, each in compared.items()
                if (e := each.scores.get(name)) is not None
            }
            arms[name] = replace(arm, arm=name, number=None, test=arm.test and {**arm.test, **test})
    ranked = [arms[name] for name in order]
    ranked += [arm for name, arm in arms.items() if name not in order]
    pairs = arm_pairs(compared, decides)
    interactions = _interactions(studies, scores, claim, against)
    found = StudyComparison(
        verdict=verdict.answer(
            ranked,
            pairs,
            _majority(studies, decides),
            {},
            margin,
            claim=claim,
            scope=_scope(studies),
            against=references,
        )
        + "".join(f"\n{line}" for line in _on_interactions(interactions)),
        studies=tuple(_study(study) for study in studies),
        differs=comparable.differing(studies),
        notes=tuple(comparable.notes(studies)),
        test_digest=studies[0].test_digest,
        questions=len(examples),
        units=len({example.unit for example in examples}),
        unit="patients" if any(example.patient for example in examples) else "images",
        margin=margin,
        decides=decides,
        claim=claim,
        against=against,
        shown=_shown(studies),
        arms=tuple(ranked),
        comparisons=pairs,
        leader=compared[decides].best if len(order) > 1 else None,
        interactions=tuple(interactions),
    )
    plain: StudyComparison = without_nan(found)
    return plain


def _searched_once(studies: Sequence[TestedStudy]) -> list[str]:
    """Names of the studies that searched each arm once, of which nothing follows for methods."""
    return [study.name for study in studies if study.results.searches == 1]


def _scope(studies: Sequence[TestedStudy]) -> str:
    """Sentence on what the findings are about, and of each study how often it searched an arm."""
    once = _searched_once(studies)
    if len(once) == len(studies):
        return verdict.SCOPE[Claim.MODELS]
    several = ", ".join(
        f"{study.results.searches} times in {study.name}"
        for study in studies
        if study.name not in once
    )
    if not once:
        return (
            "This is about the methods, each tuned with the budget of its study: how far apart "
            f"their searches end is in the intervals. Each arm was searched {several}."
        )
    return (
        "This is about these tuned models and not about the methods: each arm was searched "
        f"{several}, but only once in {' and '.join(once)}, and another search may end elsewhere."
    )


def label(study: TestedStudy, arm: ArmResult) -> str:
    """Name of a study's arm in a comparison."""
    return f"{study.name}/{arm.arm}"


def _confirmed(studies: Sequence[TestedStudy]) -> Iterator[tuple[TestedStudy, ArmResult]]:
    """The confirmed arms of all studies."""
    return ((study, arm) for study in studies for arm in study.results.confirmed)


def _deciding(studies: Sequence[TestedStudy]) -> Deciding | None:
    """The measure that decides; None if it is accuracy, or what answers earn."""
    decides = studies[0].results.decides
    if decides == ACCURACY:
        return None
    asked = {study.used.settings.measure for study in studies}
    if len(asked) > 1:
        raise BadInput(f"the studies were decided by {' and '.join(sorted(asked))}, not by one")
    return deciding(asked.pop())


def _scores(correct: Mapping[str, Array], examples: Sequence[Example], decides: str) -> Scores:
    """Scores of arms on the part of the questions that decides."""
    asked_Q = part_of(decides, examples)
    groups = [example.unit for example, asked in zip(examples, asked_Q, strict=True) if asked]
    return Scores({arm: correct_SQ[:, asked_Q] for arm, correct_SQ in correct.items()}, groups)


def _resampled(
    studies: Sequence[TestedStudy], by: Deciding | None, examples: Sequence[Example]
) -> Scores | None:
    """Scores of arms by a measure that is no mean over a part of the questions; None if it is."""
    if by is None or by.column in PARTS:
        return None
    found = {
        label(study, arm): [
            study.in_order(measured.known(study.study_folder, trials[0], TEST, by))
            for trials in study.models(arm)
        ]
        for study, arm in _confirmed(studies)
    }
    return measured.resampled_answers(found, by, examples)


def _study(study: TestedStudy) -> ComparedStudy:
    """What is shown of a study."""
    results, used = study.results, study.used
    return ComparedStudy(
        study=study.name,
        question=results.question,
        space=used.settings.space,
        model=used.model.name,
        data=used.data.name,
        arms=tuple(arm.arm for arm in results.confirmed),
        searches=results.searches,
        trials=sum(sum(arm.trials.values()) for arm in results.arms),
        seconds=sum(trial.costs.get("seconds", 0.0) for trial in results.trials),
        command=used.command,
        untuned=results.baselines.untuned,
        majority=results.baselines.majority,
    )


def _majority(studies: Sequence[TestedStudy], decides: str) -> float:
    """The highest score of the studies' majority baselines."""
    return max(study.results.baselines.majority.get(decides) or 0.0 for study in studies)


def _shown(studies: Sequence[TestedStudy]) -> dict[str, str]:
    """The columns that the tables of all studies show."""
    first, *others = (study.results.shown for study in studies)
    return {name: title for name, title in first.items() if all(name in o for o in others)}


def _interactions(
    studies: Sequence[TestedStudy], scores: Scores, claim: Claim, against: str | None
) -> list[Interaction]:
    """How much pairs of arms differ more in one study than in another of another base model. An arm
    is the same in both if it was searched over the same ranges. Each pair has the arm ``against``,
    if that is not None."""
    asked = []
    for one, other in itertools.combinations(studies, 2):
        if one.used.model.digest == other.used.model.digest:
            continue
        there = {arm.arm for arm in other.results.confirmed}
        shared = [
            arm.arm
            for arm in one.results.confirmed
            if arm.arm in there and one.begun.arms.get(arm.arm) == other.begun.arms.get(arm.arm)
        ]
        asked += [(one, other, pair) for pair in pairwise.pairs_of(shared, against)]
    found = [
        scores.interaction(*(_pair(study, pair) for study in (one, other)))
        for one, other, pair in asked
    ]
    adjusted = holm([each.p for each in found])
    return [
        _interaction(one.name, other.name, pair, scores, difference, p_holm, claim)
        for (one, other, pair), difference, p_holm in zip(asked, found, adjusted, strict=True)
    ]


def _pair(study: TestedStudy, pair: tuple[str, str]) -> tuple[str, str]:
    """Names in the comparison of two arms of a study."""
    first, second = pair
    return f"{study.name}/{first}", f"{study.name}/{second}"


def _interaction(
    study: str,
    other_study: str,
    pair: tuple[str, str],
    scores: Scores,
    difference: Difference,
    p_holm: float,
    claim: Claim,
) -> Interaction:
    """One interaction, with its finding in words."""
    first, second = pair
    means = {
        name: 100 * float(np.subtract(*(scores.arms[f"{name}/{a}"].scores_S.mean() for a in pair)))
        for name in (study, other_study)
    }
    d, seeds = difference.estimate, difference.components.count_S
    shown = seeds > 1 and (d.low > 0 or d.high < 0) and p_holm < (100 - LEVEL) / 100
    told = (
        f"{first} minus {second} is {means[study]:+.1f} points in {study} and "
        f"{means[other_study]:+.1f} in {other_study}, which differ by "
        f"{pairwise.by_points(d, p_holm)}"
    )
    depends = f"how {first} and {second} differ depends on the base model"
    if shown:
        sentence = f"{depends[0].upper()}{depends[1:]}: {told}."
    elif seeds < 2:
        of = "search" if claim is Claim.METHODS else "seed"
        sentence = f"From one {of} of an arm it does not follow whether {depends}: {told}."
    else:
        sentence = f"It is not shown that {depends}: {told}."
    return Interaction(
        first=first,
        second=second,
        study=study,
        other_study=other_study,
        one=means[study],
        other=means[other_study],
        difference=d,
        p=difference.p,
        p_holm=p_holm,
        seeds=seeds,
        shown=shown,
        sentence=sentence,
    )


def _on_interactions(found: Sequence[Interaction]) -> list[str]:
    """Sentences of the verdict on interactions, each a line."""
    if not found:
        return []
    if len(found) == 1:
        return [found[0].sentence]
    told = sorted((each for each in found if each.shown), key=lambda each: each.p_holm)
    text = f"How two arms differ was compared between base models {len(found)} times; "
    if not told:
        return [text + "none of these shows that it depends on the base model."]
    text += f"it is shown to depend on the base model {len(told)} times."
    return [text, *(each.sentence for each in told[:MOST_SENTENCES])]
