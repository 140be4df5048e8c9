"""Topics that can be asked about the general pictures, and the ways to ask.

In every form ``{shape}`` and ``{spots}`` stand for one of the names below, and ``{value}`` for a
value of the topic.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.model_tools.tiny_pretraining.pictures import COLOURS, NOISES, SPOT_RADIUS_PX
from trainables.model_tools.tiny_pretraining.shapes import OUTLINES, SPOTS, TEXTURES

NUMBERS = ("zero", "one", "two", "three", "four", "five")
SPOT_NAMES = ("spots", "marks", "dots", "blobs", "little shapes", "small things")
SHAPE_NAMES = ("shape", "figure", "object", "thing", "form", "body")


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A fact that can be asked for: its values, and the ways to ask for it."""

    values: tuple[str, ...]
    open_forms: tuple[str, ...]  # forms that are answered with the value
    closed_forms: tuple[str, ...]  # forms with {value} filled in, answered with yes or no
    needs_spots: bool = False


TOPICS: dict[str, Topic] = {
    "outline": Topic(
        values=tuple(OUTLINES),
        open_forms=(
            "what is the big {shape} ?",
            "which {shape} do you see in the picture ?",
            "what kind of {shape} is drawn here ?",
            "name the large {shape}",
            "what does the picture show ?",
            "what is the main {shape} of the image ?",
            "what is this ?",
        ),
        closed_forms=(
            "is the big {shape} a {value} ?",
            "is this a {value} ?",
            "does the picture show a {value} ?",
            "do you see a {value} ?",
            "is there a {value} in the image ?",
            "is a {value} drawn here ?",
        ),
    ),
    "texture": Topic(
        values=tuple(TEXTURES),
        open_forms=(
            "what texture does the big {shape} have ?",
            "how is the {shape} filled ?",
            "what is the pattern of the {shape} ?",
            "name the texture of the picture",
            "what does the surface of the {shape} look like ?",
            "which pattern is it ?",
        ),
        closed_forms=(
            "is the big {shape} {value} ?",
            "is the texture {value} ?",
            "does the {shape} look {value} ?",
            "is it filled with a {value} pattern ?",
        ),
    ),
    "ground": Topic(
        values=("dark", "bright"),
        open_forms=(
            "is the ground dark or bright ?",
            "how bright is the background ?",
            "what is behind the {shape} like , dark or bright ?",
        ),
        closed_forms=("is the background {value} ?", "does the {shape} lie on {value} ground ?"),
    ),
    "tone": Topic(
        values=("bright", "dark"),
        open_forms=(
            "next to its ground , is the {shape} bright or dark ?",
            "how does the {shape} look against the background ?",
        ),
        closed_forms=("is the {shape} {value} against the background ?",),
    ),
    "extent": Topic(
        values=("wide", "tall", "even"),
        open_forms=(
            "is the {shape} wide , tall or even ?",
            "how is the {shape} stretched ?",
            "which way does the {shape} extend ?",
        ),
        closed_forms=("is the {shape} {value} ?", "does the {shape} look {value} ?"),
    ),
    "breadth": Topic(
        values=("small", "medium", "large"),
        open_forms=(
            "how large is the main {shape} ?",
            "what is the size of the big {shape} ?",
            "how much room does the {shape} take ?",
        ),
        closed_forms=("is the main {shape} {value} ?", "is the size of the big {shape} {value} ?"),
    ),
    "place": Topic(
        values=("left", "middle", "right"),
        open_forms=(
            "where is the big {shape} ?",
            "where in the picture does the {shape} stand ?",
            "in which part of the image is the {shape} ?",
        ),
        closed_forms=(
            "is the big {shape} in the {value} part ?",
            "does the {shape} stand on the {value} ?",
        ),
    ),
    "rim": Topic(
        values=("bright", "dark", "none"),
        open_forms=("what rim does the {shape} have ?", "what is the line around the {shape} ?"),
        closed_forms=("is there a {value} line around the {shape} ?", "is the rim {value} ?"),
    ),
    "core": Topic(
        values=("bright", "dark", "none"),
        open_forms=("what core does the {shape} have ?", "what is in the center of the {shape} ?"),
        closed_forms=("is the core {value} ?", "does the {shape} have a {value} center ?"),
    ),
    "colour": Topic(
        values=tuple(COLOURS),
        open_forms=("what color is the picture ?", "which color is it ?", "name the color"),
        closed_forms=("is the picture {value} ?", "is {value} the color of the image ?"),
    ),
    "noise": Topic(
        values=NOISES,
        open_forms=("is the picture clean or noisy ?", "how good is the image ?"),
        closed_forms=("is the picture {value} ?", "is this a {value} image ?"),
    ),
    "spot_shape": Topic(
        values=tuple(SPOTS),
        open_forms=(
            "what shape are the {spots} ?",
            "which form do the {spots} have ?",
            "what are the {spots} like ?",
        ),
        closed_forms=("are the {spots} of {value} shape ?", "is each of the {spots} a {value} ?"),
        needs_spots=True,
    ),
    "spot_size": Topic(
        values=tuple(SPOT_RADIUS_PX),
        open_forms=(
            "how large are the {spots} ?",
            "how big are the {spots} ?",
            "what is the size of the {spots} ?",
            "are the {spots} small , medium or large ?",
        ),
        closed_forms=("are the {spots} {value} ?", "is the size of the {spots} {value} ?"),
        needs_spots=True,
    ),
    "spot_tone": Topic(
        values=("bright", "dark"),
        open_forms=("are the {spots} bright or dark ?", "how bright are the {spots} ?"),
        closed_forms=("are the {spots} {value} ?", "do you see {value} {spots} ?"),
        needs_spots=True,
    ),
    "spot_side": Topic(
        values=("left", "right", "both"),
        open_forms=(
            "on which side are the {spots} ?",
            "where are the {spots} , left or right ?",
            "which half of the picture has {spots} ?",
            "on what side do the {spots} lie ?",
            "where do you see {spots} ?",
        ),
        closed_forms=(
            "are all {spots} on the {value} ?",
            "is {value} the side of the {spots} ?",
        ),
        needs_spots=True,
    ),
    "spot_height": Topic(
        values=("top", "bottom", "both"),
        open_forms=(
            "are the {spots} at the top or at the bottom ?",
            "how high do the {spots} lie ?",
            "in which half from top to bottom are the {spots} ?",
        ),
        closed_forms=("are all {spots} at the {value} ?",),
        needs_spots=True,
    ),
}

