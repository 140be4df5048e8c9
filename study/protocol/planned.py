"""``protocol.json``: what a study is about to do, written before its first trial and never again.

Its sha256 is the digest that a paper may name. It stands in the study's journal, so that a file
that was changed later is known, and in ``results.json``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from study.config.begun_study import arms_plain, begun_study
from study.planning.provenance import audit_lines
from study.statistics.uncertainty import LEVEL
from study.storage.paths import atomic_write
from study.storage.study_folder import PROTOCOL
from study.trials.searches import MARK
from trainables import stored_json
from trainables.cache import regular_file
from trainables.data.common.dataset import questions_digest
from trainables.measures.common.scores import VERSION as SCORING

if TYPE_CHECKING:
    from study.config.checked_data import CheckedData
    from study.planning.study_plan import StudyPlan
    from study.search.journal import StudyJournal
    from trainables.data.common.dataset import Dataset

VERSION: Final = 1
"""Version of the format of ``protocol.json``."""
YOUNGER = ("against", "splits", "seeds_if_diverged", "seeds_if_collapsed")
"""Fields that are younger than the first protocols, and left out where they are None."""
NOTED = "protocol_sha256"
"""Key, in the protocol of ``results.json``, of the digest that the journal has of
``protocol.json``."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model or a dataset with its digest."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """The test split."""

    digest: str
    """Digest of the questions and their answers (``questions_digest``)."""
    images_digest: str
    """Digest of the images' bytes."""
    questions: int
    units: int
    """Number of patients or images, which are taken as independent."""
    unit: str
    """``patients`` or ``images``."""


@dataclass(frozen=True, kw_only=True)
class PlannedSplit:
    """One of several splits of the data."""

    data_digest: str
    """Digest of the data as this split divides them."""
    test: PlannedTest
    findings: tuple[str, ...]
    """Findings of the audit of this split."""


@dataclass(frozen=True, kw_only=True)
class PlannedStops:
    """When the search and its trials end."""

    trials: int
    """Trials of the search, at most."""
    allocation: str
    """Division of the trials among arms, a value of ``--allocate``."""
    tuned_to: float | None
    """The search ends before if no arm is expected to gain more points than this; None: it does
    not."""
    spending: str | None
    """Value of ``--budget``; None: none was given."""
    early: str
    """Rule of early stopping of a trial, a value of ``--stop``."""


@dataclass(frozen=True, kw_only=True)
class PlannedProtocol:
    """Content of ``protocol.json``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    version: int = VERSION
    study: str
    """Name of the study."""
    identity: str
    """Identity of the study among all studies, as in ``study.json``."""
    written: str
    """Local time at which this was written."""
    question: str
    """The question that the search space asks."""
    arms: Mapping[str, Any]
    """Arm -> its ranges as plain values, as in ``study.json``."""
    comparisons: str
    """Which arms are compared, and how p-values are corrected."""
    against: str | None = None
    """Arm with which each other arm is compared; None: all pairs are compared."""
    claim: str
    """What the answer will be about: ``models`` or ``methods``; or ``splits``: nothing is claimed,
    and what several splits of the data showed is described."""
    measure: str
    """What decides, a value of ``--measure``."""
    margin: float
    """Difference in percentage points that does not matter."""
    level_percent: int
    """Confidence level of intervals."""
    searches: int
    """Independent searches of each arm."""
    seeds: int
    """Confirmations of each of them."""
    seeds_if_diverged: int | None = None
    """Confirmations of each search of an arm of which a search trial diverged at a learning rate no
    larger than that of its best trial; None: as many as of others."""
    seeds_if_collapsed: int | None = None
    """Confirmations of each search of an arm of which a search trial collapsed there
    (``study.search.unsteady_arms`` says how that is judged); None: as many as of others."""
    seed: int
    """Seed of search and training."""
    searcher: str
    """How an arm's next point is found, a value of ``--search``."""
    stops: PlannedStops
    budget: Mapping[str, Any]
    """Budget of a trial, as in ``study.json``."""
    objective: str
    """What the search is for, a value of ``--objective``."""
    under: str | None
    """Limits of what may be confirmed; None: there are none."""
    asked: Mapping[str, str]
    """How questions are asked: prompt, system message, and how options are chosen among."""
    precision: str
    scoring: int
    """Version of the rules by which answers are scored."""
    model: Named
    data: Named
    test: PlannedTest
    splits: tuple[PlannedSplit, ...] | None = None
    """Splits of the data, in each of which each arm is searched, the first one included; None:
    there is one, which is ``data`` with ``test``."""
    versions: Mapping[str, str]
    """Package -> its version."""
    commit: str
    """Git commit of the code; empty if it is unknown."""


