"""The arms on one set of questions: scores, baselines, comparisons, and the answer in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from study import answers, verdict
from study.records import Outcome, TrialRecord
from study.uncertainty import Estimate
from study.verdict import Comparison, Finding
from trainables.data.reports import MEASURES
from trainables.data.scores import PARTS, majority_baseline, part_of, shown

if TYPE_CHECKING:
    from trainables.data.dataset import Example

Array = np.ndarray[Any, Any]
NOTHING = {"mean": math.nan, "low": math.nan, "high": math.nan}
"""The score of a part without questions. Measures of a whole set of reports have but a mean."""
ENDED = {
    Outcome.DIVERGED: "diverged",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.FAILED: "failed",
}
"""How a trial ends that gives no score."""
LESS: Mapping[str, str] = {
    Outcome.DIVERGED: "the space's learning rates may be too high",
    Outcome.OUT_OF_MEMORY: "a smaller batch_size in the space's budget would take less",
}
"""What to think of where all trials end so."""
ERROR = 200
"""Letters of an error that a sentence quotes."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The trials that were scored at the end, and what their scores are held against."""

    folder: Path
    """Of the study."""
    confirmed: Mapping[str, Sequence[TrialRecord]]
    """Arm -> its seeds."""
    untuned: Sequence[TrialRecord]
    train: Sequence[Example]
    margin: float
    """Points."""

    def on(self, name: str, examples: Sequence[Example]) -> dict[str, Any]:
        """Of the answers that were kept under ``name``: ``arms`` (arm -> part -> estimate, the best
        first), ``shown``, ``comparisons`` and ``baselines``, as ``study.results`` has them."""
        correct = {
            arm: np.stack([_correct(self.folder, record, name) for record in records])
            for arm, records in self.confirmed.items()
            if records
        }
        ranked = sorted(correct, key=lambda arm: -float(correct[arm].mean()))
        images_Q = np.asarray([example.image_id for example in examples])
        arms: dict[str, dict[str, Any]] = {arm: dict.fromkeys(PARTS, NOTHING) for arm in ranked}
        asked = {part: part_of(part, examples) for part in PARTS}
        asked = {part: asked_Q for part, asked_Q in asked.items() if asked_Q.any()}
        found: dict[str, list[Comparison]] = {}
        for part, asked_Q in asked.items() if ranked else ():
            estimates, found[part] = verdict.compare(
                {arm: correct[arm][:, asked_Q] for arm in ranked},
                images_Q[asked_Q].tolist(),
                margin=self.margin,
                parts=len(verdict.family(part, asked)),
            )
            for arm, estimate in estimates.items():
                arms[arm][part] = asdict(estimate)
        pairs: dict[tuple[str, str], dict[str, Any]] = {}
        for part, comparisons in verdict.over_parts(found).items():
            for comparison in comparisons:
                pair = pairs.setdefault((comparison.first, comparison.second), {})
                pair[part] = _plain(comparison)
        majority = majority_baseline(self.train, examples)
        for measure in MEASURES:
            if measure in majority:
                for arm in ranked:
                    values = [scores_of(record, name)[measure] for record in self.confirmed[arm]]
                    arms[arm][measure] = {**NOTHING, "mean": float(np.mean(values))}
        return {
            "arms": arms,
            "shown": shown(majority),
            "baselines": {
                "majority": majority,
                "untuned": scores_of(self.untuned[0], name) if self.untuned else None,
            },
            "comparisons": [
                {"first": first, "second": second, "parts": parts}
                for (first, second), parts in pairs.items()
            ],
        }


