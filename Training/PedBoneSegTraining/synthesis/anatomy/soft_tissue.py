"""From strands and bones to muscles, fat planes, skin and the lumps that must not be taken for bone."""

from dataclasses import replace

import numpy as np
import torch

from .draw import Draw
from .model import Strand
from .shapes import length, union
from .space import Box, Space
from .tissues import Tissue


def strand_distance(p: torch.Tensor, strand: Strand) -> torch.Tensor:
    """Distance to a strand's surface over points [3, …]."""
    best = None
    for k in range(len(strand.path) - 1):
        a, b = strand.path[k], strand.path[k + 1]
        axis = b - a
        q = [p[i] - float(a[i]) for i in range(3)]
        t = (sum(q[i] * float(axis[i]) for i in range(3)) / max(float(axis @ axis), 1e-6)).clamp(0, 1)
        off = [q[i] - t * float(axis[i]) for i in range(3)]
        squared = off[0] ** 2 + off[1] ** 2 + off[2] ** 2
        if strand.flat is not None:
            across = sum(off[i] * float(strand.flat[i]) for i in range(3))
            squared = squared + (strand.aspect**2 - 1) * across**2
        ra, rb = strand.radii[k], strand.radii[k + 1]
        d = squared.clamp(min=1e-9).sqrt() - (ra + (rb - ra) * t)
        best = d if best is None else torch.minimum(best, d)
    return best


def strand_box(space: Space, strand: Strand, level: int, margin: float) -> Box:
    reach = max(strand.radii) + margin
    return space.box(strand.path.min(0) - reach, strand.path.max(0) + reach, level)


def empty(box: Box) -> bool:
    return any(s.stop <= s.start for s in box)


def muscles(space: Space, p: torch.Tensor, strands: list[Strand], septum: torch.Tensor, more: torch.Tensor):
    """→ (flesh, group) on level 1: flesh > 0 inside a muscle, mm; group its number.

    Where muscles would overlap, each keeps what is nearer to its own axis, and a septum of fat runs between. They are
    thicker than their strands by `more` mm, a field.
    """
    reach = 4.0 + float(more.max())
    shape = space.shape(1)
    first = torch.full(shape, 50.0, device=space.device)
    second, group = first.clone(), torch.zeros(shape, dtype=torch.uint8, device=space.device)
    for number, strand in enumerate((s for s in strands if s.tissue == Tissue.MUSCLE), start=1):
        box = strand_box(space, strand, 1, reach)
        if empty(box):
            continue
        d = strand_distance(p[(slice(None), *box)], strand)
        old = first[box]
        second[box] = torch.minimum(second[box], torch.maximum(old, d))
        group[box] = torch.where(d < old, number, group[box])
        first[box] = torch.minimum(old, d)
    return torch.minimum(more - first, (second - first) / 2 - septum / 2), group


def outline(space: Space, p: torch.Tensor, strands: list[Strand], bones: torch.Tensor, k: float) -> torch.Tensor:
    """Distance to the deep fascia on level 2: muscles and bones wrapped up together."""
    wrap = bones
    for strand in strands:
        if strand.tissue == Tissue.MUSCLE:  # drawn swollen, so that neighbors meet; the limb is not
            strand = replace(strand, radii=tuple(0.72 * r for r in strand.radii))
        if strand.tissue in (Tissue.MUSCLE, Tissue.TENDON, Tissue.LIGAMENT, Tissue.FAT):
            wrap = union(wrap, strand_distance(p, strand), k)
    return wrap


def lumps(space: Space, parameters: dict) -> list[tuple[Tissue, Tissue | None, np.ndarray, np.ndarray, float]]:
    """Round things that look like marrow: (inside, shell or None, center, radii, roughness), world millimeters."""
    soft, size = parameters["soft"], parameters["size"]
    d = Draw("lumps", soft["seed"])
    half = np.array(space.size) * space.spacing / 2
    made = []

    def place(spread: float) -> np.ndarray:
        return np.array(space.center) + half * np.array([d.uniform(-spread, spread) for _ in range(3)])

    for _ in range(soft["nodes"]):
        r = size * d.uniform(2.5, 6)
        made.append((Tissue.NODE, None, place(0.55), r * np.array([1, d.uniform(0.6, 1), d.uniform(0.8, 1.6)]), 0.1))
    for _ in range(soft["masses"]):
        r = size * d.uniform(6, 22)
        inside = d.choice((Tissue.MASS, Tissue.MASS, Tissue.FAT, Tissue.FLUID))
        shell = d.choice((Tissue.FASCIA, None))
        tall = d.uniform(0.7, 1.6) if d.chance(0.6) else d.uniform(1.6, 3.5)  # a long one with a rim is like a shaft
        radii = r * np.array([d.uniform(0.7, 1), d.uniform(0.7, 1), tall])
        made.append((inside, shell, place(0.6), radii, 0.3))
    if soft["tumor_mm"]:
        center, r = place(0.7), size * soft["tumor_mm"]
        radii = r * np.array([d.uniform(0.6, 1), d.uniform(0.6, 1), d.uniform(0.8, 1.8)])
        made.append(
            (d.choice((Tissue.MASS, Tissue.MASS, Tissue.FLUID, Tissue.NODE, Tissue.FAT)), None, center, radii, 0.5)
        )
        for _ in range(int(d.uniform(0, 4))):  # what has died or bled in it
            off = np.array([d.uniform(-0.5, 0.5) for _ in range(3)]) * radii
            inside = d.choice((Tissue.FLUID, Tissue.NODE, Tissue.FASCIA))
            made.append((inside, None, center + off, radii * d.uniform(0.2, 0.5), 0.5))
    return made


def wandering_vessels(space: Space, parameters: dict) -> list[Strand]:
    """Veins without a name, in the fat and between the muscles, mostly along the limb."""
    d = Draw("veins", parameters["soft"]["seed"])
    half = np.array(space.size) * space.spacing / 2
    strands = []
    for _ in range(parameters["soft"]["vessels"]):
        start = np.array([d.uniform(-0.55, 0.55), d.uniform(-0.55, 0.55), d.uniform(-1, 0.3)])
        at = np.array(space.center) + half * start
        drift, path = np.array([d.normal(0, 0.25), d.normal(0, 0.25), 1.0]), []
        for _ in range(int(d.uniform(3, 8))):
            path.append(at)
            drift = drift + np.array([d.normal(0, 0.25), d.normal(0, 0.25), 0])
            at = at + 16 * drift
        radius = parameters["size"] * d.uniform(0.8, 2.4)
        strands.append(Strand(Tissue.VESSEL, np.array(path), (radius,) * len(path)))
    return strands


def lump_distance(p: torch.Tensor, center: np.ndarray, radii: np.ndarray, noise: torch.Tensor, rough: float):
    scaled = length(*((p[i] - float(center[i])) / float(radii[i]) for i in range(3)))
    return (scaled - 1 + rough * noise) * float(radii.min())
