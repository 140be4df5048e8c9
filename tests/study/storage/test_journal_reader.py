"""The journal as it is read without Optuna: the same trials, at any moment of a study."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage import journal_reader
from study.storage.journal_reader import Session
from study.storage.study_folder import JOURNAL
from study.trials.record import Outcome, TrialEnd
from tests.study.made_up import play, play_all, rung
from trainables.errors import BadInput

SESSION = Session(began=1.0, seconds=2.5, devices=2, concurrency=4, host="here")


def test_it_says_what_optuna_says(begin: Callable[..., StudyScheduler], tmp_path: Path) -> None:
    scheduler = begin()
    scheduler.journal.record_session(SESSION)
    play_all(scheduler, most=6)
    for outcome in (Outcome.FAILED, None):
        spec = scheduler.next()
        assert spec is not None
        scheduler.record_placement(spec.id, {"lane": "solo"})
        scheduler.reported(spec.id, rung(spec, spec.stops[0]))
        if outcome:
            scheduler.ended(spec.id, TrialEnd(outcome=outcome, error="lost"))
    scheduler.journal.record_seconds(12.5)
    content = (tmp_path / "study" / JOURNAL).read_bytes()
    found = journal_reader.read(content, "x")
    again = StudyJournal(tmp_path / "study")
    assert list(found.records) == list(again.records.values())
    assert (found.session, found.seconds, found.search_over) == (SESSION, again.seconds, False)
    assert journal_reader.read(content + b'{"op_code": 8, "tri', "x") == found, "being written"
    again.end_search()
    assert journal_reader.read((tmp_path / "study" / JOURNAL).read_bytes(), "x").search_over


def test_numbers_are_those_of_each_optuna_study(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    scheduler = play_all(begin())
    found = journal_reader.read((tmp_path / "study" / JOURNAL).read_bytes(), "x").records
    numbers = {r.spec.id: r.number for r in scheduler.journal.records.values()}
    assert {r.spec.id: r.number for r in found} == numbers
    assert sorted(numbers.values()).count(0) == 2, "the search's first and the confirmation's"


@pytest.mark.parametrize(
    "content", [b"{}\n", b"no JSON\n", b'{"op_code": 8, "trial_id": 3, "user_attr": {}}\n', b"[]\n"]
)
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadInput, match="x is damaged, or a newer version wrote it"):
        journal_reader.read(content, "x")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"started_at": [^,}]+', '"started_at": 1e308'),
        (r'"ended_at": [^,}]+', '"ended_at": NaN'),
        (r'"reported_at": [^,}]+', '"reported_at": -1'),
        (r'"lr": [^,}]+(?=, "seed")', '"lr": Infinity'),
        (r'"began": [^,}]+', f'"began": 1{"0" * 400}'),
        (r'"devices": [^,}]+', '"devices": "x"'),
        (r'"user_attr": {"seconds": [^,}]+', f'"user_attr": {{"seconds": 1{"0" * 400}'),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    begin: Callable[..., StudyScheduler], tmp_path: Path, old: str, new: str
) -> None:
    scheduler = play_all(begin(), most=3)
    scheduler.journal.record_session(SESSION)
    scheduler.journal.record_seconds(12.5)
    content = (tmp_path / "study" / JOURNAL).read_text()
    changed, times = re.subn(old, new, content)
    assert times
    with pytest.raises(BadInput, match="x is damaged, or a newer version wrote it"):
        journal_reader.read(changed.encode(), "x")


def test_a_journal_without_trials_is_empty() -> None:
    assert journal_reader.read(b"", "x") == journal_reader.JournalContent()
    assert replace(SESSION, devices=3) != SESSION


def test_the_seconds_of_a_trial_are_the_most_that_is_known(
    begin: Callable[..., StudyScheduler],
) -> None:
    scheduler = begin()
    spec = scheduler.next()
    assert spec is not None
    record = scheduler.journal.records[spec.id]
    assert record.seconds == 0.0
    play(scheduler, spec, {"seconds": 1.0})
    assert record.seconds == record.rungs[-1].seconds > 1.0
