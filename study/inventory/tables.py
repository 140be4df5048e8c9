"""Studies as tables on the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from study.inventory.overview import State, StudyOverview, size_of_all
from study.trials.colours import terminal_styles
from study.trials.record import Outcome, TrialRecord
from study.trials.text import clock_text, settings_text, size_text

if TYPE_CHECKING:
    from study.inventory.status import StudyStatus

STYLES = {
    State.FINISHED: "green",
    State.RUNNING: "bold cyan",
    State.INTERRUPTED: "yellow",
    State.HALF_MADE: "red",
    State.UNREADABLE: "red",
}
"""State -> colour on the terminal."""
GAP = 2
"""Columns of the terminal between two of a table."""
SHORTEST_VERDICT = 12
"""Letters of a verdict that are shown at least."""


def show_list(console: Console, storage: str, found: Sequence[StudyOverview]) -> None:
    """Print a line for each study, and where all of them are."""
    columns = ("study", "state", "trials", "size", "begun")
    rows = [
        (
            each.study,
            _state(each),
            _of(each.trials, each.trials_in_all),
            size_text(each.bytes),
            each.begun[:16],
        )
        for each in found
    ]
    table, left = Table(box=None, pad_edge=False, header_style="bold"), console.width
    for column, cells in zip(columns, zip(columns, *rows, strict=True), strict=True):
        right, width = column in ("trials", "size"), max(map(len, cells))
        table.add_column(column, justify="right" if right else "left", width=width)
        left -= width + GAP
    table.add_column("verdict", no_wrap=True)
    for each, (study, state, *others) in zip(found, rows, strict=True):
        verdict = Text(each.verdict)
        verdict.truncate(max(left, SHORTEST_VERDICT), overflow="ellipsis")
        table.add_row(study, Text(state, style=STYLES[each.state]), *others, verdict)
    if found:
        console.print(table)
        console.print()
    number = f"{len(found):,} {'study' if len(found) == 1 else 'studies'}"
    size = f", {size_text(size_of_all(found))}" if found else ""
    console.print(f"{number} in {storage}{size}", soft_wrap=True)
    for address, count in Counter(each.mlflow for each in found if each.mlflow).items():
        console.print(f"{count:,} recorded in MLflow at {address}", soft_wrap=True)


def status_view(found: StudyStatus) -> RenderableType:
    """Everything that there is to say of a study."""
    facts = Table.grid(padding=(0, 2))
    for name, text in _facts(found):
        facts.add_row(Text(name, style="dim"), Text(text))
    parts: list[RenderableType] = [
        Text.assemble(
            (found.overview.study, "bold"),
            "  ",
            (_state(found.overview), STYLES[found.overview.state]),
        ),
        facts,
        Text(),
        _arms(found),
    ]
    if found.running:
        parts += [Text(), _running(found)]
    return Group(*parts)


def plain_list(found: Sequence[StudyOverview]) -> list[dict[str, Any]]:
    """Overviews of studies as JSON has them, for programs."""
    return [asdict(each) for each in found]


def plain_status(found: StudyStatus) -> dict[str, Any]:
    """Status of a study as JSON has it, for programs."""
    plain = asdict(found)
    plain["running"] = [_plain_trial(record) for record in found.running]
    for arm, of_arm in zip(found.arms, plain["arms"], strict=True):
        of_arm["best"] = _plain_trial(arm.best) if arm.best else None
    return plain


def _plain_trial(record: TrialRecord) -> dict[str, Any]:
    return {
        "trial": record.spec.id,
        "kind": record.spec.kind,
        "arm": record.spec.arm,
        "parameters": dict(record.spec.parameters),
        "examples_seen": record.examples_seen,
        "validation_loss": record.loss if record.rungs else None,
        "ran": record.ran,
    }


def _facts(found: StudyStatus) -> Iterator[tuple[str, str]]:
    """Name and text of each fact in the head of a status."""
    limit, row = found.limit, found.overview
    yield "where", f"{row.where}, {size_text(row.bytes)}"
    yield "asked", f"space {found.space}, model {found.model}, data {found.data}"
    yield "begun", row.begun
    searched = _of(found.searched, found.search_trials)
    confirmed = _of(found.confirmed, found.confirmations)
    open_ = f", {len(found.running)} {'running' if _runs(found) else 'to go on'}"
    yield "trials", f"search {searched}, confirmation {confirmed}{open_ * bool(found.running)}"
    if found.starting:
        yield "devices", "not known yet: a driver has taken the study and begun no trial so far"
    elif found.session is not None:
        used = f", {found.use:.0%} used in this session" if found.use is not None else ""
        at_once = found.session.concurrency
        several = f", {at_once} trial{'s' * (at_once != 1)} at a time"
        yield "devices", f"{found.session.devices} of {found.session.host}{several}{used}"
    time_ = f"{clock_text(found.seconds)} gone"
    if limit.seconds is not None:
        time_ += f" of {clock_text(limit.seconds)}"
    if _runs(found):
        time_ += f", {clock_text(found.seconds_left)} left"
    yield "time", time_
    spent = f"{found.device_seconds / 3600:.3g} device-hours"
    if limit.device_seconds is not None:
        left = max(limit.device_seconds - found.device_seconds, 0.0)
        spent += f" of {limit.device_seconds / 3600:g}, {left / 3600:.3g} left"
    yield "spent", spent
    if found.mlflow:
        yield "MLflow", ", ".join(address or "in the storage folder" for address in found.mlflow)
    if row.state is State.INTERRUPTED:
        yield "stopped", _stopped(found)
        yield "next", f"{found.resume} goes on with it"
    if row.verdict:
        yield "verdict", row.verdict


def _stopped(found: StudyStatus) -> str:
    """What is known of a study that no driver runs and that has not ended."""
    if found.last_heard is None:
        return "no driver runs it, and it has begun no trial"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.last_heard))
    on = f" on {found.session.host}" if found.session is not None else ""
    return f"no driver runs it: the last one{on} was heard of until {since}"


def _arms(found: StudyStatus) -> Table:
    """A table of the arms: trials by outcome and by rung, and the best one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    rungs = list(found.arms[0].reached) if found.arms else []
    table.add_column("arm")
    columns = ("running" if _runs(found) else "open", "done", "pruned", "other")
    for column in (*columns, *(f"at {rung:,}" for rung in rungs), "best loss", "validation %"):
        table.add_column(column, justify="right")
    table.add_column("with")
    styles = terminal_styles(found.all_arms)
    for arm in found.arms:
        ended = dict(arm.ended)
        done, pruned = ended.pop(Outcome.COMPLETE), ended.pop(Outcome.PRUNED)
        score = arm.best.scores.get("validation.overall") if arm.best else None
        table.add_row(
            Text(arm.arm, style=styles.get(arm.arm, "")),
            *map(str, (arm.running, done, pruned, sum(ended.values()))),
            *(str(arm.reached[rung]) for rung in rungs),
            f"{arm.best.loss:.4f}" if arm.best else "",
            f"{score:.1f}" if score is not None else "",
            Text(settings_text(arm.best.spec.parameters)) if arm.best else "",
        )
    return table


