"""Every command of the project: it shows no secret, and says what was done wrong in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.command import command
from trainables.errors import BadInput

ROOT = Path(__file__).parents[2]
COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("study", "trainables", "search_spaces")
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search("^if __name__ ==", path.read_text("utf-8"), re.MULTILINE)
]
SECRET = "pä ß word"
URI = f"http://u:{SECRET}@host"
FAILING = """
import argparse, sys, threading
from pathlib import Path

def fail(*_):
    raise RuntimeError("cannot reach " + sys.argv[-1])

def parse_args(*_):
    print(Path("/proc/self/cmdline").read_bytes().hex())  # or it would be cut
    print("asked for", sys.argv[-1])
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()

argparse.ArgumentParser.parse_args = parse_args
"""
"""Makes every command fail, in a thread and then as a whole, when it reads its arguments."""


def test_commands_are_found() -> None:
    assert {"study.launch", "study.ui", "trainables.model_tools.compose"} < set(COMMANDS)


@pytest.mark.skipif(sys.platform != "linux", reason="others keep command lines elsewhere")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_fails_shows_no_secret(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, "-m", name, URI],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    line, asked = done.stdout.splitlines()
    hidden = f"http://u:{'*' * len(SECRET.encode())}@host"
    assert bytes.fromhex(line).endswith(f"\0{hidden}\0".encode()), "the same number of bytes"
    assert asked == "asked for http://u:***@host", "what is printed"
    assert done.returncode == 1 and done.stderr.count("cannot reach http://u:***@host") == 2
    assert done.stderr.count("Traceback") == 2 and "in fail" in done.stderr
    assert "ß" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (BadInput("no server at http://u:pw@host"), 2, "error: no server at http://u:***@host\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (None, 0, ""),
    ],
)
def test_what_ends_a_command(
    raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        print(*(arguments or ()))
        sys.stdout.writelines(["a http://u:pw@host", "\n"])
        if raised:
            raise raised
        return 0

    hook = sys.excepthook
    assert main(["http://u:pw@host"]) == code
    assert tuple(capsys.readouterr()) == ("http://u:***@host\na http://u:***@host\n", said)
    assert sys.excepthook is hook, "a program that calls it keeps its own"


def test_a_name_that_no_file_can_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        (tmp_path / ("x" * 300)).read_text()
        return 0

    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a name is too long for a file: ") and len(line) < 150
