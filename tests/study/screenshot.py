"""Takes the README's picture of MLflow: ``python -m tests.study.screenshot STORAGE STUDY``.

The page that ``python -m study.ui STUDY`` gives the link to, in Debian's ``chromium``, without
MLflow's menu and its assistant, in few colours.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from study import ui
from study.runs import Runs
from study.settings import read
from tests.study.browser import CHROMIUM, serving

OUT = Path(__file__).parents[2] / ".github" / "mlflow.png"
WINDOW = (1500, 820)
PAGE = (198, 8, 1112, 820)
"""Left, top, right and bottom of what the study is in."""
COLOURS = 64


def main(storage: Path, study: str) -> None:
    """Write the picture."""
    assert CHROMIUM is not None, "apt-get install chromium"
    experiment = Path(read(storage, study).space).stem
    runs = Runs(ui.default_uri(storage), experiment=experiment, artifacts=storage / ui.ARTIFACTS)
    parent = runs.study(study)
    assert parent is not None
    with serving(storage) as uri, tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch, "shot.png")
        command = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--hide-scrollbars", f"--window-size={WINDOW[0]},{WINDOW[1]}"),
            *(f"--user-data-dir={scratch}/profile", "--virtual-time-budget=20000"),
            *(f"--screenshot={shot}", uri + runs.comparison(parent.info.run_id)),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        page = Image.open(shot).crop(PAGE).convert("RGB")
        OUT.parent.mkdir(exist_ok=True)
        page.quantize(COLOURS, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(OUT, OUT.stat().st_size // 1024, "KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
