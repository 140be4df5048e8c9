"""Which code may import which: our packages, the folders within them, and foreign packages. Tests
mirror those folders.

The doors of a foreign package are the files that may import it: all other code reaches it through
them.

The sources are parsed, not imported, so an import inside a function counts as much as one at the
top of a file, and one under ``TYPE_CHECKING`` too. ``python -m tests.import_graph`` prints the
graph."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.import_graph import PLUG_INS, by_folder, circles, folder_sizes, graph, imports

ROOT = Path(__file__).parents[1]

ARROWS = {
    "search_spaces": {"search_spaces"},
    "trainables": {"trainables"},
    "study": {"study", "trainables", "search_spaces"},
}
"""Package of ours -> packages of ours that it may know."""

DOORS = {
    "torch": ["trainables/*", "study/*"],
    "transformers": ["trainables/*"],
    "huggingface_hub": ["trainables/cache/hub.py"],
    "peft": [
        "trainables/methods/*",
        "trainables/shared_layers/*",
        "trainables/export/peft_adapter.py",
    ],
    "spacy": ["trainables/measures/observations.py"],
    "negspacy": ["trainables/measures/observations.py"],
    "pydantic": ["trainables/stored_json.py"],
    "deepspeed": ["trainables/engine/deepspeed_engine.py"],
    "bitsandbytes": [
        "trainables/engine/optimizers.py",
        "trainables/shared_layers/quantised_linear.py",
    ],
    "ray": ["study/execution/*", "study/worker/*", "study/health/nodes.py"],
    "optuna": ["study/search/*", "study/config/spaces.py", "study/analysis/importance.py"],
    "mlflow": ["study/tracking/*"],
}
"""Foreign package -> its doors, the files that may import it."""

LAYERS = {
    "study": (
        {"trials"},
        {"storage", "statistics"},
        {"config"},
        {"planning", "search", "analysis"},
        {"protocol"},
        {"comparison"},
        {"worker", "tracking", "reporting"},
        {"execution"},
        {"workflow.py", "health", "inventory"},
    ),
    "trainables": (
        {"devices"},
        {"shared_layers", "cache", "methods"},
        {"data"},
        {"engine", "measures"},
        {"audit", "models", "training"},
        {"memory", "model_tools", "export"},
        {"packing"},
    ),
}
"""Package -> its folders from the lowest to the highest. A folder imports lower ones only. Above
those of ``study/`` are the commands, which also import what every command may. The modules that lie
in ``trainables/`` itself have no place in the order."""
MOST_MODULES = 12
"""Modules that a folder may have. Plug-in folders may have more, and so may ``study/`` itself, in
which each is a command."""

HEAVY = [*DOORS]
"""Foreign packages that take long to import: never before it is known that there is something to
run."""


def test_every_import_goes_through_its_door() -> None:
    found = [
        violation
        for package in ARROWS
        for path in sorted((ROOT / package).rglob("*.py"))
        for violation in violations(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_door_leads_somewhere() -> None:
    patterns = [pattern for patterns in DOORS.values() for pattern in patterns]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


@pytest.mark.parametrize(
    ("path", "source", "imported"),
    [
        ("search_spaces/bad.py", "import torch", "torch"),
        ("search_spaces/bad.py", "from trainables.recipe import Recipe", "trainables.recipe"),
        ("trainables/bad.py", "def f():\n    from study import spaces", "study"),
        ("trainables/bad.py", "import importlib\nimportlib.import_module('ray.tune')", "ray.tune"),
        ("trainables/bad.py", "import os, optuna.samplers as s", "optuna.samplers"),
        ("trainables/models/bad.py", "import peft", "peft"),
        ("trainables/data/bad.py", "if TYPE_CHECKING:\n    import search_spaces", "search_spaces"),
        ("trainables/data/bad.py", "from ...study import spaces", "study"),
        ("trainables/training/trial.py", "import deepspeed", "deepspeed"),
        ("study/launch.py", "import ray", "ray"),
        ("study/report.py", "try:\n    import mlflow\nexcept ImportError: ...", "mlflow"),
        ("study/execution/ray_tune.py", "__import__('transformers')", "transformers"),
    ],
)
def test_a_bad_import_is_found(path: str, source: str, imported: str) -> None:
    (found,) = violations(path, source)
    assert found.startswith(f"{path}:") and f" imports {imported}" in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("search_spaces/good.py", "from search_spaces.declare import Space\nimport math"),
        ("trainables/methods/good.py", "from peft import LoraConfig\nfrom . import select"),
        ("study/execution/ray_tune.py", "import ray\nfrom trainables import registry"),
        ("study/good.py", "import rayon, raytune.ray, mlflow_of_ours"),
        ("study/good.py", "'import ray'  # import ray"),
    ],
)
def test_a_good_import_is_let_through(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        ("study.launch --list", 0),
        ("study.launch --space layernorm_vs_lorra", 2),
        *(
            (f"study.{file.stem} --help", 0)
            for file in sorted((ROOT / "study").glob("[a-z]*.py"))
            if file.stem != "workflow"
        ),
        ("trainables.model_tools.compose --help", 0),
        ("trainables.model_tools.convert_llava --help", 0),
    ],
)
def test_answers_before_anything_heavy_is_imported(command: str, exit_code: int) -> None:
    module, *arguments = command.split()
    probe = f"""
