"""Says what pip-audit found, and how many packages its database knew. ``make audit`` runs it.

pip-audit exits with 0 where no database could be reached: then it has skipped every package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str) -> int:
    """Show a report that ``pip-audit --format json`` wrote.

    Returns:
        0: no vulnerability is known; 1: some are; 2: no package could be looked up.
    """
    file = Path(report)  # pip-audit that fails writes none
    packages = json.loads(file.read_text(encoding="utf-8"))["dependencies"] if file.exists() else []
    known = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in known
        for vulnerability in package["vulns"]
    ]
    print(*found, sep="\n", end="\n" * bool(found))
    if not known:
        print("no database of vulnerabilities could be reached: nothing is known of any package")
        return 2
    print(f"{len(found)} known vulnerabilities; {len(known)} of {len(packages)} packages looked up")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
