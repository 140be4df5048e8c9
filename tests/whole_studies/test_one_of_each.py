"""One of each kind of plug-in, in its shortest form: a file in a folder, and nothing else, makes it
part of contract tests and studies. What is wrong with one is said by a contract test."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainables.data.pictures import picture

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def tree(folder: Path) -> Path:
    """A copy of the project, in ``folder``, to add files to."""
    ignored = shutil.ignore_patterns("__pycache__", "stored_studies", "benchmarks")
    for package in ("search_spaces", "study", "trainables", "tests"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=500,
    )


def contract_tests(folder: Path, names: str, *files: str) -> subprocess.CompletedProcess[str]:
    arguments = ("-q", "-rA", "-p", "no:cacheprovider", "-m", "not (long or slow)", "-k", names)
    return python(folder, "-m", "pytest", *arguments, *files)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one more of each kind."""
    folder = tree(tmp_path_factory.mktemp("extended"))
    shutil.copytree(ROOT / "tests" / "shortest", folder, dirs_exist_ok=True)
    return folder


def test_every_kind_joins_its_contract_tests(extended: Path) -> None:
    """Every method is tried on every family; here the new ones are, and LoRA on the new family."""
    done = contract_tests(
        extended,
        "my_method or my_data or my_measure or my_space or (my_family and (families or lora))"
        " or my_searcher or my_stopper",
        "tests/test_plug_ins.py",
        "tests/search_spaces",
        "tests/study/search/test_searchers.py",
        "tests/study/search/test_stoppers.py",
        *(f"tests/trainables/{kind}" for kind in ("data", "measures", "methods", "models")),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    kinds = ("method", "data", "measure", "family", "space", "searcher", "stopper")
    for name in (f"my_{kind}" for kind in kinds):
        assert re.search(rf"PASSED .*{name}", done.stdout), f"no contract test tried {name}"


SAVED = """
import sys
from trainables.models import my_family
model = my_family.small("is there a fracture ? no what shown hand".split())
model.network.save_pretrained(sys.argv[1])
model.tokenizer.save_pretrained(sys.argv[1])
"""
"""Writes a folder of the new family."""


def test_a_study_of_them_goes_to_its_report(extended: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    saved = python(extended, "-c", SAVED, str(model))
    assert saved.returncode == 0, saved.stderr
    (tmp_path / "data").mkdir()
    shortest = runpy.run_path(str(extended / "trainables" / "data" / "my_data.py"))
    shortest["small"](tmp_path / "data", picture)
    done = python(
        extended,
        *("-m", "study.launch", "--space", "my_space", "--name", "mine", "--seeds", "2"),
        *("--search", "my_searcher", "--stop", "my_stopper"),
        *("--storage", str(tmp_path / "studies"), "--model", str(model)),
        *("--data", "my_data", "--data-root", str(tmp_path / "data")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = tmp_path / "studies" / "mine"
    results = json.loads((study / "results.json").read_text())
    assert {trial["arm"] for trial in results["trials"]} == {"my_method", "lora", "untuned"}
    assert any("test.my_words" in trial["scores"] for trial in results["trials"])
    report = (study / "report.html").read_text()
    assert "words an answer" in report and "my_method" in report


NO_SMALL = """
from trainables.data.common.dataset import needs_root
def load(root):
    raise needs_root("wrong_data")
"""
NO_NUMBER = """
from trainables.measures.common.measure import Column, Measure
MEASURE = Measure(of="all", columns={"wrong": Column()}, score=lambda *_: {})
"""
MISSPELT = (ROOT / "search_spaces" / "smoke.py").read_text().replace('("lora"', '("lorra"')
FAMILY = (ROOT / "tests/shortest/trainables/models/my_family.py").read_text()
METHOD = (ROOT / "tests/shortest/trainables/methods/my_method.py").read_text()
TARGETS = '    targets: tuple[str, ...] = ("attention_output",)\n'
NO_ROLES = METHOD.replace(TARGETS, "").replace("config.targets", '("attention_output",)')
WRONG = {
    "trainables/methods/wrong_torch.py": (
        METHOD.replace("from dataclasses", "import torch\nfrom dataclasses"),
        "importing trainables/methods/wrong_torch.py imports",
    ),
    "trainables/methods/wrong_name.py": (
        METHOD.replace("def apply", "def aply"),
        "trainables/methods/wrong_name.py is not found as a method, since it defines no 'apply'",
    ),
    "trainables/methods/wrong_roles.py": (
        NO_ROLES,
        "wrong_roles wraps layers of the roles attention_output in slot 'vision', but the Config",
    ),
    "trainables/methods/wrong_form.py": (
        METHOD.replace("(slot: Slot, config: Config)", "(slot: Slot)"),
        "in trainables/methods/wrong_form.py, apply must take (slot, config), in this order",
    ),
    "trainables/data/wrong_data.py": (
        NO_SMALL,
        "trainables/data/wrong_data.py must also define small(root, picture)",
    ),
    "trainables/measures/wrong_measure.py": (
        NO_NUMBER,
        "score of trainables/measures/wrong_measure.py must give a value for each",
    ),
    "trainables/models/wrong_family.py": (
        "def load(path, image_size, precision): ...\n",
        "trainables/models/wrong_family.py must also define skeleton: a function",
    ),
    "trainables/models/wrong_call.py": (
        FAMILY.replace(
            "self.out(mixed", "nn.functional.linear(weight=self.out.weight, input=mixed"
        ),
        "losses do not call blocks.0.attention.out of slot 'vision'",
    ),
    "search_spaces/wrong_space.py": (MISSPELT, "unknown method 'lorra'; did you mean 'lora'?"),
}
"""File that lacks something -> its source, and how what a contract test says of it begins."""


def test_what_is_wrong_is_said_by_a_contract_test(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    for file, (source, _) in WRONG.items():
        (folder / file).write_text(source)
    done = contract_tests(
        folder,
        "wrong_torch and heavy or wrong_name or wrong_roles and adapted and llava or wrong_data"
        " or wrong_measure or wrong_family and must_have or wrong_space"
        " or wrong_form and right_form or wrong_call and role_are_called",
        "tests/test_plug_ins.py",
        "tests/search_spaces",
        "tests/trainables/data/test_datasets.py",
        "tests/trainables/measures/test_measures.py",
        "tests/trainables/methods/test_methods.py",
        "tests/trainables/models/test_families.py",
    )
    assert [said for _, said in WRONG.values() if said not in done.stdout] == [], done.stdout
