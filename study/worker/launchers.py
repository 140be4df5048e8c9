"""What torchrun, ``accelerate launch``, ``deepspeed``, mpirun and srun tell the processes that they
start: which one of how many each is. A study starts its processes itself, and they must not hear
of it: torch would look for a store that nobody serves, DeepSpeed would take the rank of another.
"""

from __future__ import annotations

import os

from trainables.errors import BadInput

NAMES = (
    "RANK LOCAL_RANK GROUP_RANK ROLE_RANK NODE_RANK CROSS_RANK SLURM_PROCID SLURM_LOCALID "
    "WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE ROLE_WORLD_SIZE LOCAL_SIZE CROSS_SIZE "
    "ROLE_NAME MASTER_ADDR MASTER_PORT"
).split()
PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMI_", "PMIX_")


def refuse_copies() -> None:
    """See that this process is not one of several that a launcher has started.

    Raises:
        BadInput: it is.
    """
    by, count = _launcher(), os.environ.get("WORLD_SIZE", "")
    if by and count.isdigit() and int(count) > 1:
        raise BadInput(
            f"started by {by} with {count} processes; start one, python -m study.launch ...: "
            "it starts by itself those that train a trial on several devices (--devices-per-trial)"
        )


def forget() -> None:
    """Take out of this process's environment what a launcher has told it."""
    for name in list(os.environ):
        if name in NAMES or name.startswith(PREFIXES):
            del os.environ[name]


def _launcher() -> str | None:
    """Who has started this process, of those that start a command several times to one end; mpirun
    and srun also start commands that have nothing to do with each other."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        accelerated = any(name.startswith("ACCELERATE_") for name in os.environ)
        return "accelerate launch" if accelerated else "torchrun"
    return "deepspeed" if "CROSS_SIZE" in os.environ else None
