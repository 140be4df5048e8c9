"""Asks the nodes of a Ray cluster about themselves, by tasks that run on them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorClass
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.planning.provenance import PACKAGES
from study.storage.object_store import ObjectStore, is_store
from study.storage.paths import real_path
from study.worker import launchers
from trainables.cache import folders as cache_folders
from trainables.secrecy import without_secrets

GIVE_UP_SECONDS = 120
"""Longest time in seconds to wait for a task on a node."""
TEST_FILES = ".doctor-"
"""Start of the name of what the checks write into the storage."""
COLLECTIVE_SECONDS = 90
"""Timeout in seconds of the processes that add a number up."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster, as Ray's head knows it."""

    id: str
    name: str
    """Host name and address."""
    cpus: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """A node's report about itself."""

    versions: Mapping[str, str]
    """Versions on the node, as the function ``versions`` returns them."""
    devices: Sequence[str]
    """Accelerators that PyTorch finds, each with its name and memory."""
    kind: str
    """Kind of these devices, as PyTorch calls it; ``cpu`` if there is none."""
    free_gib: Mapping[str, float]
    """Folder -> free disk space in GiB."""
    clock: float
    """Time by the node's clock, in seconds since 1970."""
    home: str
    """Reason why the home folder cannot be written; empty if it can."""
    asked_at: float = field(default=0.0)
    """Driver's time in seconds since 1970 when the node read its clock, up to ``doubt_seconds``."""
    doubt_seconds: float = field(default=0.0)
    """Half the time that question and answer were on their way."""


def versions() -> dict[str, str]:
    """Versions on this machine of all that numbers depend on: Python, packages, and a digest of
    this project's code."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    root, code = Path(__file__).parents[2], hashlib.sha256()
    for package in ("search_spaces", "study", "trainables"):
        for file in sorted((root / package).rglob("*.py")):
            code.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return found | {"this project's code": code.hexdigest()[:12]}


def nodes() -> list[Node]:
    """All living nodes of the cluster, the head first."""
    told: list[dict[str, Any]] = ray.nodes()
    living = [node for node in told if node["Alive"]]
    living.sort(key=lambda n: ("node:__internal_head__" not in n["Resources"], n["NodeName"]))
    return [
        Node(
            id=node["NodeID"],
            name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in living
    ]


def ask(node: Node, storage: str) -> NodeReport | str:
    """The report of a node or, in one line, why there is none."""
    began = time.time()
    answer = _on(node, _report, storage)
    ended = time.time()
    if isinstance(answer, str):
        return answer
    took = ended - began
    doubt = (took - answer.pop("seconds")) / 2
    return NodeReport(**answer, asked_at=ended - doubt, doubt_seconds=doubt)


def pass_on(nodes: Sequence[Node], storage: str, token: str) -> list[str]:
    """Let every node write to the storage, and read what all nodes wrote; return all errors."""
    wrong, wrote = [], []
    for node in nodes:
        said = _on(node, _write, storage, token, node.id)
        if said:
            wrong.append(f"{node.name} cannot write: {said}")
        else:
            wrote.append(node)
    for node in nodes:
        lacks = _on(node, _missing, storage, token, [other.id for other in wrote])
        if isinstance(lacks, str):
            wrong.append(f"{node.name} cannot read: {lacks}")
        for other in wrote:
            if other.id in (lacks if isinstance(lacks, list) else ()):
                wrong.append(f"{node.name} does not see what {other.name} wrote")
    _on(nodes[0], _clean, storage, token)
    return wrong


def gpus_in_use(nodes: Sequence[Node]) -> int:
    """Number of GPUs that somebody holds."""
    free: dict[str, float] = ray.available_resources()
    return sum(node.gpus for node in nodes) - int(free.get("GPU", 0))


def add_up(nodes: Sequence[Node]) -> str:
    """Let all accelerators add a number up or, without any, one process of each node. Return why it
    failed; empty if it did not."""
    gpus = any(node.gpus for node in nodes)
    places = [node for node in nodes for _ in range(node.gpus if gpus else bool(node.cpus))]
    if len(places) < 2 and not gpus:
        return ""
    rank: ActorClass[Any] = ray.remote(_Rank)
    actors: list[Any] = [
        rank.options(num_cpus=0, num_gpus=int(gpus), scheduling_strategy=_strategy(node)).remote()
        for node in places
    ]
    try:
        address = ray.get(actors[0].address.remote(), timeout=GIVE_UP_SECONDS)
        sums = [a.add.remote(address, i, len(actors), gpus) for i, a in enumerate(actors)]
        found = ray.get(sums, timeout=GIVE_UP_SECONDS)
    except (RayError, TimeoutError) as error:
        return _last_line(error)
    finally:
        for actor in actors:
            ray.kill(actor)
    wanted = len(actors) * (len(actors) + 1) / 2
    return "" if found == [wanted] * len(actors) else f"they got {found} and not {wanted} each"


def _on(node: Node, task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task on a node; return its result, or the last line of its error."""
    remote = ray.remote(task).options(
        num_cpus=0, scheduling_strategy=_strategy(node), max_retries=0
    )
    try:
        return ray.get(remote.remote(*arguments), timeout=GIVE_UP_SECONDS)
    except (RayError, TimeoutError, OSError) as error:
        return _last_line(error)


