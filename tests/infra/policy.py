"""``python -m tests.infra.policy``: checkov on everything in infra/; its exit code.

checkov is 290 MB with packages of other versions than ours, so it lives outside of .venv:
``python3 -m venv policy && policy/bin/pip install checkov``, and that ``bin`` in PATH. What
is skipped, and why, is in infra/checkov.yaml.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.infra.manifests import FILES, FOLDERS, INFRA, is_custom, pods, render


def main() -> int:
    checkov = shutil.which("checkov")
    if checkov is None:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        for part in (*FOLDERS, *FILES):
            manifests = render(part)
            found = [pod.manifest() for pod in pods(manifests)]
            found += [manifest for manifest in manifests if not is_custom(manifest)]
            target = Path(name) / f"{part.replace('/', '-').removesuffix('.yaml')}.yaml"
            target.write_text(yaml.safe_dump_all(found))
        for file in (INFRA / "docker").glob("*Dockerfile"):
            shutil.copy(file, name)
        settings = ["--config-file", str(INFRA / "checkov.yaml")]
        return subprocess.run([checkov, "-d", name, *settings], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
