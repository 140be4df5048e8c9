"""Environment variables of this project, each with what it may be."""

from __future__ import annotations

import math
import os
import sys

from trainables.devices.kinds import VARIABLE
from trainables.errors import BadInput

STILL = "STUDY_STILL_SECONDS"
"""Environment variable with the seconds after which a process that is to work, and has taken no
processor time meanwhile, is taken for one that hangs."""
STILL_SECONDS = 600.0
"""These seconds where the variable is not set."""


def still_seconds() -> float:
    """Seconds after which a process that computes nothing is taken for one that hangs.

    Raises:
        BadInput: the variable is no number, or not more than 0.
    """
    given = os.environ.get(STILL, "")
    if not given:
        return STILL_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadInput(f"{STILL} must be a number of seconds that is more than 0, got {given!r}")
    return seconds


def leaves_accelerator() -> bool:
    """Whether an accelerator that trials do not share is left alone.

    Raises:
        BadInput: the variable names another device than the CPU.
    """
    given = os.environ.get(VARIABLE, "")
    if given not in ("", "cpu"):
        raise BadInput(
            f"{VARIABLE} may be cpu, which leaves an accelerator such as mps or xpu alone, got "
            f"{given!r}; unset it, and the device that PyTorch finds is used"
        )
    return given == "cpu"


def check() -> None:
    """Check what this process was started with: the variables, its folders and Python's options.

    Raises:
        BadInput: a variable is not what it may be, the working folder was removed, the user has no
            home, or Python leaves out docstrings.
    """
    still_seconds()
    leaves_accelerator()
    if sys.flags.optimize > 1:
        raise BadInput(
            "Python leaves out docstrings (-OO, PYTHONOPTIMIZE=2), which transformers needs; start "
            "it without"
        )
    if os.path.expanduser("~") == "~":  # caches lie there, and MLflow needs one
        raise BadInput("this user has no home folder; set HOME to a folder")
    try:
        os.getcwd()
    except FileNotFoundError:
        raise BadInput("the working folder was removed; change to one that exists") from None
