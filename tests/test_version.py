"""The version, which ``pyproject.toml`` has and other files repeat."""

import tomllib
from pathlib import Path

from trainables.registry import FAMILIES

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_oldest_packages_that_are_allowed_are_those_that_are_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = dict(requirement.split(">=") for requirement in project["dependencies"])
    tried = pinned("constraints-oldest.txt")
    assert {"torch", "transformers", "peft"} < {*tried}
    for name, bound in bounds.items():
        version = tried.get(name.lower().replace("-", "_"), bound)
        assert f"{version}.".startswith(f"{bound}."), name


def test_no_family_needs_an_older_transformers_than_is_allowed() -> None:
    oldest = {name: FAMILIES.text(name, "TRANSFORMERS") for name in FAMILIES.names()}
    assert "" not in oldest.values(), "each family says it"
    least = min(oldest.values(), key=lambda version: [*map(int, version.split("."))])
    assert pinned("constraints-oldest.txt")["transformers"].startswith(f"{least}.")


def pinned(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name.lower().replace("-", "_"): version for name, version in pairs}
