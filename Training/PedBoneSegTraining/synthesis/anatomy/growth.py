"""What age does: size, ossification, growth plates, cartilage.

Ages are textbook values for the average of girls and boys, rounded; every exam has its own bone age about them.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .model import Body
from .shapes import step

ADULT = 18.0


@dataclass(frozen=True)
class Center:
    """A center of ossification, years: it appears, fills its cartilage, and fuses."""

    appears: float
    complete: float
    fuses: float
    rim: float  # cartilage around it when it appears, mm of an adult-sized bone


CENTERS = {
    "femur.distal": Center(-0.5, 13, 16, 9),
    "tibia.proximal": Center(-0.2, 13, 16, 9),
    "tibia.tubercle": Center(9, 13, 16, 6),
    "fibula.proximal": Center(3.5, 13, 16, 9),
    "patella": Center(3, 11, 99, 6),
    "tibia.distal": Center(0.5, 11, 15.5, 6),
    "fibula.distal": Center(1, 12, 16, 5),
    "talus": Center(-1, 11, 99, 5),
    "calcaneus": Center(-1, 11, 99, 5),
    "calcaneus.apophysis": Center(7, 12, 15, 6),
    "tarsal": Center(1, 11, 99, 6),
    "metatarsal.base": Center(0, 6, 15, 3),
    "fifth.apophysis": Center(10, 13, 15, 3),
    "humerus.proximal": Center(0.2, 12, 18, 14),
    "scapula": Center(-3, 12, 99, 4),
    "coracoid": Center(1, 13, 16, 8),
    "acromion": Center(13, 16, 18.5, 5),
    "clavicle": Center(-2, 10, 99, 2),
    "rib": Center(-3, 5, 99, 1),
    "femur.head": Center(0.4, 11, 16.5, 12),
    "femur.trochanter": Center(4, 13, 16.5, 12),
    "pelvis": Center(-2, 12, 14.5, 2),
    "humerus.distal": Center(1, 10, 14.5, 9),
    "humerus.medial": Center(5.5, 11, 16, 6),
    "ulna.olecranon": Center(9, 13, 15, 7),
    "radius.head": Center(5, 11, 15, 6),
}

# stature, cm, at ages 2, 3, … 18: average of both sexes
_STATURE = (87, 95.5, 102.5, 109, 115.5, 121.5, 127.5, 133, 138.5, 143.5, 149.5, 156, 162, 166, 168.5, 170, 170.5)


def size_at(age: float) -> float:
    """Length of a bone as a part of the adult's, from 2 years (about 0.52) up."""
    return round(float(np.interp(age, np.arange(2, 19), _STATURE)) / 170.5, 5)


def shaft_width(age: float) -> float:
    """Width of a shaft against the bone's ends, as a part of the adult's."""
    return 0.78 + 0.22 * min(age, ADULT) / ADULT


def plate_thickness(age: float) -> float:
    """Millimeters, as MR shows it (the plate and the zone of provisional calcification)."""
    return float(np.interp(age, (2, 8, 14, 17), (2.2, 1.6, 1.1, 0.8)))


def cartilage_thickness(age: float) -> float:
    """Articular cartilage of the knee, one side, mm; a young child's unossified rim lies under it."""
    return float(np.interp(age, (2, 6, 12, 18), (2.0, 2.3, 2.4, 2.1)))


def rim(center: str, bone_age: float, size: float) -> float | None:
    """Millimeters of cartilage that still surround the ossified part; None before the center appears."""
    c = CENTERS[center]
    if bone_age < c.appears:
        return None
    grown = min((bone_age - c.appears) / (c.complete - c.appears), 1.0)
    return c.rim * size * (1 - grown) ** 1.5


def is_open(center: str, bone_age: float) -> bool:
    return bone_age < CENTERS[center].fuses


def ossify(body: Body, center: str | None, bone_age: float, size: float, thickness: float, voxel: float):
    """→ (signed distance of the ossified bone, height above the nearest open plate's middle or None), mm.

    `body` is in millimeters of the child, sampled every `voxel` mm. An end whose center has not appeared is cut off at
    its plate; one that has is its own shape less the rim, which begins softly at the plate, as the bevelled epiphyses
    of children do.
    """
    bone, plate = body.surface, None
    if center is not None:
        left = rim(center, bone_age, size)
        bone = torch.full_like(bone, 100.0) if left is None else _nucleus(bone, left, voxel)
    for end in body.ends:
        left, h = rim(end.center, bone_age, size), end.height
        if left is None:
            bone = torch.maximum(bone, h + thickness / 2)
            continue
        if left > 0.1:
            share = step(h, -thickness / 2, thickness / 2 + 0.5 * left)
            bone = torch.lerp(bone, _nucleus(body.surface, left, voxel), share)
        if is_open(end.center, bone_age):
            plate = h if plate is None else torch.where(h.abs() < plate.abs(), h, plate)
    return bone, plate


def _nucleus(surface: torch.Tensor, left: float, voxel: float) -> torch.Tensor:
    """The ossified middle of a cartilage model: further inside by `left` mm and rounder than it.

    A model that is thin itself keeps a nucleus: half as much again is the most that rounding takes, and 0.6 of the
    model's own depth all together.
    """
    left = min(left, 0.4 * float(-surface.min()))
    if left < 0.1:
        return surface
    reach = max(round(left / voxel), 1)
    rounded = surface[None, None]
    for _ in range(2):
        padded = torch.nn.functional.pad(rounded, (reach,) * 6, mode="replicate")
        rounded = torch.nn.functional.avg_pool3d(padded, 2 * reach + 1, 1)
    return torch.minimum(torch.maximum(rounded[0, 0] + 0.8 * left, surface + 0.5 * left), surface + 1.5 * left)
