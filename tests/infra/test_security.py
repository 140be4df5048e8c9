"""What a cluster should never be sent: pods that may do more than they must, an open network."""

from typing import Any

import pytest

from tests.infra.manifests import OVERLAYS, one, pods, render, set_at, with_shared
from tests.infra.unsafe import UNSAFE


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_unsafe(overlay: str) -> None:
    manifests = with_shared(overlay)
    found = [(p.owner, what) for p in pods(manifests) for what, has in UNSAFE.items() if has(p)]
    assert found == []
    space = one(manifests, "Namespace")
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not [m for m in manifests if m["kind"] in ("Secret", "Role", "ClusterRole")]


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("hostNetwork", True, "the host's network, processes or memory"),
        ("volumes.0", {"name": "scratch", "hostPath": {"path": "/"}}, "a volume that restricted"),
        ("volumes.0", {"name": "scratch", "emptyDir": {}}, "a volume without a limit"),
        ("securityContext.runAsUser", 0, "root"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "no seccomp profile"),
        ("containers.0.securityContext.capabilities", {"add": ["IPC_LOCK"]}, "privileges"),
        ("containers.0.securityContext", {}, "a root file system that can be written"),
        ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "a port of the host"),
        ("containers.0.resources.limits", {"cpu": 1}, "no limit of processors, memory or disk"),
        ("containers.0.resources.requests.cpu", "1", "GPUs asked for otherwise"),
        ("containers.0.image", "medvlm-study", "an image without a version"),
        ("containers.0.env", [{"name": "RAY_AUTH_TOKEN", "value": "x"}], "a password in plain"),
        ("automountServiceAccountToken", True, "the key to the Kubernetes API"),
        (
            "containers.0.volumeMounts.0.mountPath",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "the key to the Kubernetes API",
        ),
    ],
)
def test_an_unsafe_pod_is_found(path: str, value: Any, what: str) -> None:
    (pod,) = [p for p in pods(render("kuberay/overlays/small")) if p.owner.endswith("/gpu")]
    set_at(path, value)(pod.spec)
    assert [key for key, has in UNSAFE.items() if key.startswith(what) and has(pod)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_is_closed_but_for_what_must_pass(overlay: str) -> None:
    manifests = with_shared(overlay)
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    denied = one(policies, "NetworkPolicy", "deny-all")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for direction, peer in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                where = f"{policy['metadata']['name']} {direction}"
                assert rule.get(peer), f"{where} lets everybody pass"
                assert rule.get("ports"), f"{where} opens every port"
                if direction == "ingress":
                    assert all("ipBlock" not in source for source in rule[peer]), where
