"""What a study found: ``results.json``, version 1. The report and the terminal show this, no more.

======================  =====================================================================
``study, question``     its name; what it asked
``verdict``             one sentence
``baselines``           ``majority`` and ``untuned``: scores on test, in percent, as ``score`` of
                        ``trainables.data.scores`` gives them: accuracies ``overall, open, closed``
                        and by answer ``yes_no, other``; ``token_recall, token_f1`` of open ones;
                        of reports ``report`` (ROUGE-L) and ``trainables.data.reports.MEASURES``.
                        Where there are reports, their ROUGE-L is in ``overall``
``shown``               which of these a table shows: measure -> title
``arms``                one object an arm, the best first: ``arm``; ``trials`` by outcome; ``best``
                        (``trial, parameters, validation_loss``; null if none reported); ``test``
                        (null if none was confirmed): each
                        accuracy with ``mean, low, high`` (95% interval, percent);
                        ``confirmations`` by outcome, all that were begun; ``seeds`` (``seed,
                        trial`` and all scores) of those that are complete; ``collapsed``: a seed's
                        answers hardly depend on the question; ``costs`` (means of the
                        confirmations): ``trained_parameters, trained_percent, seconds``
                        (device-seconds), ``peak_memory_gib``, ``adapter_mib`` (what is trained, in
                        fp32); ``search_seconds``: all its trials
``ood``                 one object for each dataset of ``--ood``, which no trial trained on:
                        ``data``; ``baselines`` (``majority`` of the training answers,
                        ``untuned``); ``arms`` (``arm, test`` as above); ``comparisons``
``comparisons``         for each pair of arms, the better first: ``first, second``; ``parts``: for
                        each accuracy ``difference`` in points, as ``test``; ``p`` and ``p_holm``,
                        corrected for all pairs, and but for ``overall`` also for overall and other
                        types of questions (a lead, where overall tells nothing); ``margin``;
                        ``finding`` (``better``, ``as_good``, ``not_worse``, ``undecided``: see
                        ``study.verdict``) and ``sentence``;
                        ``seeds, questions`` it rests on, ``seeds_share`` of its uncertainty; what
                        would tell ``points_to_tell``: ``seeds_needed``, ``questions_needed`` (null:
                        no number of them alone)
``efficiency``          ``pareto``: cost -> arms that none beats for less; ``budget``: the score
                        that a search is expected to end with (``arms``: ``seconds, mean, low,
                        high``; ``leaders``: ``seconds, arm, chance, expected``; ``untuned``), null
                        if there is none; ``learning_rates``: arm -> ``best, low, high, decades``,
                        ``open_low, open_high``, at ``examples_seen``: see ``study.efficiency``;
                        ``front``: of a search for several objectives, the trials that none
                        beats (see ``study.objectives.front``); empty otherwise;
                        ``importance`` of settings (``of, shares, trials, warning``): see
                        ``study.importance``
``trials``              every trial: ``trial, kind, arm, parameters`` (what was
                        searched), ``recipe`` (slot -> method, all its settings), ``lr, seed``,
                        ``outcome, error, remark`` (what was not as it should be, though it
                        changes no number);
                        ``rungs`` (``examples_seen, validation_loss, train_loss, seconds``);
                        ``scores, costs``
``protocol``            settings, budget, rungs, model and data with digests, versions, commit,
                        time; ``identity``, the study's own on every MLflow server; ``not_run``:
                        arm, or ``untuned`` -> why, of what fits into no device
======================  =====================================================================
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import answers, efficiency, importance, objectives, spaces
from study.conductor import Conductor
from study.records import Kind, Outcome, TrialRecord
from study.scored import Scored, answer, scores_of
from trainables.data.scores import collapsed

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset

FILE = "results.json"
RUNG = ("examples_seen", "validation_loss", "train_loss", "seconds", "reported_at")
BYTES = 4
"""Of a trained parameter: they are kept in fp32, whatever the precision of the rest."""


def collect(
    name: str,
    folder: Path,
    conductor: Conductor,
    dataset: Dataset,
    others: Mapping[str, Dataset],
    protocol: Mapping[str, Any],
    *,
    margin: float,
) -> dict[str, Any]:
    """What ``results.json`` holds, from the ledger and the kept answers; JSON and nothing else.

    ``others`` are the datasets that confirmed trials were scored on too; ``margin`` is in points.
    """
    ledger, space = conductor.ledger, conductor.rules.space
    complete = [r for r in ledger.records.values() if r.outcome is Outcome.COMPLETE]
    confirmed = {
        arm: [r for r in complete if r.spec.kind is Kind.CONFIRM and r.spec.arm == arm]
        for arm in space.arms
    }
    untuned = [r for r in complete if r.spec.kind is Kind.UNTUNED]
    scored = Scored(
        folder=folder, confirmed=confirmed, untuned=untuned, train=dataset.train, margin=margin
    )
    test = scored.on("test", dataset.test)
    arms = [
        _arm(arm, conductor, confirmed[arm], folder, dataset) | {"test": test["arms"].get(arm)}
        for arm in space.arms
    ]
    errors: dict[str, str] = {}
    for record in ledger.of_kind(Kind.SEARCH):
        if record.outcome is Outcome.FAILED:
            errors.setdefault(record.spec.arm, record.error)
    order = list(test["arms"])
    arms.sort(key=lambda a: order.index(a["arm"]) if a["test"] else len(order))
    found = {
        "version": 1,
        "study": name,
        "question": space.question,
        "verdict": answer(
            arms, test["comparisons"], test["baselines"]["majority"]["overall"], errors
        ),
        "shown": test["shown"],
        "baselines": test["baselines"],
        "arms": arms,
        "comparisons": test["comparisons"],
        "ood": [
            {"data": data, **_listed(scored.on(f"ood.{data}", other.test))}
            for data, other in others.items()
        ],
        "efficiency": _efficiency(arms, conductor, untuned),
        "trials": [_trial(record) for record in ledger.records.values()],
        "protocol": dict(protocol),
    }
    plain: dict[str, Any] = json.loads(json.dumps(_without_nan(found), allow_nan=False))
    return plain


def _listed(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Of another dataset: the arms as a list, like those of the study."""
    arms = [{"arm": arm, "test": test} for arm, test in scored["arms"].items()]
    return {**scored, "arms": arms}


