"""Which slices a hand has touched since the software wrote them. Pure arrays, no scene.

A fingerprint per slice is kept with the segmentation. A slice whose fingerprint differs now has been edited, whatever
tool did it, in this session or an earlier one.
"""

import zlib
from collections.abc import Mapping

import numpy as np


def sliceFingerprints(masks: Mapping[str, np.ndarray], axis: int) -> list[int]:
    """One number a slice across `axis` (0, 1, 2 for i, j, k) of the masks [k, j, i], over all bones by name.

    A slice without any bone has fingerprint 0, so that bones which are not there do not matter.
    """
    fingerprints: list[int] | None = None
    for bone in sorted(masks):
        slices = np.moveaxis(masks[bone] > 0, 2 - axis, 0)
        if fingerprints is None:
            fingerprints = [0] * len(slices)
        for index in np.flatnonzero(slices.any(axis=(1, 2))):
            packed = np.packbits(slices[index]).tobytes()
            fingerprints[index] = zlib.crc32(packed, zlib.crc32(bone.encode(), fingerprints[index]))
    return fingerprints or []


def touchedSlices(before: list[int], now: list[int]) -> list[int]:
    """Slices that a hand has changed. Without a record (another grid, or never written by us): all that hold a bone."""
    if len(before) != len(now):
        return [index for index, fingerprint in enumerate(now) if fingerprint]
    return [index for index, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]


def keepSlices(new: np.ndarray, old: np.ndarray, axis: int, kept: list[int]) -> np.ndarray:
    """`new` with the slices `kept` across `axis` taken from `old`; arrays [k, j, i]."""
    merged = new.copy()
    np.moveaxis(merged, 2 - axis, 0)[kept] = np.moveaxis(old, 2 - axis, 0)[kept]
    return merged
