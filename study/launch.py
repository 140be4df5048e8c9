"""``python -m study.launch --space layernorm_vs_lora``: run a study and show its answer.

Everything that the user gave is checked before anything heavy is imported.
"""

from __future__ import annotations

import gc
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config import spaces
from study.config.begun_study import begun_study
from study.config.definition import StudyDefinition
from study.config.deployment import Deployment, Places
from study.config.settings import ASK, GROUPS, WHERE, Settings
from study.config.study_json import free_name, read
from study.inventory.recorded import recorded_store
from study.storage.mirror import fetch_settings
from study.storage.paths import real_path
from study.storage.study_folder import StudyFolder
from study.tracking.mlflow_store import is_server, named_store, tracking_address
from study.worker import launchers
from trainables.cache import hub
from trainables.command import command, interrupted
from trainables.errors import BadInput
from trainables.options import Parser, add_options, given_options, option
from trainables.secrecy import command_line, shown, without_user

if TYPE_CHECKING:
    from study.workflow import EndedStudy

MORE_SEEDS = "seeds that are added after a look at results let a false 'better' through more often"
"""Why a study that may have called an arm better takes no more seeds
(``python -m tests.benchmarks.looks``)."""


@dataclass(frozen=True, kw_only=True)
class Request(Places):
    """What the command is to do, besides what defines a study and its deployment."""

    list: bool = option(False, group=ASK, help="show the spaces and their questions")
    dry_run: bool = option(False, group=WHERE, help="show the plan and stop")
    resume: str | None = option(None, group=WHERE, metavar="NAME", help="go on with a study")
    name: str | None = option(
        None,
        group=WHERE,
        metavar="NAME",
        help="name of the study",
        default="<space>-<data>-<number>",
    )


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 bad input, 130 interrupted (128 plus the number of
    the signal)."""
    parsed = _parser().parse_args(arguments)
    return _launch(
        Request(**given_options(parsed, Request)),
        _absolute(given_options(parsed, Settings)),
        given_options(parsed, Deployment),
    )


def _launch(request: Request, asked: dict[str, Any], where: dict[str, Any]) -> int:
    """Run a study or show its plan. ``asked`` are the settings that were given, ``where`` is what
    was given of a deployment."""
    if request.list:
        questions = spaces.questions()
        width = max(map(len, questions))
        for name, question in questions.items():
            print(f"{name:{width}}  {question}")
        return 0
    launchers.refuse_copies()
    launchers.forget()
    tracking_uri = tracking_address(request.storage, _named_store(request))
    storage = fetch_settings(request.storage)
    settings = _settings(request, asked)
    name = request.resume or request.name or free_name(storage, settings)
    study_folder = StudyFolder(storage=request.storage, name=name)
    begun = begun_study(study_folder.path) if study_folder.begun else None
    definition = StudyDefinition.parse(settings, begun)

    from study.reporting.terminal import standard_console
    from study.workflow import run, show_plan

    deployment = Deployment(**where | {"study_folder": study_folder, "tracking_uri": tracking_uri})
    console = standard_console()
    if request.dry_run:
        show_plan(definition, deployment, console)
        return 0
    try:
        ended = run(definition, deployment, console)
    except KeyboardInterrupt:
        if not study_folder.begun:
            raise
        return interrupted(f"nothing is lost: {_resume(request, name)} goes on")
    print("\n".join(_next_steps(ended, request, deployment)))
    return 0


def _named_store(request: Request) -> str | None:
    """Address of the MLflow store that the user named or, of a study that goes on, where its last
    session recorded it; None for the one in the storage folder."""
    named = named_store(request.tracking_uri)
    if named is None and request.resume:
        named = recorded_store(request.storage, request.resume)
        if named is not None:
            print(f"MLflow is {shown(named)}, where the study was recorded", flush=True)
    return named


def _resume(request: Request, name: str) -> str:
    """Command that goes on with a study, for a shell."""
    return command_line("study.launch", ["--resume", name, *_where(request)])


def _where(request: Request) -> list[str]:
    """Option that names the storage of a study, if it is not the usual one."""
    return [] if request.storage == Request.storage else ["--storage", request.storage]


def _next_steps(ended: EndedStudy, request: Request, deployment: Deployment) -> list[str]:
    """Lines that say where the report of a study is, where MLflow shows the study, and how its
    winner is used. Commands and paths can be pasted into a shell."""
    study, uri = deployment.study_folder, deployment.tracking_uri
    where = _where(request)
    store = ["--tracking-uri", request.tracking_uri] if request.tracking_uri else []
    lines = ["", f"report  {shlex.quote(str(ended.report))}"]
    if study.in_store:
        lines.append(f"        and in {study.store.url}")
    if is_server(uri):
        lines.append(f"MLflow  {without_user(uri).rstrip('/')}{ended.view}")
    else:
        lines.append(f"MLflow  {command_line('study.ui', [study.name, *where, *store])}")
    if ended.has_winner:
        lines.append(f"winner  {command_line('study.export', [study.name, *where])}")
    else:
        lines.append("winner  none: no arm was confirmed, and the report says why")
    return lines


def _settings(request: Request, asked: dict[str, Any]) -> Settings:
    """Settings of the study to run: those that it was begun with, or those that were given. A study
    of one seed may get more: it called no arm better, so that nothing was looked at before."""
    if request.resume:
        if request.name:
            raise BadInput(f"--resume {request.resume} and --name {request.name}: give one")
        settings = read(StudyFolder(storage=request.storage, name=request.resume))
        for name, value in asked.items():
            if name == "seeds" and value > settings.seeds == 1:
                settings = replace(settings, seeds=value)
            elif getattr(settings, name) != value:
                more = name == "seeds" and value > settings.seeds
                why = f" ({MORE_SEEDS})" if more else ""
                raise BadInput(
                    f"study {request.resume!r} was begun with {name}={getattr(settings, name)!r}, "
                    f"not {value!r}; leave it away, or begin another study{why}"
                )
        return settings
    if "space" not in asked:
        raise BadInput("give --space NAME (--list shows them) or --resume NAME")
    return Settings(**asked)


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """Settings with absolute paths, because workers and a resumed study must find them too; a name
    on the hub is no path and stays as it is."""
    absolute = dict(asked)
    for name, value in asked.items():
        names_a_path = {
            "space": str(value).endswith(".py"),
            "model": value not in (Settings.model, ""),
            "data_root": True,
            "measure": str(value).endswith(".py"),
            "deepspeed": Path(value).is_file() if isinstance(value, str) else False,
        }
        if names_a_path.get(name, False) and not str(value).startswith(hub.PREFIX):
            absolute[name] = str(real_path(value))
    return absolute


def _parser() -> Parser:
    parser = Parser(
        prog="python -m study.launch",
        description="Run a hyperparameter study of fine-tuning methods and show its answer.",
    )
    add_options(parser, Settings, Deployment, Request, groups=GROUPS)
    return parser


if __name__ == "__main__":
    code = main()
    gc.freeze()  # at exit Python would scan everything imported once more, for two seconds
    sys.exit(code)