def write(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write ``results.json``; whole or not at all."""
    path = folder / FILE
    partial = path.with_suffix(f".partial-{os.getpid()}")
    text = json.dumps(results, indent=2, allow_nan=False)
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that stand beside a study in MLflow: ``lora.test.overall_percent``."""
    found = {
        f"{arm['arm']}.test.{measure}_percent": estimate["mean"]
        for arm in results["arms"]
        if arm["test"]
        for measure, estimate in arm["test"].items()
    }
    for name, scores in results["baselines"].items():
        found |= {f"{name}.test.{part}_percent": v for part, v in (scores or {}).items()}
    for other in results["ood"]:
        for arm in other["arms"]:
            for measure, estimate in arm["test"].items():
                name = f"{arm['arm']}.ood.{other['data']}.{measure}_percent"
                found[name] = estimate["mean"]
    return {key: value for key, value in found.items() if value is not None}


def _arm(
    arm: str, conductor: Conductor, confirmed: list[TrialRecord], folder: Path, dataset: Dataset
) -> dict[str, Any]:
    ledger = conductor.ledger
    searched = [r for r in ledger.of_kind(Kind.SEARCH) if r.spec.arm == arm]
    found: dict[str, Any] = {
        "arm": arm,
        "trials": _outcomes(searched),
        "confirmations": _outcomes([r for r in ledger.of_kind(Kind.CONFIRM) if r.spec.arm == arm]),
        "search_seconds": sum(r.costs.get("seconds", 0.0) for r in searched),
        "best": None,
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
        costs["adapter_mib"] = costs["trained_parameters"] * BYTES / 2**20
        found |= {
            "seeds": [
                {"seed": r.spec.seed, "trial": r.spec.id, **scores_of(r, "test")} for r in confirmed
            ],
            "collapsed": any(_collapsed(folder, r, dataset) for r in confirmed),
            "costs": costs,
        }
    return found


def _outcomes(records: Sequence[TrialRecord]) -> dict[str, int]:
    counts = Counter(str(record.outcome) for record in records)
    return {str(outcome): counts[outcome] for outcome in Outcome}


def _efficiency(
    arms: list[dict[str, Any]], conductor: Conductor, untuned: list[TrialRecord]
) -> dict[str, Any]:
    searched: dict[str, list[TrialRecord]] = {arm["arm"]: [] for arm in arms}
    for record in conductor.ledger.of_kind(Kind.SEARCH):
        searched[record.spec.arm].append(record)
    costs = conductor.rules.objectives
    start = untuned[0].scores.get("validation.overall", 0.0) if untuned else 0.0
    return {
        "pareto": efficiency.pareto(arms),
        "budget": efficiency.budget_curves(searched, start),
        "front": objectives.front(conductor.ledger.records.values(), costs) if costs else [],
        "learning_rates": efficiency.learning_rates(searched),
        "importance": importance.importances(
            searched, {arm: spaces.ranges(a) for arm, a in conductor.rules.space.arms.items()}
        ),
    }


def _collapsed(folder: Path, record: TrialRecord, dataset: Dataset) -> bool:
    given = answers.read(folder, record.spec.id, "test")["answer"].to_pylist()
    return collapsed(dataset.test, given)


def _trial(record: TrialRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "trial": spec.id,
        "kind": spec.kind,
        "arm": spec.arm,
        "parameters": dict(spec.parameters),
        "recipe": {slot: dict(tuning) for slot, tuning in spec.recipe.items()},
        "lr": spec.lr,
        "seed": spec.seed,
        "outcome": record.outcome,
        "error": record.error,
        "remark": record.remark,
        "rungs": [{name: getattr(rung, name) for name in RUNG} for rung in record.rungs],
        "scores": record.scores,
        "costs": record.costs,
    }


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
