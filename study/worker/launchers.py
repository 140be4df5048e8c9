"""Environment variables of launchers: torchrun, accelerate, deepspeed, mpirun and srun.

A launcher starts several processes and tells each its rank in the environment. A study starts its
processes itself, and these must not inherit such variables: torch would wait for a store that
nobody serves, and DeepSpeed would take another process's rank.
"""

from __future__ import annotations

import os

from trainables.errors import BadInput

NAMES = (
    "RANK LOCAL_RANK GROUP_RANK ROLE_RANK NODE_RANK CROSS_RANK SLURM_PROCID SLURM_LOCALID "
    "WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE ROLE_WORLD_SIZE LOCAL_SIZE CROSS_SIZE "
    "ROLE_NAME MASTER_ADDR MASTER_PORT"
).split()
"""Names of variables that launchers set."""
PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMI_", "PMIX_")
"""Starts of the names of further variables that launchers set."""


def refuse_copies() -> None:
    """Check that this process is not one of several that a launcher has started.

    Raises:
        BadInput: it is one of several.
    """
    by, count = _launcher(), os.environ.get("WORLD_SIZE", "")
    if by and count.isdigit() and int(count) > 1:
        raise BadInput(
            f"started by {by} with {count} processes; start one, python -m study.launch ...: "
            "it starts by itself those that train a trial on several devices (--devices-per-trial)"
        )


def forget() -> None:
    """Remove the variables that a launcher has set from this process's environment."""
    for name in list(os.environ):
        if name in NAMES or name.startswith(PREFIXES):
            del os.environ[name]


def _launcher() -> str | None:
    """Name of the launcher that has started this process; None if there is none. mpirun and srun do
    not count: they also start commands that have nothing to do with each other."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        accelerated = any(name.startswith("ACCELERATE_") for name in os.environ)
        return "accelerate launch" if accelerated else "torchrun"
    return "deepspeed" if "CROSS_SIZE" in os.environ else None
