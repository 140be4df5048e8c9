"""``python -m study.launch --space layernorm_vs_lora``: run a study and show its answer.

Everything that the user gave is checked before anything heavy is imported.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

from study.config import spaces
from study.config.budget import ALLOCATE
from study.config.settings import ENGINES, PRECISIONS, Settings
from study.config.study_json import free_name, read
from study.storage.object_store import is_store
from study.tracking.mlflow_store import default_uri
from study.worker import launchers
from trainables.cache import hub
from trainables.data.common.splits import SPLITS
from trainables.errors import BadInput
from trainables.secrecy import Parser, guard, without_secrets

FIELDS = tuple(Settings.__dataclass_fields__)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input, 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        return _launch(given)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is lost: --resume goes on", file=sys.stderr)
        return 130


def _launch(given: argparse.Namespace) -> int:
    if given.list:
        width = max(map(len, spaces.questions()))
        for name, question in spaces.questions().items():
            print(f"{name:{width}}  {question}")
        return 0
    launchers.refuse_copies()
    launchers.forget()
    chosen = _chosen(given)
    storage = _storage(given)
    if given.resume:
        settings = read(storage, given.resume)
        for name, value in chosen.items():
            if getattr(settings, name) != value:
                raise BadInput(
                    f"study {given.resume!r} was begun with {name}={getattr(settings, name)!r}, "
                    f"not {value!r}; leave it away, or begin another study"
                )
    elif "space" in chosen:
        settings = Settings(**chosen)
    else:
        raise BadInput("give --space NAME (--list shows them) or --resume NAME")
    space = settings.check()

    from rich.console import Console

    from study.config.deployment import Deployment
    from study.workflow import run, show_plan

    place = Deployment(
        storage=storage,
        store=given.storage if is_store(given.storage) else None,
        name=given.resume or given.name or free_name(storage, settings),
        tracking_uri=given.tracking_uri or default_uri(storage),
        address=given.address,
        concurrency=given.concurrency,
        devices_per_trial=given.devices_per_trial,
        device_gib=given.device_gib,
    )
    # Output that is piped into a file has no width to fit into.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if given.dry_run:
        show_plan(settings, space, place, console)
        return 0
    folder = run(settings, space, place, console)
    shown = "" if given.storage == "studies" else f" --storage {given.storage}"
    uri = f" --tracking-uri {given.tracking_uri}" if given.tracking_uri else ""
    lines = ["", f"report   {folder / 'report.html'}", f"results  {folder / 'results.json'}"]
    if place.store:
        lines.append(f"both in  {place.store.rstrip('/')}/{place.name}")
    lines.append(
        f"MLflow   {given.tracking_uri if place.store else f'python -m study.ui{shown}{uri}'}"
    )
    print(without_secrets("\n".join(lines)))
    return 0


def _storage(given: argparse.Namespace) -> Path:
    """The folder that holds the studies. For studies in an object store it is this machine's
    copy."""
    if not is_store(given.storage):
        return Path(given.storage)
    from study.storage.mirror import fetch_names

    if given.tracking_uri is None and not given.dry_run:
        raise BadInput(
            f"--storage {given.storage} wants --tracking-uri too: MLflow's own database cannot "
            "lie in an object store"
        )
    return fetch_names(given.storage)


def _chosen(given: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given. Paths are made absolute, because workers and a resumed study
    must find them too; a name on the hub is no path and stays as it is."""
    chosen = {name: getattr(given, name) for name in FIELDS if hasattr(given, name)}
    for name, value in chosen.items():
        names_a_path = {
            "space": str(value).endswith(".py"),
            "model": value != Settings.model,
            "data_root": True,
            "deepspeed": Path(value).is_file() if isinstance(value, str) else False,
        }
        if names_a_path.get(name, False) and not str(value).startswith(hub.PREFIX):
            chosen[name] = str(Path(value).resolve())
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m study.launch",
        description="Run a hyperparameter study of fine-tuning methods and show its answer.",
        # Settings that were not given are absent, so that defaults stand in one place,
        # ``Settings``.
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(list=False, dry_run=False, storage="studies")
    parser.set_defaults(
        **dict.fromkeys(
            (
                "concurrency",
                "devices_per_trial",
                "device_gib",
                "address",
                "name",
                "tracking_uri",
                "resume",
            )
        )
    )
    what = parser.add_argument_group("what to ask")
    what.add_argument("--list", action="store_true", help="show the spaces and their questions")
    what.add_argument("--space", metavar="NAME", help="a search space, or a file.py of your own")
    what.add_argument(
        "--model",
        metavar="NAME",
        help="'tiny', which is shipped, a folder, or hub:ORG/NAME [tiny]",
    )
    what.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="pixels a side, with interpolated position embeddings [the model's]",
    )
    what.add_argument(
        "--data", metavar="NAME[,NAME]", help="a dataset, or several as one [phantom]"
    )
    what.add_argument(
        "--data-root", metavar="DIR", help="where it lies, or a folder for each; or hub:ORG/NAME"
    )
    what.add_argument("--split", metavar="|".join(SPLITS), help="[official]")
    what.add_argument(
        "--allow-leak",
        action="store_true",
        default=argparse.SUPPRESS,
        help="run although test questions are in the training split",
    )
    what.add_argument(
        "--ood",
        metavar="NAME[,NAME]",
        help="datasets, in DIR/NAME, to score the winners on that they never trained on",
    )
    spend = parser.add_argument_group("what to spend")
    spend.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="trials of the search [the space's]",
    )
    spend.add_argument(
        "--max-examples",
        type=int,
        metavar="N",
        help="training examples of a trial, repeated ones counted [the space's]",
    )
    spend.add_argument(
        "--budget",
        dest="allowance",
        metavar="2h|20gpu-h|500trials",
        help="end the search in time for the confirmation: hours from now to the answer, hours of "
        "devices that trials use, or trials",
    )
    spend.add_argument(
        "--allocate",
        metavar="|".join(ALLOCATE),
        help="trials among arms: where they pay, 60%% equally, or all equally [floor]",
    )
    spend.add_argument("--seed", type=int, metavar="N", help="of search and training [0]")
    spend.add_argument("--seeds", type=int, metavar="N", help="confirmations of each arm [3]")
    spend.add_argument(
        "--objective",
        metavar="score[,COST]",
        help="search for a trade-off: score,memory (also parameters, seconds) [score]",
    )
    spend.add_argument(
        "--under",
        metavar="COST<N[,COST<N]",
        help='confirm only what costs less: "memory<8GiB,parameters<1M" (also seconds, percent)',
    )
    spend.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="worse by less than that is not worse [1]",
    )
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="trials at a time, at most 8 on a device or processor, which then share its passes "
        "[one on each; on CUDA as many as fit]",
    )
    where.add_argument(
        "--devices-per-trial",
        type=int,
        metavar="N",
        help="train each trial on N devices or processors together, by Ray Train [as memory asks]",
    )
    where.add_argument(
        "--device-gib",
        type=float,
        metavar="X",
        help="memory of each device or processor, to place trials by [as CUDA says; else ignored]",
    )
    where.add_argument("--address", help="a Ray cluster to join, or 'auto' [start one here]")
    where.add_argument(
        "--deepspeed",
        metavar="|".join((*ENGINES, "FILE")),
        help="ZeRO stage, or DeepSpeed's configuration as JSON, taken as it is [auto]",
    )
    where.add_argument("--precision", metavar="|".join(PRECISIONS), help="[auto]")
    where.add_argument(
        "--label-smoothing", type=float, metavar="X", help="in training, e.g. 0.1 as BLIP [0]"
    )
    where.add_argument(
        "--questions-per-image",
        type=int,
        metavar="N",
        help="in training, one after another: fewer images to encode in a batch, where the image "
        "encoder is trained [1: each question for itself]",
    )
    where.add_argument(
        "--group-by-length",
        action="store_true",
        default=argparse.SUPPRESS,
        help="in training, texts of like length in a batch: less padding [no: by chance]",
    )
    where.add_argument(
        "--beams",
        type=int,
        metavar="N",
        help="of the search for answers, 1 is greedy [the model's: 3 for a BLIP, 1 for a LLaVA]",
    )
    where.add_argument(
        "--storage",
        metavar="DIR|s3://BUCKET/NAME",
        help="a folder that all nodes share, or an object store [studies]",
    )
    where.add_argument("--name", help="of the study [<space>-<data>-<number>]")
    where.add_argument("--tracking-uri", metavar="URI", help="an MLflow store [in --storage]")
    where.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    where.add_argument("--resume", metavar="NAME", help="go on with a study")
    return parser


if __name__ == "__main__":
    guard()
    code = main()
    gc.freeze()  # at exit Python would scan everything imported once more, for two seconds
    sys.exit(code)
