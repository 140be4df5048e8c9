"""Cases of the phantom dataset: what each image is to show, decided before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.data._phantom.anatomy import organs_of
from trainables.data._phantom.bits import Bits, Deck

MODALITIES = ("x ray", "ct", "mri", "ultrasound")
PLANES = ("axial", "coronal", "sagittal")
ORGANS = ("bladder", "brain", "heart", "kidney", "knee", "liver", "lung", "pelvis")
SIDES = ("left", "right", "both")
SIZES = ("small", "medium", "large")
LESIONS = ("mass", "cyst")  # round findings: bright and dark ones


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one image is to show; "" and 0 mean that an attribute does not apply."""

    image_id: str
    seed: int  # decides everything about the image that no question asks for
    modality: str
    plane: str  # for ct and mri only
    organ: str
    finding: str  # "normal", "mass", "cyst", "fracture" (one) or "effusion"
    side: str = ""  # the half or halves of the image with lesions or effusion
    count: int = 0  # number of lesions
    size: str = ""  # size of the lesions, the same for all in an image


def cases_of(split: str, n: int, bits: Bits) -> list[Case]:
    """Make ``n`` cases in which each attribute is as balanced as the others allow."""
    modalities = Deck(bits, MODALITIES)
    planes = Deck(bits, PLANES)
    organs = {
        (modality, plane): Deck(bits, organs_of(modality, plane))
        for modality in MODALITIES
        for plane in (PLANES if modality in ("ct", "mri") else ("",))
    }
    findings = _Findings(bits)
    cases = []
    for index in range(n):
        modality = modalities.draw()
        plane = planes.draw() if modality in ("ct", "mri") else ""
        organ = organs[modality, plane].draw()
        finding, side, count, size = findings.draw(modality, plane, organ)
        cases.append(
            Case(
                image_id=f"{split}-{index:04d}",
                seed=bits.below(2**63),
                modality=modality,
                plane=plane,
                organ=organ,
                finding=finding,
                side=side,
                count=count,
                size=size,
            )
        )
    return cases


class _Findings:
    """Draws balanced findings: fractures for bones, effusions for lungs, lesions for all organs."""

    def __init__(self, bits: Bits) -> None:
        lesions = ("mass", "mass", "cyst", "cyst")
        self._anywhere = Deck(bits, ("normal", "normal", *lesions))
        self._bones = Deck(bits, ("normal", "normal", *lesions, "fracture", "fracture", "fracture"))
        self._lungs = Deck(bits, ("normal", "normal", *lesions, "effusion", "effusion", "effusion"))
        self._sides = Deck(bits, SIDES)
        self._halves = Deck(bits, ("left", "right"))
        self._counts = Deck(bits, (1, 1, 1, 1, 2, 2, 3, 3, 4, 4))
        # Several lesions lie on both sides as often as on one; a single one lies on one side.
        self._sides_of_several = Deck(bits, ("left", "right", "both", "both"))
        # Sizes that fit next to one another, for one, two, and three or more lesions on a side.
        self._sizes = [Deck(bits, SIZES), Deck(bits, ("small", "medium")), Deck(bits, ("small",))]

    def draw(self, modality: str, plane: str, organ: str) -> tuple[str, str, int, str]:
        """Draw the next (finding, side, count, size) for a modality, plane and organ."""
        if organ == "knee" and modality != "mri":
            finding = self._bones.draw()
        elif organ == "lung":
            finding = self._lungs.draw()
        else:
            finding = self._anywhere.draw()
        if finding == "effusion":  # in a view from the side, the two lungs overlap
            return finding, "" if plane == "sagittal" else self._sides.draw(), 0, ""
        if finding not in LESIONS:
            return finding, "", 0, ""
        count = self._counts.draw()
        side = self._halves.draw() if count == 1 else self._sides_of_several.draw()
        on_one_side = (count + 1) // 2 if side == "both" else count
        return finding, side, count, self._sizes[min(on_one_side, 3) - 1].draw()
