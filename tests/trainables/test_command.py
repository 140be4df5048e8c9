"""Every command of the project: it shows no secret, and says what was done wrong in one line."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.command import command
from trainables.devices.environment import STILL
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
from typing import Any

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


@pytest.mark.parametrize("number", [errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.EISDIR])
def test_a_path_that_cannot_be_used_is_refused(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        raise OSError(number, os.strerror(number), *(arguments or ()))

    assert main(["/one/place"]) == 2
    said = f"'/one/place' cannot be used ({os.strerror(number)}); give another, or mend it"
    assert capsys.readouterr().err == f"error: {said}\n"
    with pytest.raises(OSError):  # of which nobody could say what to mend
        main([])


def test_a_command_whose_streams_are_closed_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @command
    def main(arguments: list[str] | None = None) -> int:
        print("seen by nobody")
        raise BadInput("nor this")

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main([]) == 2


WAITING = """
import signal, sys, time
from trainables.command import command

@command
def main(arguments=None):
    try:
        {body}
    finally:
        print("putting away", flush=True)
        {then}
        print("put away", flush=True)
    return 0

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "nothing":
            print("begun", flush=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, sys._getframe(1))
            print("not yet", flush=True)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
            time.sleep(60)

sys.meta_path.insert(0, Finder())

class Begun:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(60)

sys.exit(main([]))
"""
BEGUN = 'print("begun", flush=True); time.sleep(60)'


def takes_signals() -> None:
    """Undo what a process that runs the tests in the background, or by ``nohup``, ignores."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def ignores_hang_ups() -> None:
    takes_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _waiting(
    tmp_path: Path,
    then: str = "pass",
    before: Callable[[], None] = takes_signals,
    body: str = BEGUN,
) -> subprocess.Popen[str]:
    """A command whose ``body`` waits until it is interrupted and which then runs the code ``then``.
    Its process begins with ``before``."""
    script = tmp_path / "waiting.py"
    script.write_text(WAITING.format(then=then, body=body))
    begun = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,  # noqa: PLW1509  # sets signals only
    )
    assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
    return begun


def test_an_interrupt_that_python_ignores_is_raised_again(tmp_path: Path) -> None:
    """An exception that is raised while ``__del__`` runs goes no further."""
    begun = _waiting(tmp_path, body="Begun(); time.sleep(60)")
    begun.send_signal(signal.SIGTERM)
    out, said = begun.communicate(timeout=30)
    assert (begun.returncode, out, said) == (143, "putting away\nput away\n", "interrupted\n")


def test_an_interrupt_waits_while_the_code_of_import_runs(tmp_path: Path) -> None:
    """Else that code keeps its lock, and a thread that imports never ends."""
    begun = _waiting(tmp_path, body="import nothing")
    out, said = begun.communicate(timeout=30)
    assert (begun.returncode, out, said) == (
        143,
        "not yet\nputting away\nput away\n",
        "interrupted\n",
    )


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_interrupts_a_command_in_order(sent: str, code: int, tmp_path: Path) -> None:
    begun = _waiting(tmp_path, then="time.sleep(0.3)")
    begun.send_signal(getattr(signal, sent))
    time.sleep(0.1)
    begun.send_signal(signal.SIGTERM)  # a second request changes nothing
    out, said = begun.communicate(timeout=30)
    assert begun.returncode == code
    seen = (out, said) != ("", "")
    assert (out, said) == (("putting away\nput away\n", "interrupted\n") if seen else ("", ""))
    assert seen == (sent != "SIGHUP"), "the terminal is gone"


def test_a_second_ctrl_c_ends_a_command_at_once(tmp_path: Path) -> None:
    begun = _waiting(tmp_path, then="time.sleep(60)")
    begun.send_signal(signal.SIGINT)
    assert begun.stdout is not None and begun.stdout.readline() == "putting away\n"
    begun.send_signal(signal.SIGINT)
    assert begun.communicate(timeout=30) == ("", "")
    assert begun.returncode == -signal.SIGINT


