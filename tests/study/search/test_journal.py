"""The journal of a study: what it wrote is read back, also after a kill or on a full disk."""

import errno
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage

from study.search.journal import STATES, JournalFile, StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.study_folder import JOURNAL
from study.trials.record import Outcome, TrialEnd, TrialRecord
from study.trials.spec import Kind, TrialSpec
from tests.small_disk import disk
from tests.study.made_up import play_all, rung


def test_it_reads_back_what_it_wrote(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    scheduler = play_all(begin())
    assert StudyJournal(tmp_path / "study").records == scheduler.journal.records


def test_a_trial_that_has_ended_is_in_memory_once(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    """Optuna keeps what was noted of a trial only while it runs, whoever began it, and no place of
    any line but where the next will begin."""
    scheduler = play_all(begin(), most=11)
    running = scheduler.next()
    assert running is not None
    for journal in (scheduler.journal, StudyJournal(tmp_path / "study")):
        trials = journal.study_of(Kind.SEARCH).get_trials(deepcopy=False)
        assert [trial.number for trial in trials if trial.user_attrs] == [11]
        assert not any(trial.user_attrs for trial in journal.memory.trials())
        assert len(journal.memory.trials()) == len(journal.records) - 1 == 11
    lines = len((tmp_path / "study" / JOURNAL).read_bytes().splitlines())
    file = JournalFile(str(tmp_path / "study" / JOURNAL))
    for first in (0, lines - 1, lines, 5):
        assert len([*file.read_logs(first)]) == lines - first
        assert {*file._log_number_offset} == {0, lines}


def test_a_line_cut_off_by_a_kill_is_ignored(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    scheduler = play_all(begin(), most=3)
    with (tmp_path / "study" / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 5, "trial')
    assert StudyJournal(tmp_path / "study").records == scheduler.journal.records
    assert play_all(begin()).done


def test_a_clock_that_goes_back_changes_no_order(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    """A study that goes on judges its reports again in the order in which they came."""
    scheduler, order = begin(), []
    for minutes in range(3):
        spec = scheduler.next()
        assert spec is not None
        report = replace(rung(spec, spec.stops[0]), reported_at=1e9 - 60 * minutes)
        scheduler.reported(spec.id, report)
        order.append(spec.id)
    spec = begin().next()
    assert spec is not None
    scheduler = begin()
    scheduler.next()
    scheduler.reported(order[0], replace(rung(spec, spec.stops[1]), reported_at=1.0))
    records = StudyJournal(tmp_path / "study").records
    times = [rung.reported_at for trial in order for rung in records[trial].rungs[:1]]
    times.append(records[order[0]].rungs[1].reported_at)
    assert times == sorted(set(times)) and len(times) == 4 and times[0] == 1e9


def test_a_disk_that_is_full_at_every_page_loses_no_trial_and_changes_none(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    """Each session finds room for one page more, and stops somewhere in a trial."""
    whole = play_all(begin(folder="whole"))
    sessions = 0
    with disk(tmp_path / "small", "2m") as small, warnings.catch_warnings():
        warnings.simplefilter("error")
        while True:
            sessions += 1
            small.fill(but=1)
            try:
                scheduler = play_all(begin(folder="small"))
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC
                journal = (small.folder / JOURNAL).read_bytes()
                assert all(json.loads(line) for line in journal.splitlines())
    assert sessions > 5
    assert [known(r) for r in scheduler.journal.records.values()] == [
        known(r) for r in whole.journal.records.values()
    ]


def known(record: TrialRecord) -> list[Any]:
    """What two runs of a study have in common: all but times."""
    rungs = [(rung.examples_seen, rung.validation_loss) for rung in record.rungs]
    return [record.spec, record.outcome, rungs, record.scores]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.DIVERGED, Outcome.FAILED])
@pytest.mark.parametrize("kind", [Kind.SEARCH, Kind.CONFIRM])
def test_a_trial_whose_end_was_noted_has_ended_though_optuna_was_not_told(
    begin: Callable[..., StudyScheduler], tmp_path: Path, outcome: Outcome, kind: Kind
) -> None:
    """Killed between the two. The costs that the end does not tell are those of the last rung."""
    scheduler = play_all(begin(), most=0 if kind is Kind.SEARCH else 13)
    spec = scheduler.next()
    assert spec is not None and spec.kind is kind
    for stop in spec.stops:
        scheduler.reported(spec.id, rung(spec, stop))
    journal = scheduler.journal
    number = journal.records[spec.id].number
    end = {"outcome": outcome, "ended_at": 1.0, "costs": {}, "scores": {}, "error": ""}
    journal._trials[spec.id].set_user_attr("end", end)
    again = StudyJournal(tmp_path / "study")
    record = again.records[spec.id]
    assert record.outcome is outcome and record.costs == {"seconds": spec.stops[-1] / 100}
    told = again.study_of(kind).get_trials()[number]
    assert told.state is STATES[outcome] and not again.running()
    if kind is Kind.SEARCH:
        learnt = outcome is not Outcome.FAILED
        assert [trial.number for trial in again.memory.trials()] == [number] * learnt
        assert again.failed.total() == (not learnt)
    assert StudyJournal(tmp_path / "study").records == again.records
    assert play_all(begin()).done


def test_an_error_is_kept_without_secrets(
    begin: Callable[..., StudyScheduler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted key")
    scheduler = begin()
    spec = scheduler.next()
    assert spec is not None
    said = "OSError: planted key is wrong at http://a:planted@b"
    scheduler.ended(spec.id, TrialEnd(outcome=Outcome.FAILED, error=said, remark=said))
    record = StudyJournal(tmp_path / "study").records[spec.id]
    assert record.error == record.remark == "OSError: *** is wrong at http://a:***@b"
    assert "planted" not in (tmp_path / "study" / JOURNAL).read_text()


def test_nothing_good_is_learnt_from_one_that_diverged(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    """Optuna takes one that was stopped for the better the further it got."""
    scheduler = begin()
    for outcome in (Outcome.DIVERGED, Outcome.PRUNED):
        spec = scheduler.next()
        assert spec is not None
        for stop in spec.stops if outcome is Outcome.DIVERGED else spec.stops[:1]:
            scheduler.reported(spec.id, rung(spec, stop))
        scheduler.ended(spec.id, TrialEnd(outcome=outcome, costs={"seconds": 1.0}))
    for journal in (scheduler.journal, StudyJournal(tmp_path / "study")):
        diverged, pruned = journal.memory.trials()
        assert not diverged.intermediate_values and pruned.intermediate_values
        assert journal.study_of(Kind.SEARCH).get_trials()[0].intermediate_values, "it is recorded"


def test_what_of_optunas_private_parts_a_resumed_study_rests_on(tmp_path: Path) -> None:
    """If this fails with a new Optuna, no study that was killed can be gone on with: a running
    trial is taken up by its private ``_trial_id``, as ``StudyJournal._remember`` does."""
    folder = str(tmp_path / JOURNAL)
    begun = optuna.create_study(study_name="one", storage=JournalStorage(JournalFile(folder)))
    begun.ask().report(2.0, 32)
    study = optuna.load_study(study_name="one", storage=JournalStorage(JournalFile(folder)))
    (running,) = study.get_trials()
    again = optuna.Trial(study, running._trial_id)
    again.report(1.0, 64)
    again.set_user_attr("end", {"outcome": "complete"})
    told = study.tell(again, 1.0)
    assert told.number == running.number and told.value == 1.0
    assert told.intermediate_values == {32: 2.0, 64: 1.0}
    assert told.user_attrs == {"end": {"outcome": "complete"}}


def test_a_spec_survives_json_and_its_id_names_its_content() -> None:
    spec = TrialSpec(
        kind=Kind.SEARCH,
        arm="lora",
        parameters={"lora.rank": 8, "lr": 1e-3},
        recipe={"vision": {"method": "lora", "rank": 8}},
        lr=1e-3,
        seed=0,
        max_examples=64,
        batch_size=32,
        stops=(32, 64),
        base="made up",
    )
    assert TrialSpec.from_plain(spec.plain()) == spec
    assert TrialSpec.from_plain(spec.plain()).id == spec.id
    assert TrialSpec.from_plain(spec.plain() | {"seed": 1}).id != spec.id
