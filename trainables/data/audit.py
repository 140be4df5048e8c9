"""What is in a dataset, and what is wrong with it, found before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.data import findings
from trainables.data.dataset import Dataset, Example
from trainables.data.findings import Finding
from trainables.data.scores import majority_baseline, normalize
from trainables.kept import Progress

FREQUENT = 5  # answers that are told for a split


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a split holds."""

    questions: int
    images: int
    open: int
    closed: int
    yes_no: int  # questions whose answer is yes or no, whatever their type
    different_answers: int  # once normalised
    frequent_answers: tuple[tuple[str, int], ...]  # normalised, with their counts
    majority: float  # accuracy in percent of the most frequent training answer of each type


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What ``examine`` found."""

    dataset: str
    description: str
    digest: str
    splits: Mapping[str, Facts]
    findings: tuple[Finding, ...]  # the worst first

    @property
    def stops(self) -> tuple[Finding, ...]:
        """Those findings with which no study should be begun."""
        return tuple(finding for finding in self.findings if finding.severity == "stop")

    def lines(self) -> list[str]:
        """The audit as text."""
        columns = "split questions images open closed yes/no answers majority".split()
        lines = [
            f"{self.dataset}: {self.description}",
            f"digest {self.digest}",
            "",
            f"{columns[0]:<11}" + "".join(f"{column:>10}" for column in columns[1:]),
        ]
        for split, facts in self.splits.items():
            counts = (facts.questions, facts.images, facts.open, facts.closed, facts.yes_no)
            numbers = "".join(f"{count:>10,}" for count in (*counts, facts.different_answers))
            lines.append(f"{split:<11}{numbers}{facts.majority:>9.1f}%")
        lines.append("")
        for split, facts in self.splits.items():
            frequent = ", ".join(
                f"{answer[:40] or '(nothing)'} {100 * count / facts.questions:.1f}%"
                for answer, count in facts.frequent_answers
            )
            lines.append(f"answers in {split}: {frequent}")
        lines.append("")
        for finding in self.findings:
            more = ", ..." if finding.count > len(finding.shown) else ""
            lines.append(f"{finding.severity.upper():<5} {finding.text}")
            lines.append(f"      {', '.join(finding.shown)}{more}")
        return lines if self.findings else [*lines, "nothing was found to be wrong"]


def examine(dataset: Dataset, *, progress: Progress | None = None) -> Audit:
    """Audit a dataset. The first time its images are decoded, about which ``progress`` is told.

    Raises:
        BadInput: an image can't be read.
    """
    found = [
        *findings.shared(dataset, "test", ("train", "validation")),
        *findings.shared(dataset, "validation", ("train",)),
        *findings.copies(dataset),
        *findings.lookalikes(dataset, progress),
        *findings.flat(dataset, progress),
        *findings.contradictions(dataset),
        *findings.unanswerable(dataset),
    ]
    order = ("stop", "warn", "note")
    return Audit(
        dataset=dataset.name,
        description=dataset.description,
        digest=dataset.digest,
        splits={split: _facts(dataset, examples) for split, examples in dataset.splits().items()},
        findings=tuple(sorted(found, key=lambda finding: order.index(finding.severity))),
    )


def _facts(dataset: Dataset, examples: Sequence[Example]) -> Facts:
    answers = Counter(normalize(example.answer) for example in examples)
    return Facts(
        questions=len(examples),
        images=len({dataset.contents[example.image_id] for example in examples}),
        open=sum(example.answer_type == "open" for example in examples),
        closed=sum(example.answer_type == "closed" for example in examples),
        yes_no=answers["yes"] + answers["no"],
        different_answers=len(answers),
        frequent_answers=tuple(answers.most_common(FREQUENT)),
        majority=majority_baseline(dataset.train, examples)["overall"],
    )