def test_what_the_parent_process_ignores_stays_ignored(tmp_path: Path) -> None:
    begun = _waiting(tmp_path, before=ignores_hang_ups)
    begun.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        begun.wait(0.5)
    begun.send_signal(signal.SIGTERM)
    begun.communicate(timeout=30)
    assert begun.returncode == 143


def test_a_reader_that_ends_ends_a_command_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(
        "import sys\nfrom trainables.command import command\n"
        "@command\ndef main(arguments=None):\n"
        "    for number in range(100_000):\n        print(number)\n    return 0\n"
        "sys.exit(main([]))\n"
    )
    line = shlex.join([sys.executable, str(script)])
    done = subprocess.run(
        f"{line} | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n141\n", "")


def run_in_shell(folder: Path, redirections: str, **more: str) -> tuple[int, str]:
    """Exit code of a command whose output is not empty and whose input is bad, and what it wrote to
    the streams that are left."""
    script = folder / "refused.py"
    script.write_text(
        "import os, sys\n"
        "from trainables.command import command\nfrom trainables.errors import BadInput\n"
        "@command\ndef main(arguments=None):\n"
        "    print('begun')\n    os.fstat(1), os.fstat(2)\n    raise BadInput('wrong')\n"
        "sys.exit(main([]))\n"
    )
    line = f"{shlex.join([sys.executable, str(script)])} {redirections}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more
    done = subprocess.run(
        line, shell=True, check=False, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("redirections", "written"),
    [
        (
            ">/dev/full",
            "the output cannot be written (No space left on device)\nerror: wrong\n",
        ),
        ("2>/dev/full", "begun\n"),
        (">/dev/full 2>&1", ""),
        ("2>&-", "begun\n"),
        (">&- 2>&-", ""),
        ("<&- >&- 2>&-", ""),
    ],
)
def test_output_that_cannot_be_written_changes_no_exit_code(
    redirections: str, written: str, tmp_path: Path
) -> None:
    assert run_in_shell(tmp_path, redirections) == (2, written)


@pytest.mark.parametrize("given", ["abc", "nan", "-1", "0", "inf"])
def test_a_number_of_seconds_that_cannot_be_is_refused(given: str, tmp_path: Path) -> None:
    said = f"error: {STILL} must be a number of seconds that is more than 0, got {given!r}\n"
    assert run_in_shell(tmp_path, "", **{STILL: given}) == (2, said)
    assert run_in_shell(tmp_path, "", **{STILL: ""}) == (2, "begun\nerror: wrong\n")


def test_a_device_that_nobody_can_ask_for_is_refused(tmp_path: Path) -> None:
    code, said = run_in_shell(tmp_path, "", STUDY_DEVICE="gpu")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: STUDY_DEVICE may be cpu, ") and "got 'gpu'" in said
    assert run_in_shell(tmp_path, "", STUDY_DEVICE="cpu") == (2, "begun\nerror: wrong\n")


def test_a_working_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && {sys.executable} -m study.list"
    done = subprocess.run(
        script,
        shell=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    said = "error: the working folder was removed; change to one that exists\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_user_without_a_home_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one of a container that no table of users has. MLflow fails without a home."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    assert command(lambda _: 0)([]) == 2
    said = "error: this user has no home folder; set HOME to a folder\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("HOME", "/nonexistent")
    assert command(lambda _: 0)([]) == 0


def test_python_must_keep_docstrings(tmp_path: Path) -> None:
    code, said = run_in_shell(tmp_path, "", PYTHONOPTIMIZE="2")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: Python leaves out docstrings (-OO, PYTHONOPTIMIZE=2)")
    assert run_in_shell(tmp_path, "", PYTHONOPTIMIZE="1") == (2, "begun\nerror: wrong\n")
