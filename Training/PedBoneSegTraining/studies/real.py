"""What a model makes of real volumes, for the eye: no number, no choice of slices, failures included.

    python -m PedBoneSegTraining.studies.real --model MODEL --picture docs/images/real.jpg
        STS_010_MR_T1.nii.gz=knee STS_005_MR_T1.nii.gz=shoulder

A row a volume, in the order given: evenly spaced slices of it all, the bones tinted and outlined.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.results.pictures import tinted

TILE = 200  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", metavar="VOLUME=JOINT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE.jpg")
    parser.add_argument("--slices", type=int, default=8, help="of each volume (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    bundle = Bundle.load(resolve(args.model))
    predictor, rows = Predictor(bundle, args.device), []
    for entry in args.volumes:
        path, equals, joint = entry.rpartition("=")
        if not equals:
            raise BadInput(f"{entry!r} names no joint", "write VOLUME=JOINT")
        volume = read_volume(path)
        result = predictor.segment(volume, joint)
        tiles = tinted(volume, result.labels, result.table, args.slices, everywhere=True)
        rows.append(np.concatenate([_framed(each) for each in tiles], axis=1))
        ml = {bone.name: (result.labels == bone.label).sum() * volume.grid.voxel_ml for bone in result.table.bones}
        print(f"{Path(path).name}: " + ", ".join(f"{name} {each:.1f} ml" for name, each in ml.items()))
    with whole_file(args.picture) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, quality=80)


def _framed(pixels: np.ndarray) -> np.ndarray:
    """In a square of TILE pixels, in its own proportions."""
    image = Image.fromarray(pixels)
    image.thumbnail((TILE, TILE))
    square = Image.new("RGB", (TILE, TILE))
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return np.asarray(square)


if __name__ == "__main__":
    main()
