"""Damages files: bytes are cut, changed or added, and values of JSON get other types and sizes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

DEEP, LONG, BARE = "@deep@", "@long@", "@bare@"
"""Texts in place of what ``json`` does not write: lists in lists, a number of 5,000 digits, and a
word that is no JSON."""
INSTEAD = {
    f'"{DEEP}"': "[" * 20_000 + "]" * 20_000,
    f'"{LONG}"': "9" * 5000,
    f'"{BARE}"': "undefined",
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), DEEP, LONG, BARE),
    *("", " ", "x" * 10_000, "../../x", "/etc/passwd", "a\nb", "\0", "\x1b[31m", "\ud83d", "病"),
    *("nan", "1e9", "-1", "true", "[]", "{}", "lora", "<script>", "'; --", "{{ 1 }}", "=1+1"),
    *([], {}, [None], [[]], [1, "a", {}], {"": 0}, {"a": {"b": []}}, ["x"] * 1000),
)
"""Values of any type that another is replaced by."""


def of_bytes(content: bytes, chance: random.Random) -> bytes:
    """Content with a few bytes changed, cut out, added or doubled."""
    held = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(held) + 1)
        length = chance.choice((1, 1, 2, 4, 64, 1024))
        match chance.randrange(6):
            case 0:
                del held[place:]
            case 1:
                del held[place : place + length]
            case 2:
                held[place:place] = chance.randbytes(length)
            case 3:
                held[place : place + 1] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF, 0xC3))])
            case 4:
                held[place:place] = held[place : place + length]
            case 5 if held:
                place = chance.randrange(len(held))
                held[place] ^= 1 << chance.randrange(8)
    return bytes(held)


def of_json(content: bytes, chance: random.Random) -> bytes:
    """A JSON document with a few of its values changed, dropped, doubled or renamed."""
    whole = [json.loads(content)]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        holder, key = chance.choice(list(_places(whole)))
        match chance.randrange(6):
            case 0 if holder is not whole:
                del holder[key]
            case 1 if isinstance(holder, dict):
                name = chance.choice(("", "x", f"{key}s", "version", "__class__"))
                holder[name] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 3 if isinstance(holder[key], int | float | str):
                holder[key] = _near(holder[key], chance)
            case _:
                holder[key] = copy.deepcopy(chance.choice(ODD))
    text = json.dumps(whole[0])
    for placeholder, instead in INSTEAD.items():
        text = text.replace(placeholder, instead)
    return text.encode()


def of_lines(content: bytes, chance: random.Random) -> bytes:
    """A file with a JSON document in each line, of which one or two are changed, moved, doubled or
    dropped."""
    lines = content.splitlines()
    for _ in range(chance.choice((1, 1, 2))):
        place = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0 if len(lines) > 1:
                del lines[place]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), lines[place])
            case _:
                try:
                    lines[place] = of_json(lines[place], chance)
                except (ValueError, RecursionError):  # it was damaged before
                    lines[place] = of_bytes(lines[place], chance)
    return b"\n".join(lines) + b"\n"


Mutation = Callable[[bytes, random.Random], bytes]


def _near(value: Any, chance: random.Random) -> Any:
    """Another value of the same type, mostly."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return chance.choice((value[:-1], value + "x", value.upper(), value * 50, f" {value}"))
    return chance.choice((-value, value + 1, value * 10**6, value * 1.5, str(value)))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object in a document with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
