"""Pictures of a cohort's exams, bones tinted, one file a joint.

python -m PedBoneSegTraining.synthesis.pictures docs/images --exams 6 --seed 1
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from PedBoneSegLib.anatomy import joint_table, known_joints
from PedBoneSegLib.files import whole_file

from .cohort import Recipe, check_seed
from .rendering import Rendering

TILE = 200  # pixels of a picture's side; an exam has two, one above the other: the image, and its bones tinted


def tiles(rendering: Rendering) -> np.ndarray:
    """uint8 [2 · TILE, TILE, 3]: the slice with the most bone at its true proportions, without and with its labels."""
    labels = rendering.labels
    k = int(np.argmax((labels > 0).sum(axis=(0, 1))))
    image = rendering.volume.array[:, :, k].T.astype(np.float32)
    white = np.percentile(rendering.volume.array, 99.5)
    gray = np.repeat((np.clip(image / white, 0, 1) * 255)[..., None], 3, axis=2)
    tinted = gray.copy()
    for bone in joint_table(rendering.parameters["anatomy"]["joint"]).bones:
        inside = labels[:, :, k].T == bone.label
        tinted[inside] = 0.6 * gray[inside] + 0.4 * np.array(bone.color)
    return np.concatenate([_fit(gray), _fit(tinted)])


def _fit(picture: np.ndarray) -> np.ndarray:
    """The whole picture, as large as it fits into a black square of TILE pixels."""
    scale = TILE / max(picture.shape[:2])
    size = [max(1, round(count * scale)) for count in picture.shape[:2]]
    small = (
        torch.nn.functional.interpolate(
            torch.from_numpy(picture).permute(2, 0, 1)[None], size, mode="bilinear", antialias=True, align_corners=False
        )[0]
        .permute(1, 2, 0)
        .numpy()
    )
    square = np.zeros((TILE, TILE, 3), np.uint8)
    top, left = ((TILE - count) // 2 for count in size)
    square[top : top + size[0], left : left + size[1]] = small.round().clip(0, 255)
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--exams", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for joint in known_joints():
        recipe = Recipe(joint, check_seed(args.seed), preset=args.preset)
        columns = [tiles(recipe.acquire(i, 0, recipe.body(i))) for i in range(args.exams)]
        with whole_file(args.out / f"synthetic-{joint}.jpg") as temporary:
            Image.fromarray(np.concatenate(columns, axis=1)).save(temporary, "JPEG", quality=85)


if __name__ == "__main__":
    main()
