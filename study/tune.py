"""Ray Tune as the study's hands: it carries trials to hosts and reports back.

What to run and whom to stop is the conductor's; the searcher and the scheduler here only translate.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.conductor import Conductor
from study.faults import PlaceFault
from study.lanes import Lanes
from study.placements import NOTE
from study.records import Outcome, Rung
from study.worker import TrialClient
from trainables.secrecy import without_secrets

RETRIES = 3
"""How often a trial whose host died is taken up again, from its last rung."""
CLIENT_BYTES = 128 * 2**20
"""What a client takes: memory and no processor, which the hosts have."""


class ConductedSearcher(Searcher):
    """Asks the conductor for trials and tells it how they ended."""

    def __init__(self, conductor: Conductor, lanes: Lanes) -> None:
        super().__init__()
        self.conductor, self.lanes = conductor, lanes
        self.ids: dict[str, str] = {}
        """Tune's trial id -> ours."""
        self.errors: dict[str, str] = {}
        """Tune's trial id -> why its host died, in one line."""
        self.stopped: Exception | None = None
        """What ends the study before its end. Tune may take it for the fault of a trial and go on
        a little: nothing more is written then."""

    @contextmanager
    def ending(self) -> Iterator[None]:
        """What is raised inside ends the study."""
        try:
            yield
        except Exception as error:
            self.stopped = error
            raise

    # Ray's own searchers return FINISHED too, which its annotation leaves out.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial; None to be asked again later."""
        if self.stopped:
            return None
        with self.ending():
            start = self.lanes.next(self.conductor.next)
            if start is None:
                return Searcher.FINISHED if self.conductor.done else None
            self.conductor.placed(start.spec.id, start.placement.plain())
        spec = start.spec
        self.ids[trial_id] = spec.id
        return {
            "trial": spec.plain(),
            "placement": start.placement,
            "heard": self.conductor.ledger.records[spec.id].examples_seen,
            "host": start.host,
            "suspect": False,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial ended by itself, was stopped, or lost its host once too often."""
        if not self.stopped:
            with self.ending():
                self._ended(trial_id, result or {}, error)

    def _ended(self, trial_id: str, result: dict[str, Any], error: bool) -> None:
        outcome = Outcome(result.get("outcome", Outcome.FAILED if error else Outcome.PRUNED))
        lost = f"its host died {RETRIES + 1} times: {self.errors.pop(trial_id, 'killed')}"
        ours = self.ids.pop(trial_id)
        self.lanes.left(ours)
        self.conductor.placed(ours, _under("ran", result))
        spec = self.conductor.ledger.records[ours].spec
        if outcome is Outcome.OUT_OF_MEMORY and (note := self.lanes.again(spec)):
            said = f"{result.get('error', '')} {note}".strip()
            self.conductor.placed(ours, {NOTE: said})
            return
        self.conductor.ended(
            ours,
            outcome,
            costs=_under("costs", result),
            scores=_under("scores", result),
            error=result.get("error", lost if error else ""),
            remark=result.get("remark", ""),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles a study to restore it, which ours does from its ledger."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study is resumed from its ledger."""


class ConductedScheduler(FIFOScheduler):
    """Passes reports to the conductor and stops whom it stops."""

    def __init__(self, searcher: ConductedSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray
        self.searcher = searcher
        self.keeping = False
        """Clients, see ``on_trial_add``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing; see ``ConductedSearcher``."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Before the first: have Tune keep every client for the trials to come. Left to itself it
        keeps one of those that nobody waits for at the moment, and starts new ones a moment later.
        """
        if not self.keeping:
            cache, clients = tune_controller._actor_cache, self.searcher.lanes.concurrency
            cache.increase_max(trial.placement_group_factory, by=clients)
            self.keeping = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a report that is not a trial's last.

        Raises:
            PlaceFault: it tells of one.
        """
        return TrialScheduler.CONTINUE if self._report(trial.trial_id, result) else self.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's host died, or its client: it goes on where there is a host, from its last rung.

        If that was once too often, the searcher is told next, without the reason: it is kept.
        """
        searcher = self.searcher
        if searcher.stopped:
            return
        said = str(trial.get_error() or "").strip().splitlines()
        if said:
            searcher.errors[trial.trial_id] = without_secrets(said[-1])[:500]
        ours = searcher.ids[trial.trial_id]
        heard = searcher.conductor.ledger.records[ours].examples_seen
        with searcher.ending():
            host = searcher.lanes.lost(ours)
        trial.set_config(trial.config | {"heard": heard, "host": host, "suspect": True})

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take in the last report of a trial that ended by itself."""
        if "outcome" in result:
            self._report(trial.trial_id, result)

    def _report(self, tune_id: str, result: dict[str, Any]) -> bool:
        searcher, rung = self.searcher, _under("rung", result)
        if searcher.stopped:
            return False
        with searcher.ending():
            if "place" in result:
                raise PlaceFault(result["place"])
            return not rung or searcher.conductor.reported(
                searcher.ids[tune_id], Rung(**rung, costs=_under("costs", result))
            )


class Keeper(tune.Callback):
    """Gives devices back as soon as they are not needed, whether Tune asks for a trial or not."""

    def __init__(self, searcher: ConductedSearcher) -> None:
        self.searcher = searcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Some times a second."""
        searcher, lanes = self.searcher, self.searcher.lanes
        if searcher.stopped:
            raise searcher.stopped
        with searcher.ending():
            lanes.give_back(all_idle=not (searcher.conductor.more or lanes.waits))


def run(conductor: Conductor, lanes: Lanes) -> None:
    """Run the study to its end.

    Raises:
        BadInput: no host, or no gang, could be started.
        PlaceFault: a trial met one; see ``study.faults``.
        OSError: what the study is to remember cannot be written.
    """
    # Tune's own logs, one folder a trial, say nothing that the ledger does not; nor do its tables.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # An interruption is ours to handle: what runs is taken up again by --resume.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Ray Tune would copy the driver's credentials into the environment of the clients, and with it
    # into their command lines and a log. Clients speak to no store; hosts have their nodes' own.
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied.difference_update([name for name in copied if name.startswith("AWS_")])
    # A trial's error is its outcome, shown with the trial and not as a traceback of Tune's.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    searcher = ConductedSearcher(conductor, lanes)
    with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TrialClient, {"memory": CLIENT_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=ConductedScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=lanes.concurrency,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                # A trial keeps its own checkpoints, in the study's folder: see study.guests.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Keeper(searcher)],
            ),
        )
        try:
            tuner.fit()
        except Exception:  # Tune wraps what it is stopped by
            if searcher.stopped:
                raise searcher.stopped from None
            raise


def _under(prefix: str, result: dict[str, Any]) -> dict[str, Any]:
    """What Tune flattened to ``prefix/name``, by name."""
    nested = result.get(prefix)
    if isinstance(nested, dict):
        return nested
    start = prefix + "/"
    return {k.removeprefix(start): v for k, v in result.items() if k.startswith(start)}
