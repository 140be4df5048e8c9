"""The page that a study leaves: everything in it, and nothing in it is taken for markup."""

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from study import report, results

SCRIPT = '<script>alert("&")</script>'
ESTIMATE = {"mean": 50.0, "low": 40.0, "high": 60.0}
SCORES = dict.fromkeys(
    ("overall", "open", "closed", "yes_no", "other", "token_recall", "token_f1"), 50.0
)
OUTCOMES = {"complete": 1, "pruned": 2, "diverged": 0, "out_of_memory": 0, "failed": 1}


def found(**changed: Any) -> dict[str, Any]:
    """The results of a small study, as ``study.results`` describes them."""
    test = dict.fromkeys(("overall", "open", "closed", "yes_no", "other"), ESTIMATE)
    arm = {
        "arm": "lora",
        "trials": OUTCOMES,
        "best": {"trial": "t", "parameters": {"lr": 0.001}, "validation_loss": 1.0},
        "test": test,
        "seeds": [{"seed": 1, "trial": "t", **SCORES}],
        "collapsed": False,
        "costs": {"trained_parameters": 9.0, "trained_percent": 1, "seconds": 2.0}
        | {"peak_memory_gib": 1.0},
        "search_seconds": 3.0,
    }
    unconfirmed = {"arm": "ia3", "best": None, "test": None, "seeds": [], "costs": {}}
    trial = {
        "trial": "t",
        "kind": "search",
        "arm": "lora",
        "parameters": {"lr": 0.001},
        "seed": 0,
        "outcome": "failed",
        "error": "RuntimeError: no",
        "rungs": [],
        "scores": {},
        "costs": {},
    }
    return {
        "version": 1,
        "study": "one",
        "question": "Which?",
        "verdict": "Nobody knows.",
        "baselines": {"majority": SCORES, "untuned": None},
        "arms": [arm, arm | unconfirmed],
        "comparisons": [{"first": "lora", "second": "ia3", "difference": ESTIMATE}],
        "ood": [
            {
                "data": "slake",
                "baselines": {"majority": SCORES, "untuned": SCORES},
                "arms": [{"arm": "lora", "test": test}],
                "comparisons": [],
            }
        ],
        "trials": [trial],
        "protocol": {"begun": "now", "command": "python", "data": {"findings": ["warn: two"]}},
        **changed,
    }


class Tags(HTMLParser):
    """Which tags a page opens, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_shows_what_was_found(tmp_path: Path) -> None:
    page = Tags(report.write(tmp_path, found()).read_text(encoding="utf-8"))
    for part in ("Which?", "Nobody knows.", "not confirmed", "RuntimeError: no", "warn: two"):
        assert part in page.text
    assert "On slake, which no model trained on" in page.text


def test_text_of_users_is_never_markup(tmp_path: Path) -> None:
    trial = found()["trials"][0] | {"error": SCRIPT, "parameters": {SCRIPT: 1}}
    data = {"findings": [SCRIPT]}
    protocol = {"begun": SCRIPT, "command": SCRIPT, "data": data, SCRIPT: SCRIPT}
    mean = found(question=SCRIPT, verdict=SCRIPT, study=SCRIPT, trials=[trial], protocol=protocol)
    page = Tags(report.write(tmp_path, mean).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count('alert("&")') >= 7


def test_results_are_json_even_where_there_is_no_number(tmp_path: Path) -> None:
    nothing = {"mean": math.nan, "low": math.nan, "high": math.nan}
    path = results.write(tmp_path, {"test": nothing, "bound": math.inf, "list": [1.5]})
    text = path.read_text(encoding="utf-8")
    assert '"mean": null' in text and '"bound": null' in text and "1.5" in text
