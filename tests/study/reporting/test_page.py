"""The page that a study leaves: everything in it, and nothing taken for markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

from study.analysis import results_file
from study.analysis.efficiency_types import Efficiency, FrontTrial
from study.analysis.result_types import StudyResults
from study.analysis.results import metrics
from study.analysis.verdict import answer
from study.reporting import page as report_page
from study.statistics.score_types import Claim
from study.trials.colours import COLOURS
from study.trials.record import Outcome
from study.trials.spec import Kind
from tests.study.finished import SPACE
from tests.study.reporting.pages import FIGURES, Tags, read

SCRIPT = '<script>alert("&")</script>'


def page_of(folder: Path, found: StudyResults) -> Tags:
    return Tags(report_page.write(folder, found)[0].read_text(encoding="utf-8"))


def test_it_shows_what_was_found(found: StudyResults, tmp_path: Path) -> None:
    page = page_of(tmp_path, found)
    told = [
        SPACE.question,
        *found.verdict.splitlines(),
        "not confirmed",
        "RuntimeError: <no> & never",
    ]
    told += ["warn: two lookalikes", "On other set, which no model trained on", "not worse"]
    told += ["Only settings with memory<80GiB were eligible"]
    for part in told:
        assert part in page.text, part
    assert page.tags.count("svg") == FIGURES + len(SPACE.arms), "the legend has one an arm"
    assert page.outside == []


def test_pairs_of_many_arms_are_a_matrix(found: StudyResults, tmp_path: Path) -> None:
    html = report_page.write(tmp_path, found)[0].read_text(encoding="utf-8")
    matrix = html[html.index('<table class="matrix') : html.index("pairs, with intervals")]
    ranked = [arm.arm for arm in found.confirmed]
    rows = re.findall(r"<tr data-arm.*?</tr>", matrix, re.DOTALL)
    assert len(rows) == len(ranked) - 1 == 3
    for place, row in enumerate(rows):
        cells = re.findall(r"<td(.*?)>(.*?)</td>", row, re.DOTALL)
        assert [bool(text) for _, text in cells] == [number >= place for number in range(3)]
        for (attributes, text), second in zip(cells, ranked[1:], strict=True):
            if not text:
                continue
            (pair,) = (
                c for c in found.comparisons if (c.first, c.second) == (ranked[place], second)
            )
            assert f"{pair.deciding.difference.mean:+.1f}" in text
            assert pair.deciding.finding in attributes
    told = {c.deciding.finding for c in found.comparisons}
    assert "better" in told and len(told) > 1, "the study has pairs of several findings"
    assert found.letters["lora"] == "a" and found.letters["ia3"] not in ("a", "ab")


def test_a_pair_of_two_arms_is_a_row(found: StudyResults, tmp_path: Path) -> None:
    first, second = found.confirmed[:2]
    pairs = tuple(c for c in found.comparisons if {c.first, c.second} == {first.arm, second.arm})
    unconfirmed = (replace(arm, test=None, seeds=()) for arm in found.arms[2:])
    alone = replace(found, arms=(first, second, *unconfirmed), comparisons=pairs)
    html = report_page.write(tmp_path, alone)[0].read_text(encoding="utf-8")
    assert '<table class="matrix' not in html and "<th>group</th>" not in html
    assert f"{first.arm} &minus; {second.arm}" in html


def test_of_several_splits_it_describes_and_calls_no_arm_better(
    found: StudyResults, tmp_path: Path
) -> None:
    settings = found.protocol.get("settings", {}) | {"splits": 3, "split": "by_image"}
    described = replace(
        found,
        claim=Claim.SPLITS,
        searches=3,
        leader=None,
        protocol=found.protocol | {"settings": settings},
        verdict=answer(found.arms, found.comparisons, 30.0, claim=Claim.SPLITS),
    )
    assert found.letters and described.letters == {}
    assert "Intervals over splits leave out zero for " in described.verdict
    assert "No arm is called better from " in described.verdict
    assert "told apart" not in described.verdict and "is better than" not in described.verdict
    text = page_of(tmp_path, described).text
    assert "They describe these splits; no arm is called better." in text
    captions = (
        "letter in common",
        "told apart after Holm",
        "hollow: the best arm",
        "Shaded and bold",
    )
    usual = page_of(tmp_path, found).text
    for told in captions:
        assert told not in text and told in usual
    assert usual.count("not corrected for their number") == 2, "beside the matrix and the table"
    assert "let \u201cbetter\u201d err more often than said" in usual


def test_its_light_colours_are_those_of_mlflow() -> None:
    sheet = (Path(report_page.__file__).parent / "report.css").read_text(encoding="utf-8")
    light = sheet[: sheet.index("@media")]
    assert tuple(re.findall(r"--a\d+: (#\w+);", light)) == COLOURS


def test_text_of_users_is_never_markup(found: StudyResults, tmp_path: Path) -> None:
    text = json.dumps(results_file.plain(found))
    text = text.replace('"lora', f'"{json.dumps(SCRIPT)[1:-1]}').replace("lora.rank", SCRIPT[:8])
    hostile = json.loads(text)
    hostile["protocol"] |= {"begun": SCRIPT, "command": SCRIPT, SCRIPT: SCRIPT}
    hostile |= {"question": SCRIPT, "verdict": SCRIPT, "study": SCRIPT}
    hostile["trials"][0]["error"] = SCRIPT
    page = page_of(tmp_path, read(hostile, tmp_path))
    assert page.tags.count("script") == 1, "only the page's own"
    assert page.text.count('alert("&")') >= 20


def test_a_narrowed_space_is_told(found: StudyResults, tmp_path: Path) -> None:
    assert "narrowed" not in page_of(tmp_path, found).text
    asked = {**found.protocol["settings"], "arm": "lora", "set": ["lora.rank=4,8"]}
    narrowed = replace(found, protocol={**found.protocol, "settings": asked})
    text = page_of(tmp_path, narrowed).text
    assert "The search space was narrowed by --arm lora --set lora.rank=4,8." in text


def test_a_trade_off_is_told(found: StudyResults, tmp_path: Path) -> None:
    trial = FrontTrial(
        trial="abc",
        arm=SCRIPT,
        parameters={"lora.rank": 2},
        validation_loss=1.25,
        validation_percent=None,
        costs={"peak_memory_gib": 0.5},
    )
    traded = replace(found.efficiency, front=(trial,))
    page = page_of(tmp_path, replace(found, efficiency=traded))
    for part in ("The trade-off that was searched for", "peak memory gib", "1.2500", SCRIPT):
        assert part in page.text, part
    assert "trade-off" not in page_of(tmp_path, found).text


def test_what_ran_otherwise_than_it_should_is_told_once(
    found: StudyResults, tmp_path: Path
) -> None:
    assert "otherwise than it should" not in page_of(tmp_path, found).text
    arms = list(dict.fromkeys(trial.arm for trial in found.trials))[:2]
    trials = [replace(t, remark=SCRIPT if t.arm in arms else "") for t in found.trials]
    count = sum(trial.arm in arms for trial in trials)
    text = page_of(tmp_path, replace(found, trials=tuple(trials))).text
    assert text.count(f"{count} trials ({', '.join(arms)}): {SCRIPT}") == 1


def test_of_thousands_of_trials_a_report_draws_some_and_names_failures_once(
    found: StudyResults, tmp_path: Path
) -> None:
    few = page_of(tmp_path, found)
    assert few.text.count("are drawn, evenly") == 0
    failed = [t for t in found.trials if t.outcome is Outcome.FAILED]
    assert len(failed) > 1 and few.text.count("RuntimeError: <no> & never") >= 1
    told = f"{len(failed)} trials of bitfit (search), the first with lr="
    assert few.text.count(told) == 1
    searched = [t for t in found.trials if t.kind is Kind.SEARCH and t.rungs]
    many = [
        replace(t, trial=f"{t.trial}-{copy}", lr=t.lr * (1 + copy / 1000))
        for copy in range(1, 120)
        for t in searched
    ]
    page = page_of(tmp_path, replace(found, trials=(*found.trials, *many)))
    assert page.text.count("100 are drawn, evenly from the lowest loss") == 3
    arms = len({t.arm for t in searched})
    marks = page.tags.count("title") - few.tags.count("title")
    assert marks <= 4 * 100 * arms, "lines and marks that have a tip"


def test_a_study_in_which_nothing_worked_has_a_report_too(
    found: StudyResults, tmp_path: Path
) -> None:
    nothing = replace(
        found,
        arms=tuple(replace(a, test=None, best=None, seeds=(), costs={}) for a in found.arms),
        comparisons=(),
        strata=None,
        ood=(),
        trials=(),
        baselines=replace(found.baselines, untuned=None),
        efficiency=Efficiency(
            pareto=dict.fromkeys(found.efficiency.pareto, ()),
            budget=None,
            learning_rates=dict.fromkeys(SPACE.arms),
        ),
    )
    page = page_of(tmp_path, nothing)
    assert page.text.count("not confirmed") == 5
    assert page.tags.count("svg") == 5, "the legend's"


def test_no_script_but_the_pages_own_may_run(found: StudyResults, tmp_path: Path) -> None:
    page = _text(found, tmp_path)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'").replace("&#43;", "+")
    assert f"script-src 'sha256-{digest}';" in allowed
    assert allowed.startswith("default-src 'none';")


def test_an_untuned_model_that_answers_in_sentences_has_two_scores(
    found: StudyResults, tmp_path: Path
) -> None:
    strict = found.baselines.untuned or {}
    assert found.baselines.untuned_lenient == {
        part: strict.get(f"lenient_{part}", value) for part, value in strict.items()
    }
    assert "untuned_lenient" not in found.baselines.named(), "the same, so said once"
    lenient = dict(strict) | {"overall": 61.5}
    chatty = replace(
        found,
        baselines=replace(
            found.baselines,
            untuned_lenient=lenient,
            untuned_brief=strict,
            untuned_brief_lenient=strict,
        ),
    )
    page, plain = (_text(one, tmp_path) for one in (chatty, found))
    assert "untuned lenient" in page and "61.5" in page and "untuned brief" in page
    assert "partly form" in page and "single word or phrase" in page
    assert "The two rules give the same here" in plain and "untuned lenient" not in plain
    assert metrics(chatty)["untuned_lenient.test.overall_percent"] == 61.5


def _text(results: StudyResults, folder: Path) -> str:
    """The page as it is written."""
    return report_page.write(folder, results)[0].read_text(encoding="utf-8")