import runpy, sys
sys.argv = [{module!r}, *{arguments!r}]
code = 0
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit as exit:
    code = exit.code or 0
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print(code, *loaded, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == str(exit_code), done.stderr


@pytest.mark.parametrize("package", LAYERS)
def test_folders_import_lower_ones_only(package: str) -> None:
    floor = {folder: number for number, level in enumerate(LAYERS[package]) for folder in level}
    folders = by_folder(graph(), package)
    assert {folder for folder in folders if not folder.endswith(".py")} <= floor.keys()
    upwards = [
        f"{package}/{folder} imports {package}/{other}"
        for folder, others in folders.items()
        for other in others
        if folder in floor and other in floor and floor[other] >= floor[folder]
    ]
    assert not upwards, "\n".join(upwards)


def test_study_itself_holds_commands_and_the_workflow() -> None:
    """A command is a module with a ``main`` that is decorated with ``@command``, and nothing
    imports it."""
    folders = by_folder(graph(), "study")
    commands = {folder for folder in folders if folder.endswith(".py")} - {"workflow.py"}
    sources = {name: (ROOT / "study" / name).read_text("utf-8") for name in commands}
    assert [name for name, source in sources.items() if not is_command(source)] == []
    assert [folder for folder, others in folders.items() if others & commands] == []


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("@command\ndef main(): ...\nif __name__ == '__main__':\n    sys.exit(main())", True),
        ("@command\ndef main(): ...", False),
        ("def main(): ...\nif __name__ == '__main__':\n    sys.exit(main())", False),
        ("@command\ndef other(): ...\nif __name__ == '__main__':\n    main()", False),
    ],
)
def test_a_command_is_told_from_another_module(source: str, command: bool) -> None:
    assert is_command(source) is command


@pytest.mark.parametrize("package", ["study", "trainables"])
def test_no_import_goes_in_a_circle(package: str) -> None:
    assert [" -> ".join(circle) for circle in circles(by_folder(graph(), package))] == []
    own = {path: to for path, to in graph().items() if path.startswith(f"{package}/")}
    assert [" -> ".join(circle) for circle in circles(own)] == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []
    assert circles({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}) == []


def test_no_folder_is_too_full_to_read() -> None:
    sizes = folder_sizes(graph())
    full = {f: n for f, n in sizes.items() if n > MOST_MODULES and f not in {*PLUG_INS, "study"}}
    assert full == {}


@pytest.mark.parametrize("package", ["study", "trainables"])
def test_tests_mirror_the_folders(package: str) -> None:
    strays = unmirrored(ROOT, package)
    assert not strays, (
        f"there are tests in tests/{', tests/'.join(strays)}, but no code in {', '.join(strays)}. "
        "A test is in the folder that mirrors that of the code it tests, of two layers the upper "
        "one: move it there (git mv, if the folder of the code was renamed)."
    )


def test_a_folder_of_tests_that_mirrors_nothing_is_found(tmp_path: Path) -> None:
    for path in ("study/health/nodes.py", "study/gone/__pycache__/old.pyc"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    for folder in ("", "health", "gone", "health/deep", "helpers"):
        (tmp_path / "tests/study" / folder).mkdir(parents=True, exist_ok=True)
        name = "made_up.py" if folder == "helpers" else "test_it.py"
        (tmp_path / "tests/study" / folder / name).touch()
    (tmp_path / "study" / "launch.py").touch()
    assert unmirrored(tmp_path, "study") == ["study/gone", "study/health/deep"]


def unmirrored(root: Path, package: str) -> list[str]:
    """The folders of ``package`` that have tests below ``root/tests`` and no modules."""
    folders = {
        path.parent.relative_to(root / "tests")
        for path in (root / "tests" / package).rglob("test_*.py")
    }
    return sorted(f.as_posix() for f in folders if not any((root / f).glob("*.py")))


def is_command(source: str) -> bool:
    """Whether a module has a ``main`` decorated with ``@command`` and runs by ``python -m``."""
    body = ast.parse(source).body
    mains = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    decorated = [ast.unparse(each) for main in mains for each in main.decorator_list]
    tests = [ast.unparse(node.test) for node in body if isinstance(node, ast.If)]
    return "command" in decorated and "__name__ == '__main__'" in tests


def violations(path: str, source: str) -> list[str]:
    """What ``source`` imports although its ``path`` (from the root, with slashes) forbids it."""
    package = path.split("/")[0]
    found = []
    for line, module in imports(path, source):
        top = module.split(".")[0]
        if top in ARROWS and top not in ARROWS[package]:
            found.append(f"{path}:{line} imports {module}: {package} must not know of {top}")
        elif top in DOORS and not any(fnmatch(path, door) for door in DOORS[top]):
            found.append(
                f"{path}:{line} imports {module}: {top} enters only by {', '.join(DOORS[top])}"
            )
    return found
