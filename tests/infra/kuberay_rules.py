"""What KubeRay 1.7's operator refuses, beyond what its definitions say: a RayJob that breaks one of
these is taken by the API server and then stands still.

After ray-operator/controllers/ray/utils/validation.go.
"""

import re
from collections.abc import Iterator
from typing import Any

Spec = dict[str, Any]

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""DNS-1035."""
LONGEST_NAME = 47
IN_START_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")


def complaints(job: Spec) -> list[str]:
    """One line for each rule that the RayJob breaks."""
    name, spec = job["metadata"]["name"], job["spec"]
    found = []
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        found.append(f"name {name!r} must be DNS-1035 of at most {LONGEST_NAME} letters")
    return [*found, *_job(spec), *_cluster(spec.get("rayClusterSpec") or {})]


def _job(spec: Spec) -> Iterator[str]:
    selects, mode = bool(spec.get("clusterSelector")), spec.get("submissionMode", "K8sJobMode")
    shuts_down = spec.get("shutdownAfterJobFinishes", False)
    if not selects and "rayClusterSpec" not in spec:
        yield "one of rayClusterSpec and clusterSelector must be set"
    if spec.get("suspend") and not shuts_down:
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("suspend") and selects:
        yield "suspend does not go with clusterSelector"
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        yield "ttlSecondsAfterFinished must not be negative"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not shuts_down:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if spec.get("backoffLimit", 0) > 0 and (selects or mode == "InteractiveMode"):
        yield "backoffLimit does not go with clusterSelector or InteractiveMode"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "activeDeadlineSeconds must be positive"
    deletion = spec.get("deletionStrategy", {})
    legacy = {"onSuccess", "onFailure"} & set(deletion)
    if "deletionRules" in deletion and (shuts_down or legacy):
        yield "deletionRules goes neither with shutdownAfterJobFinishes nor onSuccess, onFailure"
    scales = spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling")
    policies = [rule["policy"] for rule in deletion.get("deletionRules", ())]
    policies += [deletion[key]["policy"] for key in legacy]
    if "DeleteWorkers" in policies and scales:
        yield "DeleteWorkers does not go with autoscaling"
    if mode == "SidecarMode":
        if selects or {"submitterPodTemplate", "submitterConfig"} & set(spec):
            yield "SidecarMode takes no submitterPodTemplate, submitterConfig or clusterSelector"
        if _restart(spec["rayClusterSpec"]["headGroupSpec"]) not in (None, "Never"):
            yield "SidecarMode wants restartPolicy Never for the head"


def _cluster(cluster: Spec) -> Iterator[str]:
    if not cluster:
        return
    groups, scales = cluster.get("workerGroupSpecs", ()), cluster.get("enableInTreeAutoscaling")
    version = _version(cluster.get("rayVersion", ""))
    # Version 2 is the default from Ray 2.47 on.
    options = cluster.get("autoscalerOptions", {})
    second = scales and options.get("version", "v2" if version >= (2, 47) else "v1") == "v2"
    for group in (cluster["headGroupSpec"], *groups):
        name, parameters = group.get("groupName", "head"), group.get("rayStartParams", {})
        if not group["template"]["spec"].get("containers"):
            yield f"{name} has no container"
        if group.get("resources") and set(IN_START_PARAMETERS) & set(parameters):
            yield f"{name}: resources stand in rayStartParams or in resources, not in both"
        if "labels" in parameters:
            yield f"{name}: rayStartParams['labels'] is refused; use labels"
        if second and _restart(group) not in (None, "Never"):
            yield f"{name}: autoscaler v2 wants restartPolicy Never"
    names = [group["groupName"] for group in groups]
    if len(names) != len(set(names)):
        yield "groups share a name"
    for group in groups:
        name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
        if least is None or most is None:
            yield f"{name}: minReplicas and maxReplicas are both needed"
        elif least > most:
            yield f"{name}: minReplicas {least} is more than maxReplicas {most}"
        if group.get("suspend") and scales:
            yield f"{name}: a group that scales cannot be suspended"
        if "priority" in group and (version < (2, 56) or not second):
            yield f"{name}: priority needs Ray 2.56 and autoscaler v2"
    auth = cluster.get("authOptions", {})
    if auth.get("mode") == "token" and version < (2, 52):
        yield "authOptions.mode token needs rayVersion 2.52 or later"
    if auth.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is for a RayCluster of its own"
    for gated in ("networkPolicy", "tlsOptions"):
        if gated in cluster:
            yield f"{gated} needs a feature gate that is off by default"


def _restart(group: Spec) -> str | None:
    found: str | None = group["template"]["spec"].get("restartPolicy")
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
