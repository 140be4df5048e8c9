"""A small random InstructBLIP."""

from functools import partial

from tests.trainables import made_blip2
from trainables.models.instructblip import InstructBlip

small = partial(made_blip2.small, InstructBlip)
