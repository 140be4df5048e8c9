"""Clinical observations that chest reports assert, counted apart from fluent wording.

The thirteen observations of CheXpert (Irvin et al. 2019, arXiv 1901.07031) are found by the words
below. A mention counts unless it is negated, which negspacy decides by the rules of NegEx (Chapman
et al. 2001, doi:10.1006/jbin.2001.1029), from which CheXpert's own labeler descends. A finding that
is only suspected counts as present. Nothing is downloaded.

The list of words is small and this project's own, not CheXpert's. Use the numbers to compare trials
of a study, and not to compare with published CheXpert or CheXbert scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from trainables.data.common.dataset import Example
from trainables.measures.common.measure import Column, Measure

OBSERVATIONS = {
    "enlarged cardiomediastinum": (
        *("enlarged cardiomediastinum", "cardiomediastinal enlargement", "widened mediastinum"),
        *("mediastinal widening", "enlarged mediastinum", "prominent mediastinum"),
    ),
    "cardiomegaly": (
        *("cardiomegaly", "enlarged heart", "cardiac enlargement", "heart is enlarged"),
        *(
            "heart size is enlarged",
            "enlarged cardiac silhouette",
            "cardiac silhouette is enlarged",
        ),
        *("heart is mildly enlarged", "heart size is mildly enlarged"),
    ),
    "lung opacity": (
        *("opacity", "opacities", "opacification", "airspace disease", "infiltrate", "infiltrates"),
        *("interstitial markings", "reticulation"),
    ),
    "lung lesion": ("nodule", "nodules", "mass", "masses", "granuloma", "granulomas", "lesion"),
    "edema": ("edema", "vascular congestion", "pulmonary congestion", "heart failure"),
    "consolidation": ("consolidation", "consolidations", "consolidative"),
    "pneumonia": ("pneumonia", "bronchopneumonia"),
    "atelectasis": ("atelectasis", "atelectatic", "volume loss", "collapse"),
    "pneumothorax": ("pneumothorax", "pneumothoraces"),
    "pleural effusion": ("effusion", "effusions", "pleural fluid", "blunting"),
    "pleural other": ("pleural thickening", "pleural scarring", "pleural plaque", "fibrothorax"),
    "fracture": ("fracture", "fractures", "fractured"),
    "support devices": (
        *("tube", "catheter", "pacemaker", "picc", "sternotomy", "port-a-cath", "endotracheal"),
        *("central line", "defibrillator", "sternal wires", "surgical clips", "stent"),
    ),
}
"""Observation -> words or phrases, one of which must occur."""


@cache
def _reader() -> Any:
    """A spaCy pipeline of rules only, without a trained model."""
    import spacy
    from negspacy import negation  # noqa: F401  # importing it registers "negex" with spaCy

    reader = spacy.blank("en")
    reader.add_pipe("sentencizer")
    ruler: Any = reader.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    ruler.add_patterns(
        [
            {"label": name, "pattern": phrase}
            for name, phrases in OBSERVATIONS.items()
            for phrase in phrases
        ]
    )
    reader.add_pipe("negex")
    return reader


@cache
def asserted(report: str) -> frozenset[str]:
    """Observations that a report says are present.

    >>> sorted(asserted("Cardiomegaly. No effusion or pneumothorax."))
    ['cardiomegaly']
    """
    return frozenset(e.label_ for e in _reader()(report.lower()).ents if not e._.negex)


def score(predicted: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Precision, recall and F1 in percent, over all observations of all reports (micro average).

    A number is nan where there is nothing to be right or wrong about.
    """
    pairs = [(asserted(p), asserted(e.answer)) for p, e in zip(predicted, examples, strict=True)]
    both = sum(len(said & true) for said, true in pairs)
    said, true = (sum(len(of) for of in side) for side in zip(*pairs, strict=True))
    shares = (both, said), (both, true), (2 * both, said + true)
    return {
        name: 100 * part / whole if whole else math.nan
        for name, (part, whole) in zip(MEASURE.columns, shares, strict=True)
    }


MEASURE = Measure(
    of="report",
    columns={
        "observations_precision": Column(of="reports"),
        "observations_recall": Column(of="reports"),
        "observations_f1": Column(title="observations F1 %", of="reports"),
    },
    score=score,
)
