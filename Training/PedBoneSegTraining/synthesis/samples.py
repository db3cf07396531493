"""The samples that ship with the software, one exam a joint, and their thumbnails.

    python -m PedBoneSegTraining.synthesis.samples PedBoneSegLib/samples --thumbnails PedBoneSeg/Resources/Icons

Modeled bones alone, so that everyone can make them again; the protocols are everyday ones, with mild faults.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib.files import whole_file
from PedBoneSegLib.volume import Volume

from .anatomy.sources import Parametric
from .rendering import Effect, Rendering, RenderSettings, draw_matter, draw_parameters, render
from .rendering.acquisition import AXES
from .writer import write_nifti

SEED = 2026
WHITE = 250.0  # keeps the files small: the noise is a few steps of the integers
MILD = replace(
    RenderSettings().without(*RenderSettings.names()),
    trabeculae=Effect(1.0, 0.03, 0.05),
    marrow_mix=Effect(1.0, 0.2, 0.4),
    striation=Effect(1.0, 0.4, 0.7),
    septa=Effect(1.0, 0.3, 0.5),
    variation=Effect(1.0, 0.03, 0.06),
    regions=Effect(1.0, 0.1, 0.2),
    bones=Effect(1.0, 0.02, 0.05),
    bias_field=Effect(1.0, 0.05, 0.12),
    chemical_shift=Effect(1.0, 0.3, 0.5),
    blur=Effect(1.0, 0.4, 0.6),
    noise=Effect(1.0, 0.010, 0.013),
)


@dataclass(frozen=True)
class Sample:
    """An exam: which draw of the parametric source, at what age (years), and its protocol (mm)."""

    joint: str
    i: int
    age: float
    preset: str
    plane: str
    pixel_mm: float
    slice_mm: float
    across: tuple[float, float]  # share of the body that the stack leaves out at its low and its high end

    def draw(self) -> Rendering:
        source, key = Parametric(), ("sample", SEED, self.joint, self.i)
        anatomy = source.build(source.parameters(SEED, self.joint, self.i, self.age))
        parameters = draw_parameters(key, MILD, self.preset, [self.plane])
        parameters["white"] = WHITE
        trims = [(-0.06, -0.06), (-0.06, -0.06), (-0.06, -0.06)]
        trims[AXES[self.plane][2][0]] = self.across
        parameters["acquisition"] |= {
            "isotropic": False,
            "pixel_mm": self.pixel_mm,
            "slice_mm": self.slice_mm,
            "thickness_mm": 0.9 * self.slice_mm,
            "trims": trims,
            "reversed_slices": False,
        }
        return render(anatomy, draw_matter(anatomy, key, MILD), key, parameters, most_voxels=2_200_000)


SAMPLES = (
    Sample("ankle", 4, 11.0, "T1", "sagittal", 0.65, 3.5, (0.0, 0.0)),
    Sample("knee", 12, 11.0, "PD", "sagittal", 0.65, 4.0, (0.08, 0.08)),
    Sample("shoulder", 3, 12.0, "T1", "coronal", 0.8, 4.0, (0.12, 0.12)),
)


def write_thumbnail(path: Path, rendering: Rendering, pixels: int = 128) -> None:
    """The slice with the most bone, square, `pixels` wide, its brightest hundredth white."""
    from matplotlib.image import imsave

    k = int(np.argmax((rendering.labels > 0).sum(axis=(0, 1))))
    picture = torch.from_numpy(middle_square(rendering.volume, rendering.labels, k).astype(np.float32))
    small = torch.nn.functional.interpolate(
        picture[None, None], (pixels, pixels), mode="bilinear", antialias=True, align_corners=False
    )[0, 0].numpy()
    with whole_file(path) as temporary:
        imsave(
            temporary,
            np.clip(small / np.percentile(small, 99), 0, 1),
            cmap="gray",
            vmin=0,
            vmax=1,
            format="png",
            metadata={"Software": None},
        )


def middle_square(volume: Volume, labels: np.ndarray, k: int) -> np.ndarray:
    """The square part of slice k, [rows, columns], as large as it can be and around the bones."""
    image, bones = volume.array[:, :, k].T, labels[:, :, k].T > 0
    side = min(image.shape)
    parts = []
    for axis in range(2):
        found = np.flatnonzero(bones.any(axis=1 - axis))
        center = (found[0] + found[-1]) // 2 if len(found) else image.shape[axis] // 2
        start = int(np.clip(center - side // 2, 0, image.shape[axis] - side))
        parts.append(slice(start, start + side))
    return image[tuple(parts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--thumbnails", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        rendering = sample.draw()
        write_nifti(args.out / f"{sample.joint}.nii.gz", rendering.volume.array, rendering.volume.grid, level=9)
        if args.thumbnails:
            write_thumbnail(args.thumbnails / f"PedBoneSeg{sample.joint.capitalize()}.png", rendering)


if __name__ == "__main__":
    main()