HOW_MANY = (
    "how many {spots} are there ?",
    "how many {spots} do you see ?",
    "count the {spots}",
    "what is the number of {spots} ?",
    "how many {spots} lie on the {shape} ?",
)
IS_NUMBER = ("are there {value} {spots} ?", "do you see {value} {spots} ?")
ANY_SPOTS = (
    "are there any {spots} ?",
    "do you see {spots} ?",
    "does the {shape} have {spots} ?",
    "is anything on the {shape} ?",
    "has the picture any {spots} ?",
)
ANY_ON_SIDE = ("are there {spots} on the {value} ?", "does the {value} half have {spots} ?")
SAME_SIDES = ("are there {spots} on both sides ?", "do both halves have {spots} ?")

# Any word can be made a name by a renaming question; these have nothing to do with pictures.
NEW_NAMES = (
    *("glass", "water", "stone", "bread", "paper", "music", "summer", "river", "garden", "letter"),
    *("x ray", "ct", "mri", "ultrasound", "axial", "coronal", "sagittal", "normal", "abnormal"),
    *("brain", "chest", "lung", "heart", "liver", "kidney", "spleen", "bladder", "pelvis", "head"),
    *("abdomen", "knee", "spine", "hip", "lungs", "kidneys", "neck", "hand", "foot", "breast"),
    *("yes", "no", "left", "right", "both", "small", "medium", "large", "bright", "dark", "none"),
)
RENAMED_TOPICS = (
    *("outline", "texture", "place", "extent", "breadth", "ground"),
    *("spot_size", "spot_shape", "spot_side", "spot_tone"),
)
RENAMING = (
    "call {one} {first} and {other} {second} . what is this ?",
    "{one} means {first} , {other} means {second} . what is it ?",
    "if it is {one} say {first} , if it is {other} say {second}",
    "say {first} for {one} and {second} for {other}",
    "the word for {one} is {first} and for {other} {second} . which word ?",
)
