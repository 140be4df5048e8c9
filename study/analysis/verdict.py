"""The verdict of a study: what is shown and what is not, and then caveats, each in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from study.analysis.result_types import ArmResult
from study.statistics import pairwise
from study.statistics.score_types import ArmPair, Claim, Finding, PartComparison
from study.trials.gain import GainUnit
from study.trials.record import Outcome

ENDED = {
    Outcome.DIVERGED: "diverged",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.FAILED: "failed",
}
"""Outcome that gives no score -> the words for it in a sentence."""
LESS: Mapping[str, str] = {
    Outcome.DIVERGED: "the space's learning rates may be too high",
    Outcome.OUT_OF_MEMORY: "a smaller batch_size in the space's budget would take less",
}
"""Outcome -> advice for an arm whose trials all end with it."""
SCOPE: Mapping[Claim, str] = {
    Claim.MODELS: "This is about these tuned models, of one search an arm, and not about the "
    "methods: another search may end elsewhere.",
    Claim.METHODS: "This is about the methods, each tuned with this budget: how far apart their "
    "searches end is in the intervals.",
    Claim.SPLITS: "This describes what the splits of these data showed, and claims nothing of the "
    "methods or of other data.",
}
"""What findings are about -> the sentence on it."""
NAMED = 5
"""Arms that a sentence names at most; of more it names one less and counts the rest."""
ERROR = 200
"""Letters of an error that a sentence quotes."""


def answer(
    arms: Sequence[ArmResult],
    comparisons: Sequence[ArmPair],
    majority: float,
    errors: Mapping[str, str] = MappingProxyType({}),
    margin: float = 1.0,
    *,
    estimated: bool = False,
    claim: Claim = Claim.MODELS,
    scope: str = "",
    against: Sequence[str] = (),
) -> str:
    """The verdict: in its first line what is known of the best arm, and in each further line a
    caveat, or an arm that one might take instead.

    ``majority`` is the score of always giving the most frequent answer, ``errors`` an arm's first
    error in the search, of those that had any, ``margin`` the difference in percentage points that
    does not matter, ``estimated`` whether it was asked what arms may still gain, ``claim`` what the
    findings are about, ``scope`` the sentence on that (none: that of one study), and ``against``
    the arm with which each other arm was compared, one of each of several studies (none: all pairs
    were).
    """
    return "\n".join(
        _sentences(arms, comparisons, majority, errors, margin, estimated, claim, scope, against)
    )


def parts(text: str) -> tuple[str, list[str]]:
    """What a verdict found, and its caveats. Verdicts of earlier versions have no lines: they are
    all finding."""
    found, *caveats = text.split("\n")
    return found, caveats


def _sentences(
    arms: Sequence[ArmResult],
    comparisons: Sequence[ArmPair],
    majority: float,
    errors: Mapping[str, str],
    margin: float,
    estimated: bool,
    claim: Claim,
    scope: str,
    against: Sequence[str],
) -> list[str]:
    """The finding, and each caveat."""
    ranked = [arm.arm for arm in arms if arm.test]
    if not ranked:
        return ["No arm could be confirmed, so there is no answer.", *_dropped(arms, errors)]
    caveats = [*_caveats(arms, majority), *_unseeing(arms), *_untuned(arms, margin)]
    caveats += [*_in_loss(arms), *(_unknown(arms) if estimated else [])]
    caveats += _dropped(arms, errors)
    if len(ranked) == 1:
        found = f"Only {ranked[0]} could be confirmed: there is nothing to compare it with."
        return [found, *caveats]
    caveats = [scope or SCOPE[claim], *_supposing(arms, comparisons), *caveats]
    by = "" if arms[0].decides == "overall" else f"By {arms[0].decides.replace('_', ' ')}: "
    if missing := [name for name in against if name not in ranked]:
        found = (
            f"{_names(missing)}, with which the other arms were to be compared, could not be "
            "confirmed, so no arms are compared."
        )
        return [found, *caveats[1:]]
    if against and len(ranked) > 2:
        return [by + _compared_with(against, arms, comparisons, claim), *caveats]
    of_best = {c.second: c.deciding for c in comparisons if c.first == ranked[0]}
    as_good = [] if claim is Claim.SPLITS else _not_worse(ranked[0], comparisons)
    caveats = [*_cheaper(arms, ranked[0], as_good), *caveats]
    if len(of_best) == 1:
        (only,) = of_best.values()
        return [by + only.sentence, *_by_type(comparisons[0]), *caveats]
    if claim is Claim.SPLITS:
        return [by + _described(ranked[0], arms, of_best), *caveats]
    found, *needed = _ranking(ranked[0], arms, of_best, claim)
    return [by + found, *needed, *caveats]


def _supposing(arms: Sequence[ArmResult], comparisons: Sequence[ArmPair]) -> list[str]:
    """Condition of what was found of the arms of which no seed collapsed; none if nothing was
    found. A few seeds cannot show how often training collapses, so that what is claimed of them is
    true of trainings that do not collapse (``tests/benchmarks/RESULTS.md``)."""
    steady = [a.collapse for a in arms if a.test and a.collapse and not a.collapse.collapsed]
    if not steady or all(pair.deciding.finding is Finding.UNDECIDED for pair in comparisons):
        return []
    fewest = min(steady, key=lambda hurdle: hurdle.seeds)
    return [
        (
            f"It supposes that training does not collapse: with {fewest.seeds} seeds of an arm and "
            f"no collapse, up to {fewest.rate.high:.0f}% of its trainings may."
        )
    ]


def _ranking(
    best: str, arms: Sequence[ArmResult], of_best: Mapping[str, PartComparison], claim: Claim
) -> list[str]:
    """Two sentences on more than two arms, together: what is shown of the best one, and from which
    it cannot be told apart. Then, if there are such, what would tell it from the closest of them.
    """
    found = {
        finding: [a for a, c in of_best.items() if c.finding == finding] for finding in Finding
    }
    better, undecided = found[Finding.BETTER], found[Finding.UNDECIDED]
    margin = pairwise.margin_in_words(next(iter(of_best.values())).margin)
    if len(better) == len(of_best):
        closest = of_best[better[0]]
        small = f", which is less than {margin}" if closest.difference.high < closest.margin else ""
        by = pairwise.by_points(closest.difference, closest.p_holm)
        found_all = f"{best} is better than every other arm."
        return [f"{found_all} The closest is {better[0]}, lower by {by}{small}."]
    shown = []
    if better:
        names = _names(better)
        if len(better) > NAMED:
            names = f"{len(better)} of the {len(of_best)} other arms ({names})"
        shown.append(f"is better than {names}")
    if as_good := found[Finding.AS_GOOD]:
        shown.append(f"is as good as {_names(as_good)} to within {margin}")
    if not_worse := found[Finding.NOT_WORSE]:
        that = "that margin" if as_good else margin
        shown.append(f"is not worse than {_names(not_worse)} by more than {that} and may be better")
    head = f"{best} scores highest ({arms[0].overall.mean:.1f}%)"
    head += (
        f": it {'; it '.join(shown)}." if shown else ", but is not shown to be better than another."
    )
    if not undecided:
        return [head]
    closest = of_best[undecided[0]]
    by = pairwise.by_points(closest.difference, closest.p_holm)
    which = (
        f"{undecided[0]}, which is lower by {by}."
        if len(undecided) == 1
        else f"{_names(undecided)}; the closest is {undecided[0]}, lower by {by}."
    )
    return [f"{head} It cannot be told apart from {which}", pairwise.needed(closest, claim)]


def _described(best: str, arms: Sequence[ArmResult], of_best: Mapping[str, PartComparison]) -> str:
    """Sentences on more than two arms of which nothing is claimed: how far each is from the best
    one."""
    far, near = list[str](), list[str]()
    for arm, found in of_best.items():
        apart = found.difference
        clear = apart.low > 0 or apart.high < 0
        numbers = f" (by {apart.mean:.1f} points, {apart.low:.1f} to {apart.high:.1f})"
        (far if clear else near).append(arm + numbers * (len(of_best) <= NAMED))
    text = f"{best} scores highest ({arms[0].overall.mean:.1f}%)."
    if far:
        text += f" Intervals over splits leave out zero for {_names(far)}."
    if near:
        text += f" They hold zero for {_names(near)}."
    return f"{text} {pairwise.not_of_splits(next(iter(of_best.values())).seeds)}"


def _compared_with(
    against: Sequence[str],
    arms: Sequence[ArmResult],
    comparisons: Sequence[ArmPair],
    claim: Claim,
) -> str:
    """Sentences on more than two arms that were compared with one of them alone, or with a few:
    what was found of which, and the numbers of the first one that is better or, if none is, of the
    first one that cannot be told apart."""
    scores = {arm.arm: arm.overall.mean for arm in arms if arm.test}
    named = _names([f"{name} ({scores[name]:.1f}%)" for name in against])
    others = "no other" if len(against) == 1 else "no others"
    text = f"Each arm was compared with {named} and with {others}, as declared."
    for reference in against:
        pairs = [pair for pair in comparisons if reference in (pair.first, pair.second)]
        head = "" if len(against) == 1 else f"With {reference}: "
        text += f" {head}{_found_with(reference, pairs, claim)}"
        as_good = [] if claim is Claim.SPLITS else _not_worse(reference, pairs)
        text += "".join(f" {line}" for line in _cheaper(arms, reference, as_good))
    return text


def _found_with(against: str, comparisons: Sequence[ArmPair], claim: Claim) -> str:
    """What was found of each arm that was compared with one, and the numbers of one of them."""
    margin = pairwise.margin_in_words(comparisons[0].deciding.margin)
    found: dict[str, list[str]] = {}
    sentences: dict[str, str] = {}
    for pair in comparisons:
        higher = pair.second == against
        match pair.deciding.finding:
            case Finding.BETTER:
                what = "better" if higher else "worse"
            case Finding.AS_GOOD:
                what = f"as good to within {margin}"
            case Finding.NOT_WORSE if higher:
                what = f"not worse by more than {margin}, perhaps better"
            case Finding.NOT_WORSE:
                what = f"not better by more than {margin}, perhaps worse"
            case Finding.UNDECIDED if claim is Claim.SPLITS:
                mean = pair.deciding.difference.mean * (1 if higher else -1)
                what = f"{abs(mean):.1f} points {'higher' if mean > 0 else 'lower'}"
            case Finding.UNDECIDED:
                what = "not told apart from it"
        found.setdefault(what, []).append(pair.first if higher else pair.second)
        sentences.setdefault(what, pair.deciding.sentence)
    each = "; ".join(f"{_names(names)}: {what}" for what, names in found.items())
    numbers = sentences.get("better") or sentences.get("not told apart from it", "")
    return f"{each}. {numbers}".rstrip()


def _by_type(pair: ArmPair) -> list[str]:
    """Sentence on the types of questions on which two arms differ that do not differ on all
    questions; none if there are no such types. It is a lead and no finding, for the reason that
    ``study.statistics.pairwise`` gives."""
    parts = pair.parts
    if pair.deciding.finding == Finding.BETTER:
        return []
    differing = []
    for part in ("open", "closed"):
        if part in parts and parts[part].finding == Finding.BETTER:
            found = parts[part]
            sentence = pairwise.higher(pair.first, pair.second, found.difference, found.p_holm)
            differing.append(f"on {part} questions alone {sentence}")
    return [f"A lead, not a finding: {_names(differing)}."] if differing else []


def _not_worse(than: str, comparisons: Sequence[ArmPair]) -> list[str]:
    """The arms that are shown not to be worse than one by the margin, in the order of the pairs."""
    found = []
    for pair in comparisons:
        c = pair.deciding
        if pair.first == than and c.seeds > 1 and c.difference.high < c.margin:
            found.append(pair.second)
        if pair.second == than and c.seeds > 1 and c.difference.low > -c.margin:
            found.append(pair.first)
    return found


def _cheaper(arms: Sequence[ArmResult], than: str, as_good: Sequence[str]) -> list[str]:
    """Sentence on the arm that trains the fewest parameters of those that are as good as ``than``
    or better; none if that trains no fewer."""
    trained = {a.arm: a.costs["trained_parameters"] for a in arms if a.test}
    least = min(as_good, key=lambda arm: trained[arm], default=than)
    if trained[least] >= trained[than]:
        return []
    return [
        (f"{least} trains {trained[than] / trained[least]:.1f} times fewer parameters than {than}.")
    ]


def _caveats(arms: Sequence[ArmResult], majority: float) -> list[str]:
    """Sentences on arms that may be no better than the baseline, on arms with a single seed, and on
    those that were unsteady or collapsed."""
    tested = [arm for arm in arms if arm.test]
    said = []
    if weak := [arm.arm for arm in tested if arm.overall.low <= majority]:
        said.append(
            f"{_names(weak)} {_are(weak)} not shown to beat always giving the most frequent answer "
            f"({majority:.1f}%)."
        )
    if single := [arm.arm for arm in tested if len(arm.seeds) < 2]:
        said.append(f"{_names(single)} {_are(single)} known by one seed only.")
    for arm in tested:
        if arm.unsteady is not None:
            did, lr = arm.unsteady
            said.append(
                f"{arm.arm} was confirmed with twice the seeds, by rule, since a search trial of "
                f"it {did} at lr={lr:.3g}, which is no larger than its best's."
            )
        if (hurdle := arm.collapse) is not None and hurdle.collapsed:
            rate = hurdle.rate
            text = (
                f"Training of {arm.arm} collapsed with {hurdle.collapsed} of {hurdle.seeds} "
                f"seeds, which is compatible with a rate of {rate.low:.0f} to {rate.high:.0f}%"
            )
            if (well := hurdle.otherwise) is not None:
                text += f"; otherwise it scores {well.mean:.1f} ({well.low:.1f} to {well.high:.1f})"
            said.append(f"{text}.")
    return said


def _unseeing(arms: Sequence[ArmResult]) -> list[str]:
    """Sentence on the arms that are not shown to look at the image; none if there are none."""
    names = [arm.arm for arm in arms if arm.test and arm.unseeing]
    if not names:
        return []
    return [
        (
            f"{_names(names)} {_are(names)} not shown to answer better with the image than with a "
            "blank one."
        )
    ]


def _untuned(arms: Sequence[ArmResult], margin: float) -> list[str]:
    """Sentence on the arms that more search may still bring more than ``margin`` points; none if
    there are no such arms, or if losses could not be told in points."""
    gains = [
        f"{arm.arm} {arm.may_gain.text}"
        for arm in arms
        if arm.test and arm.may_gain and arm.may_gain.unit is GainUnit.POINTS
        if arm.may_gain.mean > margin
    ]
    if not gains:
        return []
    return [f"Not tuned to the end: by its own trials more search may still bring {_names(gains)}."]


def _in_loss(arms: Sequence[ArmResult]) -> list[str]:
    """Sentence on the arms whose loss more search may still lower, where losses could not be told
    in points; none if there are no such arms."""
    falls = [
        f"{arm.arm} by {arm.may_gain.numbers}"
        for arm in arms
        if arm.test and arm.may_gain and arm.may_gain.unit is GainUnit.LOSS
        if arm.may_gain.high > 0
    ]
    if not falls:
        return []
    return [
        (
            f"More search may still lower the validation loss: {_names(falls)}. What that is worth "
            "in points is unknown, since accuracy does not clearly follow the loss in these trials."
        )
    ]


def _unknown(arms: Sequence[ArmResult]) -> list[str]:
    """Sentence on the arms of which too little is known to say what they may still gain; empty if
    there are none."""
    unknown = [arm.arm for arm in arms if arm.test and arm.may_gain is None]
    if not unknown:
        return []
    return [
        (
            f"Too little is known of {_names(unknown)} to say what more search may still bring: "
            "a study with more trials (--trials) would tell."
        )
    ]


def _dropped(arms: Sequence[ArmResult], errors: Mapping[str, str]) -> list[str]:
    """Sentences on the arms whose search gave nothing to confirm, and on the confirmations that are
    not in an arm's score: to win means little where the worst seeds are missing."""
    said = _lossless(arms, errors)
    for arm in arms:
        begun = arm.confirmations
        ended = _ended(begun)
        if ended:
            rest = "its score is that of the rest" if arm.test else "so it has no score"
            said.append(f"Of {sum(begun.values())} confirmations of {arm.arm}, {ended}: {rest}.")
    return said


