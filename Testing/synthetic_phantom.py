"""A limb of simple shapes, so that a renderer's tests know what to expect; importable by spawned processes too."""

import time
from dataclasses import dataclass

import torch
from PedBoneSegTraining.synthesis.anatomy import Anatomy, Tissue
from PedBoneSegTraining.synthesis.anatomy.draw import Draw

NAMES = ("femur", "tibia", "fibula", "patella")


def blank(size=(64, 64, 64), spacing=1.5, fill=Tissue.AIR) -> Anatomy:
    tissue = torch.full(size, int(fill), dtype=torch.uint8)
    none = torch.zeros(size, dtype=torch.uint8)
    return Anatomy("knee", tissue, none.clone(), torch.full(size, 12.0), none.clone(), spacing, NAMES, {})


def points(anatomy: Anatomy) -> list[torch.Tensor]:
    """World coordinates (L, P, S) of the voxel centers, mm, 0 in the middle."""
    axes = [(torch.arange(n) - (n - 1) / 2) * anatomy.spacing_mm for n in anatomy.tissue.shape]
    return torch.meshgrid(*axes, indexing="ij")


def ball(anatomy: Anatomy, center, radius: float, label: int, tissue=Tissue.MARROW) -> Anatomy:
    inside = sum((p - c) ** 2 for p, c in zip(points(anatomy), center, strict=True)) < radius**2
    anatomy.tissue[inside] = int(tissue)
    anatomy.bones[inside] = label
    return anatomy


def limb(shift: float = 0.0, spacing: float = 1.5) -> Anatomy:
    """Along the z axis: skin, fat, muscle, two bones with cortex (labels 1 and 2), and a neighbour (label 101)."""
    anatomy = blank(spacing=spacing)
    x, y, _ = points(anatomy)
    radius = (x**2 + y**2).sqrt()
    for tissue, reach in ((Tissue.SKIN, 43), (Tissue.FAT, 41), (Tissue.MUSCLE, 33)):
        anatomy.tissue[radius < reach] = int(tissue)
    anatomy.group[anatomy.tissue == Tissue.MUSCLE] = 1
    for center, label in (((-8 + shift, -6, -24), 1), ((-8 + shift, -6, 18), 2), ((16, 10, 0), 101)):
        ball(anatomy, center, 17 if label < 100 else 9, label, Tissue.CORTEX)
        ball(anatomy, center, 14.5 if label < 100 else 7, label, Tissue.MARROW)
    return anatomy


@dataclass(frozen=True)
class Phantom:
    """An anatomy source of limbs, each of which takes some `seconds` to build."""

    name: str = "phantom"
    seconds: float = 0.0

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        return {
            "source": self.name,
            "joint": joint,
            "shift": Draw("phantom", seed, joint, i).uniform(-4, 4),
            "side": "left",
        }

    def build(self, parameters: dict, device="cpu", spacing: float | None = None) -> Anatomy:
        time.sleep(self.seconds)
        return limb(parameters["shift"])
