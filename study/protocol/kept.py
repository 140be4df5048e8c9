"""Checks whether a finished study did what its protocol planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.analysis import results_file
from study.analysis.result_types import ArmResult, StudyResults, UsedProtocol
from study.protocol import planned
from study.protocol.planned import PlannedProtocol
from study.storage.study_folder import PROTOCOL
from study.trials.spec import Kind
from trainables.errors import BadInput

SHOWN = 12
"""Letters of a digest that a sentence has."""
IN_TIME = "ended in time for --budget"
"""How ``results.json`` tells that the allowance of the search ended it."""
TUNED = "ended when no arm was expected to gain more than"
"""How it tells that all arms were tuned."""


@dataclass(frozen=True, kw_only=True)
class ProtocolCheck:
    """What a study's protocol and its results say of each other."""

    digest: str
    """sha256 of ``protocol.json``; empty if the study has none."""
    written: str
    """Time at which it was written; empty if that is not known."""
    deviations: tuple[str, ...]
    """What was done otherwise than planned, each in a line; empty: all was as planned."""

    @property
    def as_planned(self) -> bool:
        """Whether the study has a protocol and kept to it."""
        return bool(self.digest) and not self.deviations

    @property
    def text(self) -> str:
        """The check in a line."""
        if not self.digest:
            return "no protocol file: the study began before there were any"
        return "as planned" if self.as_planned else "otherwise: " + "; ".join(self.deviations)


def check(folder: Path, results: StudyResults) -> ProtocolCheck:
    """Compare a study's results with the protocol in its folder."""
    digest, used = planned.digest(folder), results_file.used_protocol(results)
    noted = used.protocol_sha256
    if not digest:
        lost = (f"{PROTOCOL} with the digest {noted[:SHOWN]} is lost",) if noted else ()
        return ProtocolCheck(digest=noted, written="", deviations=lost)
    try:
        protocol = planned.read(folder)
    except BadInput as error:
        return ProtocolCheck(digest=digest, written="", deviations=(str(error),))
    changed = digest != noted
    found = [f"{PROTOCOL} was changed: the study began with {noted[:SHOWN]}"] if changed else []
    return ProtocolCheck(
        digest=digest,
        written=protocol.written,
        deviations=(*found, *_deviations(protocol, results, used)),
    )


def _deviations(
    protocol: PlannedProtocol, results: StudyResults, used: UsedProtocol
) -> Iterator[str]:
    """What was done otherwise than planned, each in a line."""
    if protocol.identity != used.identity:
        yield f"{PROTOCOL} is of another study, {protocol.study!r}"
    for what, was, now in (
        ("measure", protocol.measure, used.settings.measure),
        ("margin", protocol.margin, used.settings.margin),
        ("comparisons", _compared(protocol.against), _compared(used.against)),
        ("searches of each arm", protocol.searches, results.searches),
        ("rules of scoring, version", protocol.scoring, results.scoring),
        ("model", protocol.model.digest[:SHOWN], used.model.digest[:SHOWN]),
        ("data", protocol.data.digest[:SHOWN], used.data.digest[:SHOWN]),
        ("commit of the code", protocol.commit[:SHOWN], used.commit[:SHOWN]),
    ):
        if was != now:
            yield f"{what}: {now or 'unknown'}, planned {was or 'unknown'}"
    versions = used.versions
    others = [f"{n} {v}" for n, v in versions.items() if protocol.versions.get(n, v) != v]
    if others:
        were = ", ".join(f"{n} {v}" for n, v in protocol.versions.items() if versions.get(n) != v)
        yield f"versions: {', '.join(others)}, planned {were}"
    yield from _arms(protocol, results)
    yield from _search(protocol, results, used.search)


def _compared(against: str | None) -> str:
    """Which arms are compared, in words."""
    return "each pair of arms" if against is None else f"each arm with {against}"


def _arms(protocol: PlannedProtocol, results: StudyResults) -> Iterator[str]:
    """Arms that were not confirmed, or by another number of seeds than planned."""
    there = {arm.arm for arm in results.arms}
    for arm in protocol.arms:
        if arm not in there:
            yield f"arm {arm} was not run"
    for arm in sorted(there - {*protocol.arms}):
        yield f"arm {arm} was added"
    seeds: dict[tuple[int, int], list[str]] = {}
    for each in results.arms:
        if each.test:
            counts = len(each.seeds), _seeds(protocol, each) * protocol.searches
            seeds.setdefault(counts, []).append(each.arm)
        elif each.arm in protocol.arms:
            yield f"arm {each.arm} was not confirmed"
    for (count, planned_seeds), arms in sorted(seeds.items()):
        if count != planned_seeds:
            yield f"seeds of {', '.join(arms)}: {count}, planned {planned_seeds}"


def _seeds(protocol: PlannedProtocol, arm: ArmResult) -> int:
    """Confirmations of each search of an arm that were planned."""
    by_rule = (
        protocol.seeds_if_diverged if arm.diverged_at is not None else None,
        protocol.seeds_if_collapsed if arm.collapsed_at is not None else None,
    )
    return max(protocol.seeds, *(seeds or 0 for seeds in by_rule))


def _search(protocol: PlannedProtocol, results: StudyResults, ended: str) -> Iterator[str]:
    """The search, if it ended otherwise than by its rules; ``ended`` says why it did, in words."""
    run = sum(trial.kind is Kind.SEARCH for trial in results.trials)
    stops = protocol.stops
    by_rule = (stops.tuned_to is not None and TUNED in ended) or (
        stops.spending is not None and IN_TIME in ended
    )
    if run > stops.trials or (run < stops.trials and not by_rule):
        yield f"trials of the search: {run}, planned {stops.trials}"
