"""What a study plans is written before its first trial, and what it did is compared with that."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.config.study_json import open_study
from study.planning import provenance
from study.protocol import kept, planned
from study.protocol.planned import NOTED, PlannedProtocol
from study.reporting import page
from study.search.journal import StudyJournal
from study.search.scheduler import StudyScheduler
from study.storage.study_folder import PROTOCOL, StudyFolder
from study.trials.spec import Kind
from tests.study.made_up import play
from tests.study.reporting.pages import Tags
from tests.study.test_frozen_names import study_plan
from trainables.data import phantom
from trainables.data.common.dataset import questions_digest

KEYS = (
    "version study identity written question arms comparisons claim measure margin level_percent "
    "searches seeds seeds_if_diverged seeds_if_collapsed seed searcher stops budget objective "
    "under asked precision scoring model data test versions commit"
)


def fixed(folder: Path, **settings: Any) -> str:
    """Fix the protocol of a study of a model that is not loaded; its digest."""
    plan = study_plan(**settings)
    open_study(
        StudyFolder.from_path(folder), plan.definition, run=["lora"], base=provenance.base(plan)
    )
    described = provenance.describe(plan, folder)
    return planned.fix(plan, folder, described, StudyJournal(folder))


def test_it_is_written_once_before_the_first_trial(
    begin: Callable[..., StudyScheduler], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    digest = fixed(folder)
    written = (folder / PROTOCOL).read_bytes()
    assert hashlib.sha256(written).hexdigest() == digest == planned.digest(folder)
    assert {*json.loads(written)} == {*KEYS.split()}, "programs of others read them"
    protocol = planned.read(folder)
    assert (protocol.margin, protocol.seeds, protocol.measure) == (1.0, 3, "overall")
    assert {*protocol.arms} == {"layernorm", "lora"} and protocol.claim == "models"
    assert protocol.comparisons.startswith("each pair of arms (1), ")
    assert protocol.test.digest == questions_digest(phantom.load(None).test)
    scheduler = begin()
    spec = scheduler.next()
    assert spec is not None
    play(scheduler, spec)
    # The same study goes on with more seeds, and the file stays as it is.
    assert fixed(folder, seeds=3) == digest and (folder / PROTOCOL).read_bytes() == written


def test_it_names_the_arm_against_which_the_others_are_compared(
    kept_to: tuple[PlannedProtocol, StudyResults], tmp_path: Path
) -> None:
    folder = tmp_path / "against"
    fixed(folder, against="lora")
    declared = planned.read(folder)
    assert json.loads((folder / PROTOCOL).read_text())["against"] == declared.against == "lora"
    assert declared.comparisons.startswith("each other arm with lora (1), two-sided")
    protocol, results = kept_to
    said = checked(tmp_path, replace(protocol, against="lora"), results).deviations
    assert said == ("comparisons: each pair of arms, planned each arm with lora",)
    done = replace(results, protocol={**results.protocol, "against": "lora"})
    assert checked(tmp_path, replace(protocol, against="lora"), done).as_planned


def test_a_study_that_was_killed_before_its_first_trial_gets_it_then(tmp_path: Path) -> None:
    digest = fixed(tmp_path / "study")
    journal = tmp_path / "study" / "optuna.journal"
    journal.unlink()
    (tmp_path / "study" / PROTOCOL).unlink()
    assert fixed(tmp_path / "study") and digest


def test_a_study_that_began_before_has_none(
    begin: Callable[..., StudyScheduler], found: StudyResults, tmp_path: Path
) -> None:
    scheduler = begin()
    assert scheduler.next() is not None
    assert fixed(tmp_path / "study") == "" and not (tmp_path / "study" / PROTOCOL).exists()
    checked = kept.check(tmp_path / "study", found)
    assert not checked.as_planned and checked.deviations == ()
    assert checked.text == "no protocol file: the study began before there were any"
    text = Tags(page.write(tmp_path, found)[0].read_text("utf-8")).text
    assert "This study has no protocol file" in text


@pytest.fixture
def kept_to(found: StudyResults, tmp_path: Path) -> tuple[PlannedProtocol, StudyResults]:
    """A protocol, and results that are as it planned."""
    folder = tmp_path / "other"
    digest = fixed(folder)
    protocol = planned.read(folder)
    arms = [arm for arm in found.arms if arm.test]
    protocol = replace(
        protocol,
        arms={arm.arm: {} for arm in arms},
        seeds=2,
        stops=replace(protocol.stops, trials=sum(t.kind is Kind.SEARCH for t in found.trials)),
        versions={"python": "3.11"},
    )
    done = {
        **found.protocol,
        "identity": protocol.identity,
        "model": asdict(protocol.model),
        "data": {**found.protocol["data"], "digest": protocol.data.digest},
        "commit": protocol.commit,
    }
    assert digest
    return protocol, replace(found, arms=tuple(arms), protocol=done)


def checked(folder: Path, protocol: PlannedProtocol, results: StudyResults) -> kept.ProtocolCheck:
    """What the check says of them."""
    digest = planned.write(protocol, folder)
    return kept.check(folder, replace(results, protocol={**results.protocol, NOTED: digest}))


def test_a_study_that_kept_to_it_is_as_planned(
    kept_to: tuple[PlannedProtocol, StudyResults], tmp_path: Path
) -> None:
    protocol, results = kept_to
    said = checked(tmp_path, protocol, results)
    assert said.deviations == () and said.as_planned and said.text == "as planned"
    done = {**results.protocol, NOTED: said.digest}
    files = page.write(tmp_path, replace(results, protocol=done))
    text = Tags(files[0].read_text("utf-8")).text
    assert said.digest in text and "All was done as planned." in text
    assert f"sha256 {said.digest}; as planned" in (tmp_path / "methods.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"margin": 2.0}, "margin: 1.0, planned 2.0"),
        ({"measure": "macro_f1"}, "measure: overall, planned macro_f1"),
        ({"seeds": 1}, "seeds of lora, layernorm, full, ia3: 2, planned 1"),
        ({"searches": 2}, "searches of each arm: 1, planned 2"),
        ({"scoring": 1}, "rules of scoring, version: 2, planned 1"),
        ({"identity": "another"}, "protocol.json is of another study, 'study'"),
        ({"versions": {"python": "3.10"}}, "versions: python 3.11, planned python 3.10"),
        ({"commit": "0" * 40}, "planned 000000000000"),
        ({"arms": {"lora": {}, "dora": {}}}, "arm dora was not run"),
        ({"arms": {"lora": {}}}, "arm full was added"),
    ],
)
def test_what_was_done_otherwise_is_a_line(
    changes: dict[str, Any],
    line: str,
    kept_to: tuple[PlannedProtocol, StudyResults],
    tmp_path: Path,
) -> None:
    protocol, results = kept_to
    said = checked(tmp_path, replace(protocol, **changes), results)
    assert any(line in each for each in said.deviations), said.deviations
    assert not said.as_planned and said.text.startswith("otherwise: ")


@pytest.mark.parametrize(
    ("stops", "ended", "as_planned"),
    [
        ({}, "", False),
        ({}, "ended when no arm was expected to gain more than 1 point", True),
        ({"tuned_to": None}, "ended when no arm was expected to gain more than 1 point", False),
        ({"tuned_to": None}, "ended in time for --budget 2h", False),
        ({"tuned_to": None, "spending": "2h"}, "ended in time for --budget 2h", True),
    ],
)
def test_a_search_may_end_before_by_a_rule_that_was_planned(
    stops: dict[str, Any],
    ended: str,
    as_planned: bool,
    kept_to: tuple[PlannedProtocol, StudyResults],
    tmp_path: Path,
) -> None:
    protocol, results = kept_to
    more = replace(protocol.stops, trials=protocol.stops.trials + 5, **stops)
    done = {**results.protocol, "search": f"40 trials, {ended}"}
    said = checked(tmp_path, replace(protocol, stops=more), replace(results, protocol=done))
    assert said.as_planned is as_planned
    assert as_planned or said.deviations == (
        f"trials of the search: {more.trials - 5}, planned {more.trials}",
    )


def test_a_file_that_was_changed_lost_or_damaged_is_known(
    kept_to: tuple[PlannedProtocol, StudyResults], tmp_path: Path
) -> None:
    protocol, results = kept_to
    digest = planned.write(protocol, tmp_path)
    results = replace(results, protocol={**results.protocol, NOTED: digest})
    planned.write(replace(protocol, question="Another?"), tmp_path)
    said = kept.check(tmp_path, results)
    assert said.deviations == (f"protocol.json was changed: the study began with {digest[:12]}",)
    (tmp_path / PROTOCOL).write_text("{")
    assert "is no JSON" in kept.check(tmp_path, results).text
    (tmp_path / PROTOCOL).unlink()
    assert kept.check(tmp_path, results).text.endswith("is lost")


def test_the_methods_table_says_how_it_was_done(found: StudyResults, tmp_path: Path) -> None:
    hardware = {"device": "cuda", "devices": 2, "concurrency": 4, "names": ["A_100"]}
    results = replace(found, protocol={**found.protocol, "hardware": hardware})
    results_file.write(tmp_path, results)
    page.write(tmp_path, results_file.read(StudyFolder.from_path(tmp_path)))
    markdown = (tmp_path / "methods.md").read_text("utf-8")
    rows = dict(line.strip("| ").split(" | ", 1) for line in markdown.splitlines()[2:])
    assert rows["Hardware"] == r"2 CUDA devices (A\_100), 4 trials at a time"
    assert rows["Data"].startswith("made up (digest 0); questions: 400 test")
    assert rows["Search"].startswith("40 trials, ") and "2 seeds" in rows["Confirmation"]
    assert "6 paired tests, Holm" in rows["Decision"]
    latex = (tmp_path / "methods.tex").read_text("utf-8")
    assert r"Hardware & 2 CUDA devices (A\_100), 4 trials at a time \\" in latex
    assert latex.count(r"\\") == len(rows)
