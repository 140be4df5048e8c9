"""A small random BLIP-2."""

from functools import partial

from tests.trainables import made_blip2
from trainables.models.blip_2 import Blip2

small = partial(made_blip2.small, Blip2)
