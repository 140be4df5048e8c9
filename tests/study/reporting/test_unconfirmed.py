"""A study of which nothing or one arm was confirmed says why, wherever its results are shown."""

import html
from pathlib import Path

import pytest
from rich.console import Console

from search_spaces.declare import Space
from study import export
from study.analysis import results, results_file
from study.reporting import model_export
from study.reporting import page as report_page
from study.reporting.terminal import show_results
from study.storage.study_folder import REPORT
from study.trials.record import Outcome
from study.trials.spec import Kind, TrialSpec
from tests.study.finished import SPACE, Lost, bitfit, collected


def test_a_confirmation_that_diverged_is_counted_and_told(tmp_path: Path) -> None:
    def first_seed(spec: TrialSpec) -> Outcome | None:
        one = spec.kind is Kind.CONFIRM and (spec.arm, spec.seed) == ("full", 1)
        return Outcome.DIVERGED if one else bitfit(spec)

    found = collected(tmp_path, trials=20, lost=first_seed)
    full = next(arm for arm in found.arms if arm.arm == "full")
    assert full.confirmations[Outcome.COMPLETE] == full.confirmations[Outcome.DIVERGED] == 1
    assert len(full.seeds) == 1 and sum(full.confirmations.values()) == 2
    told = "Of 2 confirmations of full, 1 diverged: its score is that of the rest."
    assert " ".join(found.verdict.split()).endswith(told)
    report_page.write(tmp_path, found)
    assert told in (tmp_path / REPORT).read_text(encoding="utf-8")


def searched(outcome: Outcome, *arms: str) -> Lost:
    """All trials of the search end so; of these arms, if they are named."""
    return lambda spec: (
        outcome if spec.kind is Kind.SEARCH and (not arms or spec.arm in arms) else None
    )


def confirmed(spec: TrialSpec) -> Outcome | None:
    return None if spec.kind is Kind.SEARCH else Outcome.DIVERGED


TWO = Space(question="?", arms={arm: SPACE.arms[arm] for arm in ("layernorm", "lora")})


NOTHING = "No arm could be confirmed, so there is no answer. "
NO_LOSS = NOTHING + "No trial of layernorm and lora reported a loss: "
FAILED = NO_LOSS + "all 4 failed, the first with 'RuntimeError: <no> & never'."
NO_SCORE = "Of 2 confirmations of {}, 2 diverged: so it has no score."
HIGH = "the space's learning rates may be too high."
LESS = "a smaller batch_size in the space's budget would take less."
ONE = "Only layernorm could be confirmed: there is nothing to compare it with. "
ONE += (
    "Too little is known of layernorm to say what more search may still bring: a study with more "
)
ONE += "trials (--trials) would tell. "
ONE += f"No trial of lora reported a loss: all 2 diverged; {HIGH}"


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (searched(Outcome.DIVERGED), f"{NO_LOSS}all 4 diverged; {HIGH}"),
        (searched(Outcome.OUT_OF_MEMORY), f"{NO_LOSS}all 4 ran out of memory; {LESS}"),
        (searched(Outcome.FAILED), FAILED),
        (lambda spec: Outcome.FAILED, FAILED),
        (confirmed, f"{NOTHING}{NO_SCORE.format('layernorm')} {NO_SCORE.format('lora')}"),
        (searched(Outcome.DIVERGED, "lora"), ONE),
    ],
    ids=["diverged", "no memory", "failed", "untuned too", "confirmations", "one arm"],
)
def test_a_study_that_confirms_nothing_or_one_arm_says_why_and_has_its_files(
    lost: Lost, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    found = collected(folder, space=TWO, trials=4, ood=True, lost=lost)
    assert " ".join(found.verdict.split()) == said
    results_file.write(folder, found)
    page = html.unescape(report_page.write(folder, found)[0].read_text(encoding="utf-8"))
    assert all(line in page for line in found.verdict.splitlines()) and "0 seeds" not in page
    one = bool(found.confirmed)
    assert page.count("not confirmed") == (1 if one else 2)
    assert ("What a score costs" in page) == (one or lost is confirmed)
    untuned = next(t for t in found.trials if t.kind is Kind.UNTUNED)
    assert (found.baselines.untuned is None) == (untuned.outcome is not Outcome.COMPLETE)
    majority = found.baselines.majority["overall"]
    assert majority == found.ood[0].baselines.majority["overall"]
    assert "majority.test.overall_percent" in results.metrics(found)
    assert bool(model_export.small_models(found)) == one
    show_results(Console(width=140), found)
    assert "not confirmed" in capsys.readouterr().out
    if not one:
        assert export.main(["one", "--storage", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            "error: no arm of study 'one' was confirmed, so there is no model to export: " + said
        )
