"""What a study found: ``results.json``, version 1. The report and the terminal show this, no more.

======================  =====================================================================
``study, question``     its name; what it asked
``verdict``             one sentence
``baselines``           ``majority`` and ``untuned``: open, closed, overall; percent on test
``arms``                one object an arm, the best first: ``arm``; ``trials`` by outcome; ``best``
                        (``trial, parameters, validation_loss``; null if none reported); ``test``
                        (null if none was confirmed) with ``open``,
                        ``closed``, ``overall``, each ``mean, low, high`` (95% interval, percent);
                        ``seeds`` (``seed, trial, open, closed, overall``); ``collapsed``: a seed's
                        answers hardly depend on the question; ``costs`` (means of the
                        confirmations): ``trained_parameters, trained_percent, seconds``
                        (device-seconds), ``peak_memory_gib``; ``search_seconds``: all its trials
``comparisons``         for each pair of arms ``first, second, difference`` in points, as ``test``
``trials``              every trial: ``trial, kind, arm, parameters, seed, outcome, error, rungs``
                        (``examples_seen, validation_loss, train_loss, seconds``), ``scores, costs``
``protocol``            settings, budget, rungs, model and data with digests, versions, commit, time
======================  =====================================================================
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study import answers, verdict
from study.conductor import Conductor
from study.records import Kind, Outcome, TrialRecord

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset

FILE = "results.json"
PARTS = ("open", "closed", "overall")


def collect(
    name: str, folder: Path, conductor: Conductor, dataset: Dataset, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that ``results.json`` holds, from the ledger and the kept answers."""
    from trainables.data.scores import majority_baseline

    ledger, space = conductor.ledger, conductor.rules.space
    confirmed = {
        arm: [
            r
            for r in ledger.of_kind(Kind.CONFIRM)
            if r.spec.arm == arm and r.outcome is Outcome.COMPLETE
        ]
        for arm in space.arms
    }
    correct = {
        arm: np.stack([_correct(folder, r) for r in records])
        for arm, records in confirmed.items()
        if records
    }
    images = [example.image_id for example in dataset.test]
    comparisons = [
        verdict.compare(first, correct[first], second, correct[second], images)
        for first, second in itertools.combinations(_ranked(correct), 2)
    ]
    majority = majority_baseline(dataset.train, dataset.test)
    untuned = [r for r in ledger.of_kind(Kind.UNTUNED) if r.outcome is Outcome.COMPLETE]
    arms = [_arm(arm, conductor, confirmed[arm], folder, dataset) for arm in space.arms]
    order = {arm: i for i, arm in enumerate(_ranked(correct))}
    return {
        "version": 1,
        "study": name,
        "question": space.question,
        "verdict": _sentence(comparisons, correct) + _caveat(arms, majority.overall),
        "baselines": {
            "majority": {part: getattr(majority, part) for part in PARTS},
            "untuned": _test_scores(untuned[0]) if untuned else None,
        },
        "arms": sorted(arms, key=lambda arm: order.get(arm["arm"], len(order))),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "trials": [_trial(record) for record in ledger.records.values()],
        "protocol": dict(protocol),
    }


