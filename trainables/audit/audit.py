"""The audit of a dataset: what its splits hold, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.audit import checks
from trainables.audit.checks import CheckResult
from trainables.cache.arrays import Progress
from trainables.data.common.dataset import Dataset, Example
from trainables.errors import printable
from trainables.measures.common.baselines import majority_baseline
from trainables.measures.common.normalize import normalize

FREQUENT = 5  # most frequent answers listed for a split


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Counts of what one split holds."""

    questions: int
    images: int
    open: int
    closed: int
    yes_no: int  # questions whose answer is yes or no, whatever their type
    different_answers: int  # distinct answers once normalised
    frequent_answers: tuple[tuple[str, int], ...]  # normalised answers with their counts
    patients: int = 0  # 0 if the dataset names none
    majority: float  # accuracy in percent of each type's most frequent training answer


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of ``examine``: what a dataset holds, and what is wrong with it."""

    dataset: str
    description: str
    digest: str
    splits: Mapping[str, SplitCounts]
    findings: tuple[CheckResult, ...]  # most severe first

    @property
    def stops(self) -> tuple[CheckResult, ...]:
        """Findings that forbid a study: its answer could not be trusted."""
        return tuple(finding for finding in self.findings if finding.severity == "stop")

    def lines(self) -> list[str]:
        """Format the audit as lines of text."""
        columns = "split questions images open closed yes/no answers majority".split()
        lines = [
            f"{self.dataset}: {self.description}",
            f"digest {self.digest}",
            "",
            f"{columns[0]:<11}" + "".join(f"{column:>10}" for column in columns[1:]),
        ]
        for split, counts in self.splits.items():
            row = (counts.questions, counts.images, counts.open, counts.closed, counts.yes_no)
            numbers = "".join(f"{count:>10,}" for count in (*row, counts.different_answers))
            lines.append(f"{split:<11}{numbers}{counts.majority:>9.1f}%")
        if any(counts.patients for counts in self.splits.values()):
            patients = (f"{counts.patients:,} in {s}" for s, counts in self.splits.items())
            lines.append(f"patients: {', '.join(patients)}")
        else:
            lines.append("patients: none is named, so images are taken as independent")
        lines.append("")
        for split, counts in self.splits.items():
            frequent = ", ".join(
                f"{answer[:40] or '(nothing)'} {100 * count / counts.questions:.1f}%"
                for answer, count in counts.frequent_answers
            )
            lines.append(f"answers in {split}: {frequent}")
        lines.append("")
        for finding in self.findings:
            more = ", ..." if finding.count > len(finding.shown) else ""
            lines.append(f"{finding.severity.upper():<5} {finding.text}")
            lines.append(f"      {', '.join(finding.shown)}{more}")
        # A dataset's texts may have what acts on a terminal.
        shown = [printable(line) for line in lines]
        return shown if self.findings else [*shown, "nothing was found to be wrong"]


def examine(dataset: Dataset, *, progress: Progress | None = None) -> Audit:
    """Audit a dataset: count what is in its splits, and look for what is wrong with them.

    The first audit of a dataset decodes its images, and calls ``progress`` after each.

    Raises:
        BadInput: an image can't be read.
    """
    found = [
        *checks.shared(dataset, "test", ("train", "validation")),
        *checks.shared(dataset, "validation", ("train",)),
        *checks.copies(dataset),
        *checks.lookalikes(dataset, progress),
        *checks.flat(dataset, progress),
        *checks.contradictions(dataset),
        *checks.unanswerable(dataset),
    ]
    order = ("stop", "warn", "note")
    return Audit(
        dataset=dataset.name,
        description=dataset.description,
        digest=dataset.digest,
        splits={split: _counts(dataset, examples) for split, examples in dataset.splits().items()},
        findings=tuple(sorted(found, key=lambda finding: order.index(finding.severity))),
    )


def _counts(dataset: Dataset, examples: Sequence[Example]) -> SplitCounts:
    """Count what one split holds."""
    answers = Counter(normalize(example.answer) for example in examples)
    return SplitCounts(
        questions=len(examples),
        images=len({dataset.contents[example.image_id] for example in examples}),
        patients=len({example.patient for example in examples if example.patient}),
        open=sum(example.answer_type == "open" for example in examples),
        closed=sum(example.answer_type == "closed" for example in examples),
        yes_no=answers["yes"] + answers["no"],
        different_answers=len(answers),
        frequent_answers=tuple(answers.most_common(FREQUENT)),
        majority=majority_baseline(dataset.train, examples)["overall"],
    )