def _strategy(node: Node) -> NodeAffinitySchedulingStrategy:
    """Ray's scheduling strategy that allows one node only."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return without_secrets(lines[-1])[:300]


def _report(storage: str) -> dict[str, Any]:
    """Fields of a ``NodeReport`` that a node knows, and the seconds that it took to find them."""
    began = time.time()
    from trainables.devices import accelerator

    folders = [tempfile.gettempdir(), *map(str, cache_folders.folders()[:1])]
    folders += [] if is_store(storage) else [storage]
    free = {folder: shutil.disk_usage(_existing(folder)).free / 2**30 for folder in folders}
    home = ""
    try:
        tempfile.TemporaryFile(dir=os.path.expanduser("~")).close()
    except OSError as error:
        home = str(error.strerror)
    return {
        "versions": versions(),
        "devices": [f"{found.name}, {found.gib:.0f} GiB" for found in accelerator.accelerators()],
        "kind": accelerator.kind(),
        "free_gib": free,
        "home": home,
        "clock": time.time(),
        "seconds": time.time() - began,
    }


def _existing(folder: str) -> Path:
    """The folder, or its nearest parent that exists."""
    path = real_path(folder)
    return next(p for p in (path, *path.parents) if p.exists())


def _write(storage: str, token: str, name: str) -> str:
    """Write a file of this node to the storage; return why it failed, empty if it did not."""
    content = f"{token} {name}"
    try:
        if is_store(storage):
            ObjectStore(storage).write(f"{TEST_FILES}{token}/{name}", content.encode())
        else:
            folder = Path(storage) / f"{TEST_FILES}{token}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
    except (OSError, ValueError) as error:
        return _last_line(error)
    return ""


def _missing(storage: str, token: str, names: list[str]) -> list[str]:
    """Read the files of nodes in the storage; return the names of nodes whose file is missing or is
    another than they wrote."""
    lacking = []
    for name in names:
        if is_store(storage):
            content = ObjectStore(storage).read(f"{TEST_FILES}{token}/{name}") or b""
        else:
            file = Path(storage) / f"{TEST_FILES}{token}" / name
            content = file.read_bytes() if file.exists() else b""
        if content.decode() != f"{token} {name}":
            lacking.append(name)
    return lacking


def _clean(storage: str, token: str) -> str:
    """Delete the files of all nodes from the storage."""
    if is_store(storage):
        ObjectStore(storage).drop(f"{TEST_FILES}{token}")
    else:
        shutil.rmtree(Path(storage) / f"{TEST_FILES}{token}", ignore_errors=True)
    return ""


class _Rank:
    """One of several processes that add a number up."""

    def address(self) -> str:
        """An address on this node at which rank 0 can be reached."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            port = listener.getsockname()[1]
        address = ray.util.get_node_ip_address()
        return f"tcp://{address}:{port}"

    def add(self, address: str, rank: int, ranks: int, gpus: bool) -> float:
        """The sum over all ranks, on their GPUs or processors: 1 to ``ranks`` added up, if all goes
        well."""
        from datetime import timedelta

        import torch
        from torch import distributed

        from trainables.devices import accelerator, kinds

        kind = accelerator.kind() if gpus else "cpu"
        launchers.forget()
        distributed.init_process_group(
            kinds.backend(kind),
            init_method=address,
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
        number = torch.tensor(float(rank + 1), device=kind)
        distributed.all_reduce(number)
        distributed.destroy_process_group()
        return float(number)
