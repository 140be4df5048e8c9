"""Collects what a study found: ``results.json``, version 1, all that report and terminal show.

======================  =====================================================================
``study, question``     the study's name, and the question that its search space asks
``verdict``             the answer in a few sentences
``baselines``           ``majority`` and ``untuned``: scores on test, as ``score`` of
                        ``trainables.measures.common.scores`` gives them: the columns of each
                        measure in ``trainables/measures``. Where there are reports, their ROUGE-L
                        is in ``overall``
``shown``               which of these columns a table shows: measure -> title
``arms``                one object for each arm, the best first. ``arm``: its name. ``trials``:
                        number of search trials by outcome. ``best``: its best search trial
                        (``trial, parameters, validation_loss, examples_seen``; null if none
                        reported a rung). ``test``: each accuracy with ``mean, low, high`` (95%
                        interval, percent); null if no trial was confirmed. ``confirmations``:
                        number of confirmations that were begun, by outcome. ``seeds``: ``seed,
                        trial`` and all scores of each complete confirmation. ``collapsed``: the
                        answers of a seed hardly depend on the question. ``costs``: means over the
                        confirmations of ``trained_parameters, trained_percent, seconds``
                        (device-seconds), ``peak_memory_gib`` and ``adapter_mib`` (what is trained,
                        in fp32). ``search_seconds``: device-seconds of all its search trials
``ood``                 one object for each dataset of ``--ood``, on which no trial trained.
                        ``data``: its name. ``baselines``: ``majority`` of the training answers,
                        and ``untuned``. ``arms``: ``arm`` and ``test``, as in the row above.
                        ``comparisons``: pairs of arms, as in the row below
``comparisons``         one object for each pair of arms, ``first`` the better one, ``second`` the
                        other. ``parts``: for each accuracy ``difference`` in percentage points
                        (``mean, low, high``); ``p``, of this pair alone; ``p_holm``, corrected for
                        all pairs and, but for ``overall``, also for ``overall`` and other types of
                        questions (a lead, where ``overall`` shows nothing); ``margin``;
                        ``finding`` (``better``, ``as_good``, ``not_worse``, ``undecided``: see
                        ``study.analysis.pairwise``) and its ``sentence``; the number of ``seeds``
                        and ``questions``; ``seeds_share``: share of the uncertainty that is due to
                        seeds; ``seeds_needed`` and ``questions_needed``: how many of them alone
                        would show a difference of ``points_to_tell`` (null: no number would)
``efficiency``          ``pareto``: cost -> arms that no other beats for the same or less.
                        ``budget``: the score that a search is expected to end with (``arms``:
                        ``seconds, mean, low, high``; ``leaders``: ``seconds, arm, chance,
                        expected``; ``untuned``); null if there is none. ``learning_rates``: arm ->
                        ``best, low, high, decades``, ``open_low, open_high``, at
                        ``examples_seen``: see ``study.analysis.efficiency``. ``front``: the trials
                        of a search for several objectives that no other trial beats (see
                        ``study.config.goals.pareto_front``); empty for one objective.
                        ``importance`` of settings (``of, shares, trials, warning``): see
                        ``study.analysis.importance``
``trials``              one object for each trial: ``trial, kind, arm``; ``parameters``: what was
                        searched; ``recipe``: slot -> method with all its settings; ``lr, seed``,
                        ``outcome, error``; ``remark``: what did not run as it should, though it
                        changes no number; ``rungs`` (``examples_seen, validation_loss, train_loss,
                        seconds, reported_at``); ``scores, costs``
``protocol``            settings, budget, rungs, model and data with digests, versions, commit,
                        time. ``identity``: the study's own on every MLflow server. ``not_run``:
                        arm, or ``untuned`` -> why it fits into no device
======================  =====================================================================
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.declare import Space
from study.analysis import efficiency, importance
from study.analysis.arm_scores import ArmScores, scores_of
from study.analysis.results_file import without_nan
from study.analysis.verdict import answer
from study.config import goals, spaces
from study.storage import answers
from study.trials.record import Outcome, TrialRecord
from study.trials.spec import Kind
from trainables.measures.common.baselines import collapsed
from trainables.measures.common.scores import logged_name

if TYPE_CHECKING:
    from trainables.data.common.dataset import Dataset

RUNG = ("examples_seen", "validation_loss", "train_loss", "seconds", "reported_at")
"""Fields of a rung in ``results.json``."""
BYTES = 4
"""Bytes of a trained parameter, which is kept in fp32 whatever the precision of the rest."""


@dataclass(frozen=True, kw_only=True)
class FinishedTrials:
    """The trials of a study that has come to its end, and what the study asked of them."""

    space: Space
    objectives: tuple[str, ...]
    """Costs that the search minimised beside the loss; see ``study.config.goals``."""
    records: Sequence[TrialRecord]
    """All trials, the oldest first."""
    best: Mapping[str, TrialRecord]
    """Arm -> the search trial whose settings were confirmed."""

    def of_kind(self, kind: Kind) -> list[TrialRecord]:
        """The trials of one kind, the oldest first."""
        return [record for record in self.records if record.spec.kind is kind]


def collect(
    name: str,
    folder: Path,
    trials: FinishedTrials,
    dataset: Dataset,
    others: Mapping[str, Dataset],
    protocol: Mapping[str, Any],
    *,
    margin: float,
) -> dict[str, Any]:
    """The content of ``results.json``, from the journal and the stored answers; JSON and nothing
    else.

    Args:
        name: name of the study.
        folder: folder of the study.
        others: datasets on which confirmed trials were scored too, by name.
        protocol: what ``study.planning.provenance.describe`` returns.
        margin: difference that does not matter, in percentage points.
    """
    space = trials.space
    complete = [r for r in trials.records if r.outcome is Outcome.COMPLETE]
    confirmed = {
        arm: [r for r in complete if r.spec.kind is Kind.CONFIRM and r.spec.arm == arm]
        for arm in space.arms
    }
    untuned = [r for r in complete if r.spec.kind is Kind.UNTUNED]
    scored = ArmScores(
        folder=folder, confirmed=confirmed, untuned=untuned, train=dataset.train, margin=margin
    )
    test = scored.on("test", dataset.test)
    arms = [
        _arm(arm, trials, confirmed[arm], folder, dataset) | {"test": test["arms"].get(arm)}
        for arm in space.arms
    ]
    errors: dict[str, str] = {}
    for record in trials.of_kind(Kind.SEARCH):
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
        "efficiency": _efficiency(arms, trials, untuned),
        "trials": [_trial(record) for record in trials.records],
        "protocol": dict(protocol),
    }
    plain: dict[str, Any] = json.loads(json.dumps(without_nan(found), allow_nan=False))
    return plain


def _listed(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Scores on another dataset, with the arms as a list, as in the rest of ``results.json``."""
    arms = [{"arm": arm, "test": test} for arm, test in scored["arms"].items()]
    return {**scored, "arms": arms}


def metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a study's run in MLflow, such as ``lora.test.overall_percent``."""
    found = {
        logged_name(f"{arm['arm']}.test.{measure}"): estimate["mean"]
        for arm in results["arms"]
        if arm["test"]
        for measure, estimate in arm["test"].items()
    }
    for name, scores in results["baselines"].items():
        found |= {logged_name(f"{name}.test.{part}"): v for part, v in (scores or {}).items()}
    for other in results["ood"]:
        for arm in other["arms"]:
            for measure, estimate in arm["test"].items():
                name = logged_name(f"{arm['arm']}.ood.{other['data']}.{measure}")
                found[name] = estimate["mean"]
    return {key: value for key, value in found.items() if value is not None}


def _arm(
    arm: str,
    trials: FinishedTrials,
    confirmed: list[TrialRecord],
    folder: Path,
    dataset: Dataset,
) -> dict[str, Any]:
    """The object of one arm in ``results.json``, without ``test``."""
    searched = [r for r in trials.of_kind(Kind.SEARCH) if r.spec.arm == arm]
    found: dict[str, Any] = {
        "arm": arm,
        "trials": _outcomes(searched),
        "confirmations": _outcomes([r for r in trials.of_kind(Kind.CONFIRM) if r.spec.arm == arm]),
        "search_seconds": sum(r.costs.get("seconds", 0.0) for r in searched),
        "best": None,
        "seeds": [],
        "collapsed": False,
        "costs": {},
    }
    best = trials.best.get(arm)
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
    """Outcome -> number of trials."""
    counts = Counter(str(record.outcome) for record in records)
    return {str(outcome): counts[outcome] for outcome in Outcome}


def _efficiency(
    arms: list[dict[str, Any]], trials: FinishedTrials, untuned: list[TrialRecord]
) -> dict[str, Any]:
    """The object ``efficiency`` in ``results.json``."""
    searched: dict[str, list[TrialRecord]] = {arm["arm"]: [] for arm in arms}
    for record in trials.of_kind(Kind.SEARCH):
        searched[record.spec.arm].append(record)
    costs = trials.objectives
    start = untuned[0].scores.get("validation.overall", 0.0) if untuned else 0.0
    return {
        "pareto": efficiency.pareto(arms),
        "budget": efficiency.budget_curves(searched, start),
        "front": goals.pareto_front(trials.records, costs) if costs else [],
        "learning_rates": efficiency.learning_rates(searched),
        "importance": importance.importances(
            searched, {arm: spaces.ranges(a) for arm, a in trials.space.arms.items()}
        ),
    }


def _collapsed(folder: Path, record: TrialRecord, dataset: Dataset) -> bool:
    """Whether a trial's answers hardly depend on the question."""
    given = answers.read(folder, record.spec.id, "test")["answer"].to_pylist()
    return collapsed(dataset.test, given)


def _trial(record: TrialRecord) -> dict[str, Any]:
    """The object of one trial in ``results.json``."""
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
