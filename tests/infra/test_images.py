"""The Dockerfiles. No package index has a container engine: the steps are linted, and what is ours
of them is installed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.infra.manifests import INFRA

ROOT = INFRA.parent
FILES = sorted((INFRA / "docker").glob("*Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, the rest), comments dropped and lines joined."""
    text = re.sub(r"^#.*\n", "", file.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in lines if line.strip()]


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def lint(text: str) -> str:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip('hadolint is not here: pip install -c constraints.txt -e ".[infra]"')
    return subprocess.run(
        [hadolint, "-"], input=text, capture_output=True, text=True, check=False
    ).stdout


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    assert lint(dockerfile.read_text()) == ""


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("FROM python:latest", "DL3007"),
        ("FROM python:3\nRUN cd /tmp && pip install ray", "DL3013"),
        ("FROM python:3\nUSER root", "DL3002"),
    ],
)
def test_hadolint_finds_what_is_wrong(line: str, rule: str) -> None:
    assert rule in lint(line + "\n")


def test_what_runs_is_small_and_not_root(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    final = steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    assert final[0][1].endswith(" AS final")
    assert [rest for name, rest in final if name == "USER"] == ["10001:10001"]
    installed = " ".join(rest for name, rest in final if name == "RUN")
    assert "pip" not in installed and "g++" not in installed and "gcc" not in installed
    assert any(name == "ARG" and rest == "COMMIT" for name, rest in final)
    assert any("revision=${COMMIT}" in rest for name, rest in final if name == "LABEL")
    for name, rest in steps:
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), f"{source} is not in the repository"


def test_every_install_is_pinned(dockerfile: Path) -> None:
    installs = [r for n, r in instructions(dockerfile) if n == "RUN" and "pip install" in r]
    assert installs and all("-c constraints.txt" in step for step in installs)


def test_a_version_stands_in_one_place() -> None:
    def pinned(file: str) -> set[str]:
        lines = (ROOT / file).read_text().splitlines()
        return {re.sub("[-_.]+", "-", n.split("==")[0].lower()) for n in lines if "==" in n}

    beyond = pinned("infra/docker/cluster.txt")
    assert beyond and not beyond & pinned("constraints.txt")


def test_the_server_is_what_the_extra_says() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (step,) = [r for n, r in instructions(INFRA / "docker/mlflow.Dockerfile") if "pip install" in r]
    wanted = {requirement.split(">=")[0] for requirement in extras["server"]}
    assert set(shlex.split(step)[4:]) == wanted


def test_python_is_the_version_of_the_constraints() -> None:
    for file in FILES:
        (image,) = [rest for name, rest in instructions(file) if name == "ARG" and "=" in rest]
        assert f"python:3.{sys.version_info.minor}." in image
    assert "(Python 3.11)" in (ROOT / "constraints.txt").read_text()


@pytest.mark.long
def test_the_package_is_whole_without_its_repository(tmp_path: Path) -> None:
    """The image's last step, for real: what is copied is enough to install, and to run from."""
    source = tmp_path / "src"
    for name, rest in instructions(INFRA / "docker/Dockerfile"):
        if name == "COPY" and not rest.startswith("--from"):
            *files, target = rest.split()
            for file in files:
                to = source / target / ("" if (ROOT / file).is_dir() else Path(file).name)
                if (ROOT / file).is_dir():
                    hidden = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / file, to, ignore=hidden)
                else:
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / file, to)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    without = ["--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site")]
    subprocess.run([*pip, *without, "."], cwd=source, check=True, timeout=120)
    shutil.rmtree(source)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "STUDY_COMMIT": "f" * 40, "PATH": "/none"}
    commit = "from study.planning import provenance; print(provenance._commit())"
    said = subprocess.run(
        [sys.executable, "-c", commit],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "f" * 40
    command = [sys.executable, "-m", "study.launch", "--list"]
    shown = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0 and "layernorm_vs_lora" in shown.stdout, shown.stderr
    for package in ("search_spaces", "study", "trainables"):
        for file in (ROOT / package).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts and file.name != "make.py":
                assert (tmp_path / "site" / file.relative_to(ROOT)).is_file(), file