def answer(
    arms: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    majority: float,
    errors: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What is known of the best arm, and of whom else one might take; as ``results.json`` has them.

    ``majority`` is the score of always giving the most frequent answer, ``errors`` an arm's first
    error in the search, of those that had any.
    """
    ranked = [arm["arm"] for arm in arms if arm["test"]]
    if not ranked:
        return f"No arm could be confirmed, so there is no answer.{_dropped(arms, errors)}"
    caveats = _caveats(arms, majority) + _dropped(arms, errors)
    if len(ranked) == 1:
        return f"Only {ranked[0]} could be confirmed: there is nothing to compare it with.{caveats}"
    of_best = {c["second"]: c["parts"]["overall"] for c in comparisons if c["first"] == ranked[0]}
    if len(of_best) == 1:
        (only,) = of_best.values()
        types = _by_type(comparisons[0])
        return f"{only['sentence']}{types}{_cheaper(arms, of_best)}{caveats}"
    return f"{_ranking(ranked[0], arms, of_best)}{_cheaper(arms, of_best)}{caveats}"


def scores_of(record: TrialRecord, name: str) -> dict[str, float]:
    """What a trial scored on a split, by measure."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in record.scores.items() if k.startswith(start)}


def _ranking(
    best: str, arms: Sequence[Mapping[str, Any]], of_best: Mapping[str, Mapping[str, Any]]
) -> str:
    """Of more than two arms: whom the best one beats, and whom it does not."""
    found = {
        finding: [a for a, c in of_best.items() if c["finding"] == finding] for finding in Finding
    }
    better, undecided = found[Finding.BETTER], found[Finding.UNDECIDED]
    margin = verdict.margin_in_words(next(iter(of_best.values()))["margin"])
    said = []
    if len(better) == len(of_best):
        return f"{best} is better than every other arm. {of_best[better[0]]['sentence']}"
    if better:
        said.append(f"it is better than {_names(better)}")
    if found[Finding.AS_GOOD]:
        said.append(f"{_names(found[Finding.AS_GOOD])} is as good to within {margin}")
    if found[Finding.NOT_WORSE]:
        others = _names(found[Finding.NOT_WORSE])
        said.append(f"it is not worse than {others} by more than {margin}, and may be better")
    closest = ""
    if undecided:
        closest = of_best[undecided[0]]["sentence"]
    if len(undecided) > 1:
        said.append(f"it cannot be told apart from {_names(undecided)}")
        closest = f"The closest: {closest}"
    head = f"{best} scores highest ({arms[0]['test']['overall']['mean']:.1f}%)"
    head += f": {'; '.join(said)}." if said else "."
    return f"{head} {closest}".rstrip()


def _by_type(pair: Mapping[str, Any]) -> str:
    """Of two arms: on which type of question alone they differ, if they do not on all; why that is
    a lead and no finding, ``study.verdict`` says."""
    parts = pair["parts"]
    if parts["overall"]["finding"] == Finding.BETTER:
        return ""
    differing = []
    for part in ("open", "closed"):
        if part in parts and parts[part]["finding"] == Finding.BETTER:
            difference = Estimate(**parts[part]["difference"])
            said = verdict.higher(pair["first"], pair["second"], difference, parts[part]["p_holm"])
            differing.append(f"on {part} questions alone {said}")
    return f" A lead, not a finding: {_names(differing)}." if differing else ""


def _cheaper(arms: Sequence[Mapping[str, Any]], of_best: Mapping[str, Mapping[str, Any]]) -> str:
    """The arm that trains least of those shown not to be worse than the best by the margin."""
    trained = {a["arm"]: a["costs"]["trained_parameters"] for a in arms if a["test"]}
    best = next(iter(trained))
    as_good = [a for a, c in of_best.items() if c["difference"]["high"] < c["margin"]]
    least = min(as_good, key=lambda arm: trained[arm], default=best)
    if trained[least] >= trained[best]:
        return ""
    return (
        f" {least} trains {trained[best] / trained[least]:.1f} times fewer parameters than {best}."
    )


def _caveats(arms: Sequence[Mapping[str, Any]], majority: float) -> str:
    """Winning means little for an arm that chance reaches too."""
    tested = [arm for arm in arms if arm["test"]]
    weak = [arm["arm"] for arm in tested if arm["test"]["overall"]["low"] <= majority]
    said = ""
    if weak:
        said += (
            f" But {_names(weak)}: not shown to beat always giving the most frequent answer "
            f"({majority:.1f}%)."
        )
    if any(len(arm["seeds"]) < 2 for arm in tested):
        said += " One seed an arm: the luck of seeds is not in the intervals."
    return said


def _dropped(arms: Sequence[Mapping[str, Any]], errors: Mapping[str, str]) -> str:
    """Of each arm, why its search gave nothing to confirm, and the confirmations that are not in
    its score: to win means little where the worst seeds are missing."""
    said = _lossless(arms, errors)
    for arm in arms:
        begun = arm["confirmations"]
        ended = _ended(begun)
        if ended:
            rest = "its score is that of the rest" if arm["test"] else "so it has no score"
            said += f" Of {sum(begun.values())} confirmations of {arm['arm']}, {ended}: {rest}."
    return said


def _lossless(arms: Sequence[Mapping[str, Any]], errors: Mapping[str, str]) -> str:
    """Why arms have no settings that could be confirmed; those with the same reason together."""
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for arm in arms:
        if arm["best"] is None and sum(arm["trials"].values()):
            alike.setdefault(tuple(how for how in Outcome if arm["trials"][how]), []).append(arm)
    said = ""
    for ways, some in alike.items():
        names, begun = _names([arm["arm"] for arm in some]), Counter[str]()
        for arm in some:
            begun.update(arm["trials"])
        if Outcome.COMPLETE in ways or Outcome.PRUNED in ways:
            said += f" No trial of {names} that reported a loss kept to --under."
            continue
        every = "all " if len(ways) == 1 and begun.total() > 1 else ""
        said += f" No trial of {names} reported a loss: {every}{_ended(begun)}"
        error = next((errors[arm["arm"]] for arm in some if arm["arm"] in errors), "")
        if Outcome.FAILED in ways and error:
            said += f", the first with {error[:ERROR]!r}"
        elif len(ways) == 1 and ways[0] in LESS:
            said += f"; {LESS[ways[0]]}"
        said += "."
    return said


def _ended(begun: Mapping[str, int]) -> str:
    """How many ended in each of the ways that give no score."""
    return _names([f"{begun[how]} {ENDED[how]}" for how in ENDED if begun[how]])


def _plain(comparison: Comparison) -> dict[str, Any]:
    plain = asdict(comparison)
    del plain["first"], plain["second"]
    return plain | {"finding": comparison.finding, "sentence": comparison.sentence()}


def _correct(folder: Path, record: TrialRecord, name: str) -> Array:
    return np.asarray(answers.read(folder, record.spec.id, name)["credit"])


def _names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
