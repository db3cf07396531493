"""What goes on inside a tissue: trabeculae, mingled marrow, fat between muscle bundles, septa, slow drifts, lures.

Texture hangs in the anatomy and is carried from acquisition to acquisition. It is cut out of a few periodic blocks of
noise, turned, mirrored and shifted at random: filtering fresh noise for every exam would cost more than all the rest.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch
from scipy import ndimage

from ..anatomy.draw import Draw
from ..anatomy.tissues import Tissue
from .contrasts import LURE_CORE, LURE_RIM, TISSUES, Contrast
from .settings import RenderSettings

BLOCK = 128  # voxels along a block's edge
CELLS = 6  # parts of a tissue that may differ
_GRAIN = {"fine": 0.7, "streak": 2.2, "middle": 4.5, "coarse": 13.0}  # deviation of the filter, in voxels
_SOFT = (Tissue.FAT, Tissue.MUSCLE, Tissue.INTERMUSCULAR, Tissue.FASCIA, Tissue.ORGAN)  # where a lure may lie
_PARTNER = {
    Tissue.MUSCLE: Tissue.INTERMUSCULAR,
    Tissue.FAT: Tissue.FASCIA,
    Tissue.MARROW: Tissue.MARROW_RED,
    Tissue.MARROW_RED: Tissue.MARROW,
}  # what mingles with a tissue
_GRAINY = {
    Tissue.MARROW: 1.0,
    Tissue.MARROW_RED: 1.0,
    Tissue.MUSCLE: 1.0,
    Tissue.MASS: 0.6,
    Tissue.FAT: 0.6,
    LURE_CORE: 1.0,
    Tissue.CARTILAGE: 0.2,
    Tissue.UNOSSIFIED: 0.3,
    Tissue.ORGAN: 0.6,
}


@dataclass(frozen=True)
class Field:
    """Noise of unit deviation anywhere in the anatomy: a periodic block, and how it is laid."""

    grain: str
    order: tuple[int, int, int]
    mirrored: tuple[bool, bool, bool]
    shift: tuple[int, int, int]

    @classmethod
    def draw(cls, grain: str, random: Draw) -> "Field":
        return cls(
            grain,
            random.choice(list(permutations(range(3)))),
            tuple(random.chance(0.5) for _ in range(3)),
            tuple(int(random.uniform(0, BLOCK)) for _ in range(3)),
        )

    def read(self, box: tuple[slice, ...], device: torch.device) -> torch.Tensor:
        block = _block(self.grain, device).permute(self.order)
        for axis, (part, shift, mirrored) in enumerate(zip(box, self.shift, self.mirrored, strict=True)):
            where = (torch.arange(part.start, part.stop, device=device) + shift) % BLOCK
            block = block.index_select(axis, BLOCK - 1 - where if mirrored else where)
        return block


@lru_cache(maxsize=8)
def _block(grain: str, device: torch.device) -> torch.Tensor:
    """Periodic Gaussian-filtered noise [BLOCK]³ of mean 0 and deviation 1; the same for every exam and machine.

    By scipy, on one thread: torch's sums depend on how many threads there are, and workers have but one.
    """
    noise = Draw("texture", grain).generator.random((BLOCK,) * 3, dtype=np.float32)
    filtered = ndimage.gaussian_filter(noise, _GRAIN[grain], mode="wrap", output=np.float64)
    return torch.from_numpy(((filtered - filtered.mean()) / filtered.std()).astype(np.float32)).to(device)


@dataclass
class Matter:
    """An anatomy made of stuff: all that a contrast needs to turn it into signal."""

    index: torch.Tensor  # uint8 [x, y, z]: tissue · CELLS + cell
    mix: torch.Tensor  # float16 [x, y, z]: share of the tissue's partner
    bones: torch.Tensor  # uint8 [x, y, z], the anatomy's
    grain: Field
    drift: Field
    strengths: dict[str, float | None]
    parts: np.ndarray  # [TISSUES, CELLS] in ±1: how much a part of a tissue differs
    bone_gain: np.ndarray  # [256] in ±1


def draw_strengths(key: tuple, settings: RenderSettings) -> dict[str, float | None]:
    """How strong each effect of the tissue is in the exam that `key` names."""
    names = ("lures", "trabeculae", "marrow_mix", "striation", "septa", "variation", "regions", "bones")
    return {name: getattr(settings, name).draw(Draw(*key, name)) for name in names}


def draw_matter(anatomy, key: tuple, settings: RenderSettings) -> Matter:
    """The matter of an anatomy; `key` names the exam."""
    random = Draw(*key, "matter")
    device, shape = anatomy.tissue.device, anatomy.tissue.shape
    strengths = draw_strengths(key, settings)
    grain, sheets, drift, cells, streaks = (
        Field.draw(grain, random) for grain in ("fine", "middle", "coarse", "coarse", "streak")
    )
    everywhere = tuple(slice(0, n) for n in shape)
    middle, coarse = sheets.read(everywhere, device), drift.read(everywhere, device)

    tissue = anatomy.tissue
    if strengths["lures"] is not None:
        where = Draw(*key, "lures", "where")
        tissue = _with_lures(tissue, anatomy.spacing_mm, strengths["lures"], middle, where)
    cell = (cells.read(everywhere, device) * 1.6 + CELLS / 2).clamp_(0, CELLS - 1).to(torch.uint8)
    if anatomy.group is not None:  # muscles differ as wholes
        cell = torch.where(tissue == Tissue.MUSCLE, anatomy.group % CELLS, cell)
    index = tissue * CELLS + cell

    shares = {name: torch.zeros(TISSUES) for name in ("sheets", "streaks", "blobs")}
    shares["sheets"][Tissue.MUSCLE] = strengths["striation"] or 0.0
    shares["sheets"][Tissue.FAT] = strengths["septa"] or 0.0
    shares["streaks"][Tissue.MUSCLE] = strengths["striation"] or 0.0
    shares["blobs"][[Tissue.MARROW, Tissue.MARROW_RED]] = strengths["marrow_mix"] or 0.0
    gate = torch.sigmoid(coarse.mul_(3.0))
    mix = torch.exp_(-((middle * 7.0) ** 2)) * _look_up(shares["sheets"], tissue)  # thin where the noise crosses 0
    fine = streaks.read(everywhere, device).sub_(2.1).clamp_(min=0)  # short and scattered where it peaks
    mix += (1.5 * fine * _look_up(shares["streaks"], tissue)).clamp_(max=1)
    mix = (mix + _look_up(shares["blobs"], tissue)).clamp_(max=1).mul_(gate)
    generator = random.generator
    parts, bone_gain = generator.random((TISSUES, CELLS)) * 2 - 1, generator.random(256) * 2 - 1
    return Matter(index, mix.half(), anatomy.bones, grain, drift, strengths, parts, bone_gain)


def _with_lures(
    tissue: torch.Tensor, spacing: float, radius_mm: float, noise: torch.Tensor, random: Draw
) -> torch.Tensor:
    """A copy of the tissue map with one to four bone-like masses, of at most `radius_mm`, in soft tissue alone."""
    tissue = tissue.clone()
    soft = torch.zeros(256, dtype=torch.bool, device=tissue.device)
    soft[list(_SOFT)] = True
    for _ in range(int(random.uniform(1, 5))):
        center = [random.uniform(0.05, 0.95) * (n - 1) for n in tissue.shape]
        size = max(3.0, random.uniform(0.25, 1.0) * radius_mm)
        radii = [size * random.uniform(0.6, 1.4) / spacing for _ in range(3)]
        rim = random.uniform(0.0, 3.0) / size if random.chance(0.6) else 0.0
        box = tuple(
            slice(max(0, int(c - 1.4 * r)), min(n, int(c + 1.4 * r) + 2))
            for c, r, n in zip(center, radii, tissue.shape, strict=True)
        )
        axes = [
            ((torch.arange(part.start, part.stop, device=tissue.device) - c) / r) ** 2
            for part, c, r in zip(box, center, radii, strict=True)
        ]
        distance = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).sqrt() + 0.12 * noise[box]
        here = tissue[box]
        allowed = soft[here.long()]
        here[allowed & (distance < 1)] = LURE_RIM
        here[allowed & (distance < 1 - rim)] = LURE_CORE
    return tissue


def signals(matter: Matter, contrast: Contrast, box: tuple[slice, ...], apart: bool) -> torch.Tensor:
    """Signal of the anatomy inside `box`, [1 or 2, x, y, z]: all of it, or water and fat `apart`."""
    device = matter.index.device
    index, strengths = matter.index[box], matter.strengths
    partner = np.arange(TISSUES)
    for tissue, other in _PARTNER.items():
        partner[tissue] = other
    grainy, drifting = np.zeros(TISSUES), np.ones(TISSUES)
    for tissue, share in _GRAINY.items():
        grainy[tissue] = share
    drifting[[Tissue.AIR, Tissue.CORTEX]] = 0.0
    apart_by = (strengths["regions"] or 0.0) * (1.0 if contrast.name == "random" else 0.35)
    differing = 1 + drifting[:, None] * matter.parts * apart_by

    gain = 1 + matter.grain.read(box, device) * _look_up(_per_cell(grainy * (strengths["trabeculae"] or 0.0)), index)
    gain += matter.drift.read(box, device) * _look_up(_per_cell(drifting * (strengths["variation"] or 0.0)), index)
    if strengths["bones"]:
        of_bone = torch.from_numpy(1 + matter.bone_gain * strengths["bones"]).float()
        of_bone[0] = 1.0
        gain *= _look_up(of_bone, matter.bones[box])
    gain.clamp_(min=0)
    mix = matter.mix[box].float()
    parts = (contrast.water, contrast.fat) if apart else (contrast.water + contrast.fat,)
    out = []
    for signal in parts:
        own, other = (
            _look_up(torch.from_numpy((one[:, None] * differing).ravel()).float(), index)
            for one in (signal, signal[partner])
        )
        out.append(torch.lerp(own, other, mix).mul_(gain))
    return torch.stack(out)


def _per_cell(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat(values, CELLS)).float()


def _look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return table.to(index.device).index_select(0, index.reshape(-1).int()).view(index.shape)
