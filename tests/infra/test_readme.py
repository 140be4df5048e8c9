"""infra/README.md: its steps, and those of its commands that need no cluster, which are run."""

import base64
import configparser
import json
import re
import shutil
import subprocess

import pytest

from tests.infra.manifests import FILES, FOLDERS, INFRA, OVERLAYS, Manifest, Pod, pods, with_shared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, str]]:
    """(namespace, secret) -> what is in it, as the README's commands make them."""
    if shutil.which("kubectl") is None or shutil.which("openssl") is None:
        pytest.skip("kubectl or openssl is not here")
    step = (INFRA / "README.md").read_text().split("**3. Namespaces and secrets.**")[1]
    commands = re.findall(r"```\n(.*?)```", step, flags=re.DOTALL)[0]
    # All but the last word of kubectl's, which would be the API server's (and all of `apply`'s).
    shell = """set -eu
    kubectl() { [ "$1" = apply ] || command kubectl "$@" --dry-run=client --output=json; }
    """
    folder = tmp_path_factory.mktemp("secrets")
    done = subprocess.run(
        ["bash", "-c", shell + commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert list(folder.iterdir()) == [], "a secret is left on disk"
    found = {}
    for manifest in documents(done.stdout):
        if manifest["kind"] == "Secret":
            key = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
            found[key] = {
                name: base64.b64decode(value).decode() for name, value in manifest["data"].items()
            }
    return found


def documents(text: str) -> list[Manifest]:
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


def asked(pod: Pod) -> dict[str, set[str]]:
    """Secret -> the keys of it that a pod names."""
    wanted: dict[str, set[str]] = {}
    for container in pod.containers:
        for source in container.get("envFrom", ()):
            wanted.setdefault(source["secretRef"]["name"], set())
        for variable in container.get("env", ()):
            if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                wanted.setdefault(key["name"], set()).add(key["key"])
    for volume in pod.spec.get("volumes", ()):
        if "secret" in volume:
            wanted.setdefault(volume["secret"]["secretName"], set())
    return wanted


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_that_is_asked_for_is_made(
    overlay: str, made: dict[tuple[str, str], dict[str, str]]
) -> None:
    manifests = with_shared(overlay)
    (space,) = [m["metadata"]["name"] for m in manifests if m["kind"] == "Namespace"]
    needed: dict[str, set[str]] = {}
    for pod in pods(manifests):
        for name, keys in asked(pod).items():
            needed.setdefault(name, set()).update(keys)
    for manifest in manifests:
        if manifest["kind"] == "RayJob":
            needed[manifest["spec"]["rayClusterSpec"]["authOptions"]["secretName"]] = {"auth_token"}
    for name, keys in needed.items():
        assert keys <= set(made[space, name]), f"{name} lacks {keys - set(made[space, name])}"
    postgres = {"mlflow-postgres"} if space == "mlflow" else set()  # a managed one has its own
    assert {n for s, n in made if s == space} - postgres == set(needed) - postgres


def test_what_belongs_together_agrees(made: dict[tuple[str, str], dict[str, str]]) -> None:
    server, study = made["mlflow", "mlflow-server"], made["medvlm-study", "study-mlflow"]
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(made["mlflow", "mlflow-auth"]["basic_auth.ini"])
    uri = server["MLFLOW_BACKEND_STORE_URI"]
    assert settings["mlflow"]["database_uri"] == uri
    assert made["mlflow", "mlflow-postgres"]["POSTGRES_PASSWORD"] in uri
    assert study["MLFLOW_TRACKING_USERNAME"] != settings["mlflow"]["admin_username"]
    assert study["MLFLOW_TRACKING_PASSWORD"] == server["MLFLOW_STUDY_PASSWORD"]
    drawn = [
        server["MLFLOW_AUTH_ADMIN_PASSWORD"],
        server["MLFLOW_STUDY_PASSWORD"],
        server["MLFLOW_FLASK_SERVER_SECRET_KEY"],
        made["mlflow", "mlflow-postgres"]["POSTGRES_PASSWORD"],
        made["medvlm-study", "ray-auth"]["auth_token"],
    ]
    assert len(set(drawn)) == 5 and min(map(len, drawn)) >= 48


def test_each_step_says_what_one_should_see() -> None:
    text = (INFRA / "README.md").read_text().split("## Kubernetes, in steps")[1].split("\n## ")[0]
    _, *steps = re.split(r"^\*\*(?=\d+\. )", text, flags=re.MULTILINE)
    assert [int(step.split(".")[0]) for step in steps] == list(range(1, len(steps) + 1))
    for step in steps:
        assert "You see" in step, step.splitlines()[0]
    for name in OVERLAYS:
        assert name.split("/")[-1] in text, f"{name} is not spoken of"
    for name in (*FILES, *FOLDERS):
        assert name in OVERLAYS or f"infra/{name}" in text, f"no step applies {name}"
    for path in re.findall(r"infra/[\w./-]+", text):
        assert (INFRA.parent / path.rstrip(".")).exists(), path
