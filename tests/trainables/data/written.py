"""Files of images written byte by byte, as Pillow writes none: with more than 8 bits a channel."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[np.uint16]

SIDE = 8  # pixels, of those that have no pixels of their own


def png(
    samples_HWC: Samples, *, interlaced: bool = False, key: tuple[int, ...] = (), turn: int = 0
) -> bytes:
    """A PNG of 16 bits; its lines are stored as differences to the one above or to the left."""
    height, width, channels = samples_HWC.shape
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    steps = [*steps, (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    data = b""
    for top, left, down, right in steps:
        passed = samples_HWC[top::down, left::right].astype(">u2")
        lines = passed.reshape(len(passed), -1).view(np.uint8)
        for number, line in enumerate(lines):
            before = lines[number - 1] if number else np.zeros_like(line)
            beside = np.pad(line, (2 * channels, 0))[: len(line)]
            data += (
                b"\2" + (line - before).tobytes()
                if number % 2
                else b"\1" + (line - beside).tobytes()
            )
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)]
    if key:
        parts.append(b"tRNS" + struct.pack(f">{channels}H", *key))
    if turn:
        exif = Image.Exif()
        exif[0x0112] = turn
        parts.append(b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0"))
    parts += [b"IDAT" + zlib.compress(data), b"IEND"]
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    samples_HWC: NDArray[Any],
    *,
    order: str = "<",
    deflated: bool = False,
    colours: int | None = None,
    beside: int | None = None,
    apart: bool = False,
    turn: int = 1,
) -> bytes:
    """A TIFF in strips of three lines, or with its channels apart.

    Args:
        samples_HWC: of any type of numbers.
        order: of bytes, as struct has it.
        deflated: compressed.
        colours: what the values stand for, by the number that the format has for it.
        beside: what the last channel is, by its number.
        apart: the channels are stored one after another.
        turn: the orientation.
    """
    height, width, channels = samples_HWC.shape
    kind = samples_HWC.dtype.newbyteorder(order)
    lines = height if apart else 3
    planes = np.moveaxis(samples_HWC, -1, 0) if apart else samples_HWC[None]
    strips = [
        p[i : i + lines].astype(kind).tobytes() for p in planes for i in range(0, height, lines)
    ]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    offsets = list(np.cumsum([8, *map(len, strips)]))
    colours = (2 if channels > 2 else 1) if colours is None else colours
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * kind.itemsize] * channels),
        259: ("H", [8 if deflated else 1]),
        262: ("H", [colours]),
        273: ("I", offsets[:-1]),
        274: ("H", [turn]),
        277: ("H", [channels]),
        278: ("I", [lines]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if apart else 1]),
        **({} if beside is None else {338: ("H", [beside])}),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[kind.kind]] * channels),
    }
    after = offsets[-1] + 2 + 12 * len(tags) + 4
    entries = values = b""
    for tag, (letter, numbers) in tags.items():
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            place, values = struct.pack(f"{order}I", after + len(values)), values + packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[letter], len(numbers)) + place
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", offsets[-1])
    count = struct.pack(f"{order}H", len(tags))
    return head + b"".join(strips) + count + entries + bytes(4) + values


def ppm(samples_HWC: Samples, brightest: int = 65535) -> bytes:
    """A PPM of 16 bits, of which ``brightest`` is white."""
    height, width, channels = samples_HWC.shape
    kind = {1: 5, 3: 6}[channels]
    return f"P{kind} {width} {height} {brightest}\n".encode() + samples_HWC.astype(">u2").tobytes()


def sgi(samples_HWC: Samples, *, packed: bool = False) -> bytes:
    """An SGI of 16 bits; one that says it is packed is not."""
    height, width, channels = samples_HWC.shape
    dimensions = 2 if channels == 1 else 3
    head = struct.pack(">hBBHHHH", 474, packed, 2, dimensions, width, height, channels)
    return head.ljust(512, b"\0") + np.moveaxis(samples_HWC, -1, 0).astype(">u2").tobytes()


def _of_pillow(mode: str, kind: str, **settings: Any) -> bytes:
    """Of 8 bits, as Pillow writes it."""
    written = io.BytesIO()
    Image.new(mode, (32, 32), 200).save(written, kind, **settings)
    return written.getvalue()


def jpeg2000(mode: str, **settings: Any) -> bytes:
    """Which says in its marker of sizes that its channels have 12 bits."""
    whole = bytearray(_of_pillow(mode, "JPEG2000", **settings))
    depths = whole.index(b"\xff\x4f\xff\x51") + 4 + 38
    whole[depths : depths + 3 * len(mode) : 3] = bytes([11] * len(mode))
    return bytes(whole)


def avif() -> bytes:
    """Which says in its settings that its channels have 10 bits."""
    whole = bytearray(_of_pillow("RGB", "AVIF"))
    whole[whole.index(b"av1C") + 6] |= 0x40
    depths = whole.index(b"pixi") + 9
    whole[depths : depths + 3] = bytes([10] * 3)
    return bytes(whole)


def icon(png: bytes) -> bytes:
    """An icon that holds a PNG."""
    head = struct.pack("<HHH", 0, 1, 1)
    return head + struct.pack("<BBBBHHII", SIDE, SIDE, 0, 0, 1, 48, len(png), 22) + png


def dds(*masks: int) -> bytes:
    """Colours in 32 bits, each where its mask has ones."""
    pixels = struct.pack("<II4s5I", 32, 0x40, b"", 32, *masks, 0)
    head = struct.pack("<7I44x", 124, 0x1007, SIDE, SIDE, 4 * SIDE, 0, 0)
    return b"DDS " + head + pixels + bytes(20) + bytes(4 * SIDE * SIDE)
