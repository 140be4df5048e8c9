"""The manifests as a cluster would get them, and the pods that the operators would make of them."""

import functools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
SCHEMAS = INFRA.parents[1] / "shared" / "schemas"
"""Of KubeRay's and Kueue's custom resources; not in the repository."""
OVERLAYS = tuple(
    str(file.parent.relative_to(INFRA)) for file in sorted(INFRA.glob("*/overlays/*/*ization.yaml"))
)
STUDIES = tuple(name for name in OVERLAYS if name.startswith("kuberay/"))
FOLDERS = (*OVERLAYS, "kuberay/shared", "kuberay/queues")
"""Each is applied, and deleted, by ``kubectl ... -k``."""
FILES = (
    "kuberay/namespace.yaml",
    "kuberay/data.yaml",
    "mlflow/namespace.yaml",
    "mlflow/dumps.yaml",
)
"""Each is applied by ``kubectl apply -f``."""
CUSTOM = ("ray.io", "kueue.x-k8s.io")

Manifest = dict[str, Any]


@functools.cache
def _text(part: str) -> str:
    if part.endswith(".yaml"):
        return (INFRA / part).read_text()
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip('kubectl is not here: pip install -c constraints.txt -e ".[infra]"')
    done = subprocess.run(
        [kubectl, "kustomize", str(INFRA / part)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(part: str) -> list[Manifest]:
    """What ``kubectl apply`` would send of a folder or a file, each time anew."""
    return list(yaml.load_all(_text(part), yaml.CSafeLoader))


def with_shared(overlay: str) -> list[Manifest]:
    """An overlay, and what infra/README.md has applied once before it."""
    family, _, name = overlay.split("/")
    parts = [f"{family}/namespace.yaml"]
    if family == "kuberay":
        parts.append("kuberay/shared")
        if name != "first":
            parts.append("kuberay/data.yaml")
        if name == "queued":
            parts.append("kuberay/queues")
    elif name != "managed":
        parts.append("mlflow/dumps.yaml")
    return [manifest for part in (*parts, overlay) for manifest in render(part)]


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only manifest of that kind (and name)."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"]))
    return found


def set_at(path: str, value: Any) -> Callable[[Manifest], None]:
    """A change of one field: ``spec.a.0.b``."""

    def change(manifest: Manifest) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        found: Any = manifest
        for step in way:
            found = found[step]
        found[last] = value

    return change


def is_custom(manifest: Manifest) -> bool:
    return manifest["apiVersion"].split("/")[0] in CUSTOM


@dataclass(frozen=True)
class Pod:
    """A pod that some controller makes of a template."""

    owner: str
    metadata: Manifest
    spec: Manifest
    copies: int = 1

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def manifest(self) -> Manifest:
        """As a Pod of its own, for checkers that do not look into custom resources."""
        name = self.owner.lower().replace("/", "-")
        metadata = {"namespace": "medvlm", **self.metadata, "name": name}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec}


def pods(manifests: list[Manifest]) -> list[Pod]:
    """Every pod, with what KubeRay adds to a head that scales its cluster: the autoscaler."""
    return [Pod(o, t.get("metadata", {}), t["spec"], n) for o, t, n in _templates(manifests)]


def _templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, int]]:
    """(Owner, template, how many pods are made of it at most)."""
    for manifest in manifests:
        spec, owner = manifest.get("spec", {}), f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "RayJob":
            if "submitterPodTemplate" in spec:
                yield f"{owner}/submitter", spec["submitterPodTemplate"], 1
            cluster = spec["rayClusterSpec"]
            yield f"{owner}/head", _with_autoscaler(cluster), 1
            for group in cluster["workerGroupSpecs"]:
                yield f"{owner}/{group['groupName']}", group["template"], group["maxReplicas"]
        elif manifest["kind"] == "CronJob":
            yield owner, spec["jobTemplate"]["spec"]["template"], 1
        elif "template" in spec:
            yield owner, spec["template"], spec.get("replicas", 1)


def _with_autoscaler(cluster: Manifest) -> Manifest:
    head: Manifest = cluster["headGroupSpec"]["template"]
    if not cluster.get("enableInTreeAutoscaling"):
        return head
    options = cluster.get("autoscalerOptions", {})
    taken = ("resources", "securityContext", "volumeMounts", "env", "envFrom")
    autoscaler = {
        "name": "autoscaler",
        "image": options.get("image", head["spec"]["containers"][0]["image"]),
        "command": ["ray", "kuberay-autoscaler"],
        **{key: options[key] for key in taken if key in options},
    }
    containers = [*head["spec"]["containers"], autoscaler]
    return {**head, "spec": {**head["spec"], "containers": containers}}
