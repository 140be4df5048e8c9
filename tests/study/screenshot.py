"""Takes the README's picture of MLflow: ``python -m tests.study.screenshot STORAGE STUDY``.

The view that ``python -m study.ui STUDY`` gives the link to, in Debian's ``chromium``, without
MLflow's menu, its assistant and the tools of its charts, in few colours.
"""

import asyncio
import io
import sys
from pathlib import Path

from PIL import Image

from study.config.study_json import identity, read
from study.storage.study_folder import StudyFolder
from study.tracking import mlflow_store, mlflow_views
from study.tracking.mlflow_runs import runs_of_space
from tests.study.browser import browsing, serving

OUT = Path(__file__).parents[2] / ".github" / "mlflow.png"
WINDOW = (1500, 1540)
PAGE = (198, 8, 1492, 1396)
"""Left, top, right and bottom of what the study is in."""
COLOURS = 128
CHARTS = 6
"""Number of charts that are in the window."""
CLOSED = "[data-component-id='mlflow.assistant.chat_panel.close']"
"""Button that closes the assistant, which opens by itself for who comes first."""
HIDDEN = ".modebar, button:has(.assistant-fab-label) { display: none !important; }"
"""Style that hides what lies over the charts: their tools, and the assistant's button."""


def main(storage: Path, study: str) -> None:
    """Write the picture."""
    folder = StudyFolder(storage=storage, name=study)
    runs = runs_of_space(mlflow_store.default_uri(storage), read(folder).space, folder)
    parent = runs.study(study, identity(folder.path))
    assert parent is not None
    view = mlflow_views.address(runs.experiment_id, parent.info.run_id)
    with serving(storage) as uri:
        shot = asyncio.run(picture(uri + view))
    OUT.parent.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(shot)).crop(PAGE).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(OUT, OUT.stat().st_size // 1024, "KiB")


async def picture(url: str) -> bytes:
    """The window when the charts are drawn, as PNG."""
    async with browsing(url, WINDOW) as tab:
        await tab.until(f'(e => e && (e.click(), true))(document.querySelector("{CLOSED}"))')
        style = "document.head.appendChild(document.createElement('style')).textContent"
        await tab.value(f'{style} = "{HIDDEN}"')
        await tab.cards(CHARTS)
        return await tab.picture()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
