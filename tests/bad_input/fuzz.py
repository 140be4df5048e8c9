"""Damages the files of every reader at random and lets it read them.

    python -m tests.bad_input.fuzz --seconds 600          # a seed by chance
    python -m tests.bad_input.fuzz --reader journal       # readers whose names have this
    python -m tests.bad_input.fuzz --seed 3 --only 117 --reader 'list'   # one execution again

A reader may take a file or refuse it in one line (``BadInput``; a command with exit code 2). All
else is a finding: it is shown once for each place in the code, and its file is kept. Readers get
about the same time each. A seed decides which files a reader is given, one after another, so that
a run of the same seed differs only in how many of them it comes to. The exit code is 1 if anything
was found.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.bad_input import readers
from tests.bad_input.readers import Reader
from trainables.command import NO_MEMORY
from trainables.errors import BadInput

LONGEST_SECONDS = 60
"""Seconds that a reader may take for a file. The slowest take half a second, and several on
a machine that does much else."""
ROOT = Path(__file__).parents[2]


@dataclass(kw_only=True)
class Fuzzing:
    """What was tried and found."""

    seed: int
    tried: Counter[str] = field(default_factory=Counter)
    """Reader -> files that it was given."""
    refused: Counter[str] = field(default_factory=Counter)
    """Reader -> files that it refused."""
    found: set[str] = field(default_factory=set)
    """Kinds of findings."""


def fuzz(
    here: Path, every: list[Reader], fuzzing: Fuzzing, seconds: float, only: int | None = None
) -> None:
    """Let the readers of the files in ``here`` read damaged ones, as long as time is left."""
    spent = dict.fromkeys((reader.name for reader in every), 0.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reader = min(every, key=lambda each: spent[each.name])
        number = only or fuzzing.tried[reader.name] + 1
        chance = random.Random(f"{fuzzing.seed}:{reader.name}:{number}")
        file = here / reader.file
        sound, began = file.read_bytes(), time.monotonic()
        file.write_bytes(chance.choice(reader.mutations)(sound, chance))
        try:
            finding = execute(reader, here, fuzzing)
            if finding:
                # One of a kind: the same error at the same place, whatever it quotes.
                kind = f"{finding.partition(':')[0]} {finding.partition(chr(10))[2]}"
                if kind not in fuzzing.found:
                    kept = here / "found" / f"{len(fuzzing.found)}-{file.name}"
                    kept.parent.mkdir(exist_ok=True)
                    kept.write_bytes(file.read_bytes())
                    again = f"--seed {fuzzing.seed} --only {number} --reader {reader.name!r}"
                    print(f"\n{again}, kept as {kept}\n{finding}", flush=True)
                fuzzing.found.add(kind)
        finally:
            file.write_bytes(sound)
        spent[reader.name] += time.monotonic() - began
        if only is not None:
            return


def execute(reader: Reader, here: Path, fuzzing: Fuzzing) -> str:
    """Let a reader read; what is wrong with how it answers, empty if nothing is."""
    fuzzing.tried[reader.name] += 1
    out, errors = io.StringIO(), io.StringIO()
    signal.alarm(LONGEST_SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = reader.read(here)
    except BadInput as error:
        fuzzing.refused[reader.name] += 1
        return _of_line(str(error))
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [
            f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(str(ROOT)) and "bad_input" not in frame.filename
        ]
        line = " ".join(str(error).split())[:200]
        name_too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        if name_too_long or NO_MEMORY in line:  # a command says so in a line
            fuzzing.refused[reader.name] += 1
            return ""
        return f"{type(error).__name__}: {line}\n  at {' < '.join(reversed(frames[-3:]))}"
    finally:
        signal.alarm(0)
    if isinstance(code, int) and code:
        fuzzing.refused[reader.name] += 1
        said = errors.getvalue()
        if code != 2 or not said.startswith("error: ") or not said.endswith("\n"):
            return f"exit code {code}: {said[:300]}"
        return _of_line(said.removesuffix("\n"))
    return ""


def _of_line(line: str) -> str:
    """What is wrong with a refusal, empty if nothing is."""
    return "" if line.isprintable() else f"not one printable line: {line[:300]!r}"


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {LONGEST_SECONDS} seconds")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bad_input.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", type=int, help="number of the execution to repeat")
    parser.add_argument("--reader", default="", help="part of the names of the readers to try")
    given = parser.parse_args(arguments)
    print(f"--seed {given.seed}", flush=True)
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    logging.disable()
    fuzzing = Fuzzing(seed=given.seed)
    here = Path(tempfile.mkdtemp(prefix="fuzz-"))
    every = [reader for reader in readers.build(here) if given.reader in reader.name]
    for reader in every:
        if finding := execute(reader, here, Fuzzing(seed=0)):
            print(f"{reader.name} refuses the sound file: {finding}")
            return 1
    fuzz(here, every, fuzzing, given.seconds, given.only)
    for reader in every:
        name = reader.name
        print(f"{name:<40}{fuzzing.tried[name]:>8} files{fuzzing.refused[name]:>8} refused")
    print(f"{fuzzing.tried.total()} files, {fuzzing.refused.total()} refused in one line, ", end="")
    print(f"{len(fuzzing.found)} kinds of findings in {here}")
    return 1 if fuzzing.found else 0


if __name__ == "__main__":
    sys.exit(main())