def _running(found: StudyStatus) -> Table:
    """A table of the trials that have begun and not ended."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("running" if _runs(found) else "to go on")
    for column in ("examples", "loss"):
        table.add_column(column, justify="right")
    table.add_column("on")
    table.add_column("with")
    styles = terminal_styles(found.all_arms)
    for record in found.running:
        spec = record.spec
        table.add_row(
            Text(" ".join(dict.fromkeys((spec.kind, spec.arm, spec.id))), styles.get(spec.arm, "")),
            f"{record.examples_seen:,}/{spec.max_examples:,}",
            f"{record.loss:.4f}" if record.rungs else "",
            Text(_placed(record)),
            Text(settings_text(spec.parameters)),
        )
    return table


def _placed(record: TrialRecord) -> str:
    """How a trial is computed, as far as it was noted."""
    ran = record.ran
    devices = ran.get("devices", "")
    parts = [ran.get("lane", ""), f"{devices} device{'s' * (devices != '1')}" * bool(devices)]
    return ", ".join(filter(None, [*parts, ran.get("engine", "")]))


def _runs(found: StudyStatus) -> bool:
    return found.overview.state is State.RUNNING


def _state(row: StudyOverview) -> str:
    """State of a study in words."""
    return f"{row.state} on {row.host}" if row.host else str(row.state)


def _of(number: int, total: int | None) -> str:
    return f"{number:,}" if total is None else f"{number:,}/{total:,}"
