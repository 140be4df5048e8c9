"""``python -m study.ui``: MLflow's page on the studies of a storage folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

STORE = "mlflow.db"


def default_uri(storage: Path) -> str:
    """The MLflow store inside a storage folder."""
    return f"sqlite:///{(storage / STORE).resolve()}"


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m study.ui", description=__doc__)
    parser.add_argument("--storage", type=Path, default=Path("studies"), metavar="DIR")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: the store in --storage")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    if given.tracking_uri is None and not (given.storage / STORE).is_file():
        print(f"no studies in {given.storage}; python -m study.launch makes one", file=sys.stderr)
        return 2
    uri = given.tracking_uri or default_uri(given.storage)
    # The job runner and its consumers serve MLflow's GenAI features only, at 240 MB a process.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    os.execv(sys.executable, [*command, "--port", str(given.port)])


if __name__ == "__main__":
    sys.exit(main())
