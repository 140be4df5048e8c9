"""What no pod should have: Pod Security's ``restricted``, and more."""

from collections.abc import Callable

from tests.infra.manifests import Pod

UNSAFE: dict[str, Callable[[Pod], bool]] = {
    "the host's network, processes or memory": lambda pod: any(
        pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")
    ),
    "a volume that restricted forbids": lambda pod: any(
        not {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"} & set(volume)
        for volume in pod.spec.get("volumes", ())
    ),
    "root": lambda pod: (
        pod.spec["securityContext"].get("runAsNonRoot") is not True
        or pod.spec["securityContext"].get("runAsUser", 0) == 0
    ),
    "no seccomp profile": lambda pod: (
        pod.spec["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}
    ),
    "privileges": lambda pod: any(
        c.get("securityContext", {}).get("allowPrivilegeEscalation") is not False
        or c["securityContext"].get("privileged")
        or c["securityContext"].get("capabilities") != {"drop": ["ALL"]}
        for c in pod.containers
    ),
    "a root file system that can be written": lambda pod: any(
        c.get("securityContext", {}).get("readOnlyRootFilesystem") is not True
        for c in pod.containers
    ),
    "a port of the host": lambda pod: any(
        "hostPort" in port for c in pod.containers for port in c.get("ports", ())
    ),
    "no limit of processors, memory or disk": lambda pod: any(
        not {"cpu", "memory", "ephemeral-storage"} <= set(c["resources"].get(kind, ()))
        for c in pod.containers
        for kind in ("requests", "limits")
    ),
    "GPUs asked for otherwise than limited": lambda pod: any(
        "nvidia.com/gpu" in c["resources"]["limits"]
        and c["resources"]["requests"] != c["resources"]["limits"]
        for c in pod.containers
    ),
    "an image without a version": lambda pod: any(
        ":" not in c["image"].rsplit("/")[-1] or c["image"].endswith(":latest")
        for c in pod.containers
    ),
    "a password in plain sight": lambda pod: any(
        "value" in variable
        and any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY"))
        for c in pod.containers
        for variable in c.get("env", ())
    ),
    "a volume without a limit": lambda pod: any(
        "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]
        for volume in pod.spec.get("volumes", ())
    ),
    "the key to the Kubernetes API": lambda pod: (
        pod.spec.get("automountServiceAccountToken") is not False
        or any(
            mount["mountPath"].startswith("/var/run/secrets/kubernetes.io")
            for c in pod.containers
            for mount in c.get("volumeMounts", ())
            if c["name"] != "autoscaler"
        )
    ),
}
"""What no pod has -> whether this one has it. The first seven are Pod Security's ``restricted``."""
