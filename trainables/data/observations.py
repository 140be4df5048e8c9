"""What a chest report says is there: clinical wording, counted apart from fluent wording.

The thirteen observations of CheXpert (Irvin et al. 2019, arXiv 1901.07031) are looked for by the
words below. A mention counts unless it is denied, which negspacy decides by the rules of NegEx
(Chapman et al. 2001, doi:10.1006/jbin.2001.1029), those that CheXpert's own labeler goes back to. A
finding that is only suspected counts as one that is there. Nothing is downloaded.

It is a small list by this project, not CheXpert's: its numbers compare trials of a study, and are
not to be held against published CheXpert or CheXbert scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

MEASURES = ("observations_precision", "observations_recall", "observations_f1")

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
"""Observation -> words of which one must be said."""


@cache
def _reader() -> Any:
    """A spaCy pipeline of rules alone."""
    import spacy
    from negspacy import negation  # noqa: F401  # its import is what makes spaCy know it

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
    """The observations that a report says are there.

    >>> sorted(asserted("Cardiomegaly. No effusion or pneumothorax."))
    ['cardiomegaly']
    """
    return frozenset(e.label_ for e in _reader()(report.lower()).ents if not e._.negex)


def score(predicted: Sequence[str], reports: Sequence[str]) -> dict[str, float]:
    """``MEASURES`` in percent, over all observations of all reports (micro average); nan where
    there is nothing to be right or wrong about."""
    pairs = [(asserted(p), asserted(r)) for p, r in zip(predicted, reports, strict=True)]
    both = sum(len(said & true) for said, true in pairs)
    said, true = (sum(len(of) for of in side) for side in zip(*pairs, strict=True))
    shares = (both, said), (both, true), (2 * both, said + true)
    return {
        measure: 100 * part / whole if whole else math.nan
        for measure, (part, whole) in zip(MEASURES, shares, strict=True)
    }
