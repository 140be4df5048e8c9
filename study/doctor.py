"""``python -m study.doctor``: is all there that a study needs, and what to do about what is not.

With the options that the study will get: ``--address``, ``--storage``, ``--tracking-uri``.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.objects import Store, is_store
from study.ui import ARTIFACTS, default_uri
from trainables.errors import BadInput
from trainables.secrecy import Parser, guard, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from study.nodes import Node, Report

FREE_GIB = (2.0, 20.0)
"""Less is a problem; less is a warning."""
SKEW_SECONDS = (30.0, 2.0)
"""More is a problem; more is a warning."""
SLOW_SECONDS = 10.0
"""More for a run in MLflow is a warning."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look showed."""

    what: str
    said: str
    todo: str = ""
    """What to do about it; empty if it is fine."""
    stops: bool = True
    """A study would fail, or be wrong: not only be slow or puzzling."""

    @property
    def mark(self) -> str:
        """For the first column."""
        return "ok" if not self.todo else "problem" if self.stops else "warning"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 nothing stops a study, 1 something does, 2 bad input."""
    given = _parser().parse_args(arguments)
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    began, problems, warnings = time.monotonic(), 0, 0
    for finding in examine(given.address, given.storage, given.tracking_uri):
        _show(console, finding)
        problems += finding.mark == "problem"
        warnings += finding.mark == "warning"
    said = "nothing stops a study" if not problems else f"{problems} to mend before a study"
    more = f", {warnings} to know of" if warnings else ""
    console.print(f"\n{said}{more} ({time.monotonic() - began:.0f} seconds)")
    return 1 if problems else 0


def examine(address: str | None, storage: str, tracking_uri: str | None) -> Iterator[Finding]:
    """Look at everything, in the order in which one thing needs the other."""
    yield _storage(storage)
    yield _mlflow(storage, tracking_uri)
    from study import cluster, nodes, place

    try:
        place.reach(address)
        cluster.connect(address)
    except BadInput as error:
        yield Finding(what="Ray", said=str(error), todo="start it, or give another --address")
        return
    found = nodes.nodes()
    yield _room(found)
    reports = {node: nodes.ask(node, storage) for node in found}
    for node, report in reports.items():
        yield from _node(node, report)
    told = {node: r for node, r in reports.items() if not isinstance(r, str)}
    yield from _versions(told)
    yield from _clocks(told)
    if len(told) > 1:
        yield _passing(list(told), storage)
    yield from _adding(list(told))


def _storage(storage: str) -> Finding:
    what = "storage"
    try:
        if is_store(storage):
            Store(storage).check()
        else:
            folder = Path(storage)
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".doctor-{uuid.uuid4().hex}"
            probe.write_text("x", encoding="utf-8")
            probe.unlink()
    except BadInput as error:
        todo = "see that the bucket is there, and AWS_ENDPOINT_URL and the credentials are right"
        return Finding(what=what, said=str(error), todo=todo)
    except OSError as error:
        said = f"cannot write to --storage {storage}: {error.strerror}"
        return Finding(what=what, said=said, todo="give a folder that this user can write")
    return Finding(what=what, said=f"{storage} can be written from here")


def _mlflow(storage: str, uri: str | None) -> Finding:
    from study import runs

    if uri is None and is_store(storage):
        todo = "give --tracking-uri: MLflow's database cannot lie in an object store"
        return Finding(what="MLflow", said="no server is named", todo=todo)
    shown = uri or default_uri(Path(storage))
    try:
        runs.check(shown)
        took = runs.probe(shown, Path(storage) / ARTIFACTS)
    except BadInput as error:
        todo = "see that it runs and that MLFLOW_TRACKING_USERNAME and _PASSWORD are right"
        return Finding(what="MLflow", said=str(error), todo=todo)
    return Finding(
        what="MLflow",
        said=f"{shown}: a run with a metric and a file came back, {took:.1f} seconds",
        todo=""
        if took < SLOW_SECONDS
        else "studies write in the background; still, look at its database",
        stops=False,
    )


def _room(found: list[Node]) -> Finding:
    cpus, gpus = sum(n.cpus for n in found), sum(n.gpus for n in found)
    return Finding(
        what="Ray",
        said=f"{_count(len(found), 'node')}, {_count(cpus, 'processor')}, "
        f"{_count(gpus, 'CUDA device')}",
        todo=""
        if cpus or gpus
        else "no trial can run: start workers (a cluster that scales itself starts them when asked:"
        " give studies --concurrency)",
        stops=False,
    )


def _node(node: Node, report: Report | str) -> Iterator[Finding]:
    if isinstance(report, str):
        yield Finding(
            what=node.name,
            said=f"does not answer: {report}",
            todo="the same image, or the same packages and PYTHONPATH, on all nodes; "
            "otherwise look at its raylet.out",
        )
        return
    has = f"{_count(node.cpus, 'processor')}"
    if node.gpus:
        has += f", {'; '.join(report.devices) or 'no CUDA device that torch sees'}"
    blind = len(report.devices) < node.gpus
    yield Finding(
        what=node.name,
        said=has,
        todo=f"Ray counts {node.gpus} CUDA devices, torch {len(report.devices)}: "
        "look at the driver (nvidia-smi), and at torch.version.cuda"
        if blind
        else "",
    )
    if report.home:
        yield Finding(
            what=f"{node.name} home",
            said=f"cannot be written: {report.home}",
            todo="set HOME, or XDG_CACHE_HOME: decoded images are kept there",
            stops=False,
        )
    for folder, free in report.free_gib.items():
        if free < max(FREE_GIB):
            yield Finding(
                what=f"{node.name} disk",
                said=f"{free:.1f} GiB free in {folder}",
                todo="make room: checkpoints and decoded images are kept there",
                stops=free < min(FREE_GIB),
            )


def _versions(reports: dict[Node, Report]) -> Iterator[Finding]:
    if not reports:
        return
    from study import nodes

    here = nodes.versions()
    differ = [
        f"{name} is {report.versions[name]} on {node.name} and {here[name]} here"
        for node, report in reports.items()
        for name in here
        if report.versions[name] != here[name]
    ]
    todo = "the same image or checkout everywhere, and constraints.txt installed: the same trial "
    todo += "gives other numbers otherwise"
    same = ", ".join(f"{name} {here[name]}" for name in ("python", "torch", "ray"))
    if differ:
        yield from (Finding(what="versions", said=line, todo=todo) for line in differ)
    else:
        yield Finding(what="versions", said=f"the same everywhere: {same}, ...")


def _clocks(reports: dict[Node, Report]) -> Iterator[Finding]:
    worst = 0.0
    for node, report in reports.items():
        skew = abs(report.clock - report.asked_at) - report.doubt_seconds
        worst = max(worst, skew)
        if skew > min(SKEW_SECONDS):
            yield Finding(
                what="clocks",
                said=f"{node.name} is {skew:.0f} seconds off",
                todo="let NTP set it: times in MLflow are wrong, and S3 refuses requests",
                stops=skew > max(SKEW_SECONDS),
            )
    if reports and worst <= min(SKEW_SECONDS):
        yield Finding(what="clocks", said=f"at most {max(worst, 0.01):.2f} seconds apart")


def _passing(told: list[Node], storage: str) -> Finding:
    from study import nodes

    where = storage if is_store(storage) else str(Path(storage).resolve())
    wrong = nodes.pass_on(told, where, uuid.uuid4().hex)
    todo = (
        "give all nodes the same credentials and AWS_ENDPOINT_URL"
        if is_store(storage)
        else "mount the same folder at the same place on all nodes, or give --storage s3://..."
    )
    if wrong:
        return Finding(what="shared storage", said="; ".join(wrong), todo=todo)
    return Finding(what="shared storage", said="each node reads what each node wrote")


def _adding(told: list[Node]) -> Iterator[Finding]:
    from study import nodes

    if not any(n.gpus for n in told) and sum(n.cpus > 0 for n in told) < 2:
        return
    kind = "NCCL" if any(n.gpus for n in told) else "Gloo"
    if taken := nodes.gpus_in_use(told):
        yield Finding(
            what=kind,
            said=f"not tried: {_count(taken, 'CUDA device')} in use",
            todo="look again when no study runs",
            stops=False,
        )
        return
    error = nodes.add_up(told)
    yield Finding(
        what=kind,
        said=error or "all add up to the same sum",
        todo=f"{nodes.LINK.format(kind.upper())}; without it no trial can use several devices"
        if error
        else "",
        stops=False,
    )


def _show(console: Console, finding: Finding) -> None:
    from rich.markup import escape

    colour = {"ok": "green", "warning": "yellow", "problem": "red"}[finding.mark]
    said = escape(without_secrets(finding.said))
    console.print(f"[{colour}]{finding.mark:8}[/] {escape(finding.what)}: {said}", soft_wrap=True)
    if finding.todo:
        console.print(f"{'':8} -> {escape(finding.todo)}", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m study.doctor",
        description="See whether all is there that a study needs, with the options it will get.",
    )
    parser.add_argument("--address", help="a Ray cluster, or 'auto' [start one here]")
    parser.add_argument("--storage", default="studies", metavar="DIR|s3://...", help="[studies]")
    parser.add_argument("--tracking-uri", metavar="URI", help="an MLflow store [in --storage]")
    return parser


if __name__ == "__main__":
    guard()
    sys.exit(main())