def fix(plan: StudyPlan, folder: Path, provenance: Mapping[str, Any], journal: StudyJournal) -> str:
    """Write the protocol of a study that has no trial yet, once; return the digest that the journal
    has of it, which is empty for a study that began before there were protocols.

    Args:
        plan: the study's plan.
        folder: the study's folder.
        provenance: what ``study.planning.provenance.describe`` returned.
        journal: the study's journal.
    """
    if not journal.protocol and not journal.records:
        journal.record_protocol(write(planned(plan, folder, provenance), folder))
    return journal.protocol


def planned(plan: StudyPlan, folder: Path, provenance: Mapping[str, Any]) -> PlannedProtocol:
    """The protocol of a study that is about to begin; the arguments are as in ``fix``."""
    definition, settings = plan.definition, plan.definition.settings
    dataset, diverged = plan.data.dataset, definition.times_if_diverged
    collapsed = definition.times_if_collapsed
    arms = {name: ranges for name, ranges in arms_plain(plan.space).items() if MARK not in name}
    against, others = plan.space.against, len(arms) - 1
    pairs = f"each pair of arms ({len(arms) * others // 2})"
    if against is not None:
        pairs = f"each other arm with {against} ({others})"
    return PlannedProtocol(
        study=plan.name,
        identity=begun_study(folder).identity,
        written=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        question=plan.space.question,
        arms=arms,
        comparisons=f"{pairs}, two-sided, corrected by Holm's method",
        against=against,
        claim="splits" if settings.splits > 1 else "methods" if settings.searches > 1 else "models",
        measure=settings.measure,
        margin=settings.margin,
        level_percent=LEVEL,
        searches=settings.times_searched,
        seeds=settings.seeds,
        seeds_if_diverged=None if diverged == 1 else diverged * settings.seeds,
        seeds_if_collapsed=None if collapsed == 1 else collapsed * settings.seeds,
        seed=settings.seed,
        searcher=definition.search,
        stops=PlannedStops(
            trials=plan.trials,
            allocation=definition.allocate,
            tuned_to=definition.tuned_to if definition.allocate == "tuned" else None,
            spending=settings.allowance,
            early=definition.stop,
        ),
        budget={name: v for name, v in asdict(definition.budget).items() if v is not None},
        objective=settings.objective,
        under=settings.under,
        asked={
            "prompt": settings.prompt,
            "system": settings.system,
            "choose": settings.choose,
        },
        precision=plan.precision,
        scoring=SCORING,
        model=Named(name=plan.profile.model, digest=plan.model_digest),
        data=Named(name=dataset.name, digest=dataset.digest),
        test=_test(dataset),
        splits=_splits(plan.data),
        versions=provenance["versions"],
        commit=provenance["commit"],
    )


def write(protocol: PlannedProtocol, folder: Path) -> str:
    """Write ``protocol.json`` into the study's folder, whole or not at all; return its digest."""
    content = asdict(protocol)
    for name in YOUNGER:
        if content[name] is None:
            del content[name]
    with atomic_write(folder / PROTOCOL) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return digest(folder)


def digest(folder: Path) -> str:
    """sha256 (hex) of a study's ``protocol.json``; empty if it has none, as studies have not that
    began before there were protocols."""
    try:
        return hashlib.sha256(regular_file.content(folder / PROTOCOL)).hexdigest()
    except FileNotFoundError:
        return ""


def read(folder: Path) -> PlannedProtocol:
    """The protocol of a study that has one.

    Raises:
        BadInput: the file is damaged, or a newer version or another program wrote it.
    """
    return stored_json.read(PlannedProtocol, folder / PROTOCOL, versions=[VERSION])


def _splits(data: CheckedData) -> tuple[PlannedSplit, ...] | None:
    """What is noted of several splits; None if there is one."""
    if not data.splits:
        return None
    return tuple(
        PlannedSplit(data_digest=dataset.digest, test=_test(dataset), findings=audit_lines(audit))
        for dataset, audit in zip(data.splits, data.audits, strict=True)
    )


def _test(dataset: Dataset) -> PlannedTest:
    """What is noted of a dataset's test split."""
    examples = dataset.test
    images = sorted({example.image_id for example in examples})
    contents = json.dumps([[image, dataset.contents.get(image, "")] for image in images])
    return PlannedTest(
        digest=questions_digest(examples),
        images_digest=hashlib.sha256(contents.encode()).hexdigest(),
        questions=len(examples),
        units=len({example.unit for example in examples}),
        unit="patients" if any(example.patient for example in examples) else "images",
    )
