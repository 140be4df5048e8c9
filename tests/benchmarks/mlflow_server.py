"""``python -m tests.benchmarks.mlflow_server``: reports of many studies at once to one server.

The server is the one of infra/mlflow: passwords, PostgreSQL, files in an object store. A client is
a study's driver, a process of its own, and a report is one ``log_batch`` of ten metrics, as
study.tracking.mlflow_writer writes a rung's. Studies write in a thread, off their critical path.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.study.object_store import serve
from tests.study.stack import mlflow_server, postgres

CLIENTS = (1, 8)
SERVERS = ((1, 0), (1, 60), (4, 60))
"""Processes, and seconds for which they remember that a password was right."""
REPORTS = 15
METRICS = 10


def client(environment: dict[str, str], number: int) -> list[float]:
    """The seconds that each report took."""
    os.environ.update(environment)
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    mlflow = MlflowClient()
    experiment = mlflow.create_experiment(f"client {number} at {time.time_ns()}")
    run = mlflow.create_run(experiment).info.run_id
    took = []
    for step in range(REPORTS):
        now = int(time.time() * 1000)
        metrics = [Metric(f"m{i}", float(step), now, step) for i in range(METRICS)]
        began = time.perf_counter()
        mlflow.log_batch(run, metrics=metrics)
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    columns = (
        "server processes",
        "password remembered s",
        "studies",
        "reports/s",
        "median s",
        "95% s",
        "worst s",
    )
    table = Table(*columns, "server's processor ms a report")
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as name,
        serve("mlflow") as store,
        postgres(Path(name, "postgres.log")) as database,
        spawn.Pool(max(CLIENTS)) as pool,
    ):
        for number, (workers, remember) in enumerate(SERVERS):
            database.call("createdb", f"m{number}")
            uri, home = database.uri(f"m{number}"), Path(name, f"m{number}")
            with mlflow_server(home, uri, store, workers=workers, remember=remember) as server:
                server.start()
                everybody = [(server.client, i) for i in range(max(CLIENTS))]
                pool.starmap(client, everybody, chunksize=1)  # imports, and first requests
                for clients in CLIENTS:
                    began, used = time.perf_counter(), server.processor_seconds()
                    found = pool.starmap(client, everybody[:clients], chunksize=1)
                    seconds = time.perf_counter() - began
                    used = server.processor_seconds() - used
                    took = sorted(second for each in found for second in each)
                    figures = (statistics.median(took), took[int(len(took) * 0.95)], took[-1])
                    table.add_row(
                        str(workers),
                        str(remember),
                        str(clients),
                        f"{len(took) / seconds:.0f}",
                        *(f"{figure:.3f}" for figure in figures),
                        f"{used / len(took) * 1000:.0f}",
                    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
