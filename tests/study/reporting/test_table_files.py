"""The tables that lie beside the page, for other programs and for LaTeX."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from study.analysis import results_file
from study.analysis.result_types import StudyResults
from study.reporting import page as report_page
from study.reporting import table_files
from tests.study.reporting.pages import read


def test_tables_lie_beside_it(found: StudyResults, tmp_path: Path) -> None:
    files = {
        path.name: path.read_text(encoding="utf-8") for path in report_page.write(tmp_path, found)
    }
    rows = list(csv.DictReader(io.StringIO(files["results.csv"])))
    assert [row["arm"] for row in rows[:5]] == [arm.arm for arm in found.arms]
    assert float(rows[0]["overall_mean"]) == found.arms[0].overall.mean
    assert found.leader is not None and rows[1]["overall_as_the_best_mean"] == ""
    assert (
        float(rows[0]["overall_as_the_best_mean"]) == found.leader.mean < found.arms[0].overall.mean
    )
    assert len(list(csv.DictReader(io.StringIO(files["comparisons.csv"])))) == 6 * 5
    assert len(list(csv.DictReader(io.StringIO(files["trials.csv"])))) == len(found.trials)
    latex = files["results.tex"]
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    best = found.arms[0]
    assert f"{best.arm} & {found.letters[best.arm]} & {best.overall.mean:.1f} {{" in latex
    assert f"as the best of 4, overall \\%: {found.leader.mean:.1f} {{" in latex
    assert "as the best of 4:" in files["report.html"]


def test_each_row_of_a_latex_table_has_as_many_cells_as_its_head(found: StudyResults) -> None:
    one = replace(found, protocol={**found.protocol, "against": found.arms[0].arm})
    assert found.letters and not one.letters
    for results in (found, one):
        table = table_files.texts(results)["results.tex"].partition(r"\end{tabular}")[0]
        assert ("arm & group & " in table) is ("a letter in common" in table) is (results is found)
        head, *rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        for row in rows:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert row.count(" & ") + sum(spans) == head.count(" & "), row
        columns = re.findall(r"begin\{tabular\}\{(\w+)\}", table)
        assert [len(each) - 1 for each in columns] == [head.count(" & ")]


def test_latex_is_escaped(found: StudyResults, tmp_path: Path) -> None:
    text = json.dumps(results_file.plain(found)).replace('"layernorm"', '"50%_of_{it} & more"')
    report_page.write(tmp_path, read(json.loads(text), tmp_path))
    latex = (tmp_path / "results.tex").read_text(encoding="utf-8")
    assert r"50\%\_of\_\{it\} \& more &" in latex


@pytest.mark.parametrize("begins", ["=", "+", "-", "@"])
def test_no_cell_is_a_formula_to_a_spreadsheet(found: StudyResults, begins: str) -> None:
    error = f"{begins}HYPERLINK(1)"
    trials = (replace(found.trials[0], error=error), *found.trials[1:])
    changed = table_files.texts(replace(found, trials=trials))["trials.csv"]
    rows = list(csv.DictReader(io.StringIO(changed)))
    assert rows[0]["error"] == f"'{error}"
    assert float(rows[0]["lr"]) == found.trials[0].lr