def _lossless(arms: Sequence[ArmResult], errors: Mapping[str, str]) -> list[str]:
    """Why arms have no settings that could be confirmed; those with the same reason together."""
    alike: dict[tuple[str, ...], list[ArmResult]] = {}
    for arm in arms:
        if arm.best is None and any(arm.trials.values()):
            alike.setdefault(tuple(how for how in Outcome if arm.trials.get(how)), []).append(arm)
    said = []
    for ways, some in alike.items():
        names, begun = _names([arm.arm for arm in some]), Counter[Outcome]()
        for arm in some:
            begun.update(arm.trials)
        if Outcome.COMPLETE in ways or Outcome.PRUNED in ways:
            said.append(f"No trial of {names} that reported a loss kept to --under.")
            continue
        every = "all " if len(ways) == 1 and begun.total() > 1 else ""
        text = f"No trial of {names} reported a loss: {every}{_ended(begun)}"
        error = next((errors[arm.arm] for arm in some if arm.arm in errors), "")
        if Outcome.FAILED in ways and error:
            text += f", the first with {error[:ERROR]!r}"
        elif len(ways) == 1 and ways[0] in LESS:
            text += f"; {LESS[ways[0]]}"
        said.append(f"{text}.")
    return said


def _ended(begun: Mapping[Outcome, int]) -> str:
    """Number of trials by each outcome that gives no score, in words."""
    return _names([f"{begun[how]} {ENDED[how]}" for how in ENDED if begun.get(how)])


def _are(names: Sequence[str]) -> str:
    """The verb that goes with the names."""
    return "is" if len(names) == 1 else "are"


def _names(names: Sequence[str]) -> str:
    """Names with commas, and ``and`` before the last; of more than ``NAMED`` the first ones and the
    number of the others."""
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