def write(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write ``results.json``; whole or not at all."""
    path = folder / FILE
    partial = path.with_suffix(f".partial-{os.getpid()}")
    text = json.dumps(_without_nan(results), indent=2, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that stand beside a study in MLflow: ``lora.test.overall_accuracy_percent``."""
    found = {
        f"{arm['arm']}.test.{part}_accuracy_percent": arm["test"][part]["mean"]
        for arm in results["arms"]
        if arm["test"]
        for part in PARTS
    }
    for name, scores in results["baselines"].items():
        for part in PARTS if scores else ():
            found[f"{name}.test.{part}_accuracy_percent"] = scores[part]
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _arm(
    arm: str, conductor: Conductor, confirmed: list[TrialRecord], folder: Path, dataset: Dataset
) -> dict[str, Any]:
    searched = [r for r in conductor.ledger.of_kind(Kind.SEARCH) if r.spec.arm == arm]
    outcomes = Counter(str(r.outcome) for r in searched)
    found: dict[str, Any] = {
        "arm": arm,
        "trials": {str(outcome): outcomes[outcome] for outcome in Outcome},
        "search_seconds": sum(r.costs.get("seconds", 0.0) for r in searched),
        "best": None,
        "test": None,
        "seeds": [],
        "collapsed": False,
        "costs": {},
    }
    best = conductor.best().get(arm)
    if best is not None:
        found["best"] = {
            "trial": best.spec.id,
            "parameters": dict(best.spec.parameters),
            "validation_loss": best.loss,
            "examples_seen": best.examples_seen,
        }
    if confirmed:
        costs = {key: _mean([r.costs[key] for r in confirmed]) for key in confirmed[0].costs}
        found |= {
            "test": {part: asdict(_estimate(folder, confirmed, part)) for part in PARTS},
            "seeds": [
                {"seed": r.spec.seed, "trial": r.spec.id, **_test_scores(r)} for r in confirmed
            ],
            "collapsed": any(_collapsed(folder, r, dataset) for r in confirmed),
            "costs": costs,
        }
    return found


def _estimate(folder: Path, confirmed: Sequence[TrialRecord], part: str) -> verdict.Estimate:
    tables = [answers.read(folder, r.spec.id, "test") for r in confirmed]
    kinds = np.asarray(tables[0]["answer_type"])
    chosen = np.ones(len(kinds), bool) if part == "overall" else kinds == part
    if not chosen.any():
        return verdict.Estimate(mean=math.nan, low=math.nan, high=math.nan)
    correct_SQ = np.stack([np.asarray(t["correct"])[chosen] for t in tables]).astype(float)
    return verdict.estimate(correct_SQ, np.asarray(tables[0]["image_id"])[chosen].tolist())


def _correct(folder: Path, record: TrialRecord) -> np.ndarray[Any, Any]:
    return np.asarray(answers.read(folder, record.spec.id, "test")["correct"]).astype(float)


def _collapsed(folder: Path, record: TrialRecord, dataset: Dataset) -> bool:
    from trainables.data.scores import collapsed

    given = answers.read(folder, record.spec.id, "test")["answer"].to_pylist()
    return collapsed(dataset.test, given)


def _ranked(correct: Mapping[str, np.ndarray[Any, Any]]) -> list[str]:
    return sorted(correct, key=lambda arm: -float(correct[arm].mean()))


def _sentence(
    comparisons: Sequence[verdict.Comparison], correct: Mapping[str, np.ndarray[Any, Any]]
) -> str:
    """What is known of the best arm: by how much it leads, and whom it cannot be told from."""
    ranked = _ranked(correct)
    if not ranked:
        return "No arm could be confirmed, so there is no answer."
    if len(ranked) == 1:
        return f"Only {ranked[0]} could be confirmed, so there is nothing to compare it with."
    of_best = [c for c in comparisons if c.first == ranked[0]]
    tied = [c for c in of_best if not c.told_apart]
    if len(of_best) == 1:
        return of_best[0].sentence()
    if not tied:
        return f"{ranked[0]} is better than every other arm. " + of_best[0].sentence()
    names = ", ".join(c.second for c in tied)
    return f"{ranked[0]} scores highest, but cannot be told apart from {names}. " + " ".join(
        c.sentence() for c in tied
    )


def _caveat(arms: Sequence[Mapping[str, Any]], majority: float) -> str:
    """Winning means little for an arm that chance reaches too."""
    weak = [arm["arm"] for arm in arms if arm["test"] and arm["test"]["overall"]["low"] <= majority]
    if not weak:
        return ""
    return (
        f" But {', '.join(weak)}: not shown to beat always giving the most frequent answer "
        f"({majority:.1f}%)."
    )


def _trial(record: TrialRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "trial": spec.id,
        "kind": spec.kind,
        "arm": spec.arm,
        "parameters": dict(spec.parameters),
        "seed": spec.seed,
        "outcome": record.outcome,
        "error": record.error,
        "rungs": [asdict(rung) for rung in record.rungs],
        "scores": record.scores,
        "costs": record.costs,
    }


def _test_scores(record: TrialRecord) -> dict[str, float]:
    return {part: record.scores[f"test.{part}"] for part in PARTS}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _without_nan(value: Any) -> Any:
    """JSON has no nan: accuracies of questions that there are none of become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value
