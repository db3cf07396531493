"""Joints that a tiny network learns in seconds: two large bones, a bright and a brighter one, in a box of flesh."""

import json
from pathlib import Path

import numpy as np
from exam_phantoms import toml, write_volume

from PedBoneSegLib.anatomy import Bone, Code, JointTable

SIZE = (8, 48, 48)  # [i, j, k]: left, posterior, superior; 5 × 2 × 2 mm
BONES = ("upper bone", "lower bone")


def block_table(joint: str) -> JointTable:
    none = Code("", "", "")
    return JointTable(joint, tuple(Bone(n, name, (90 * n, 90, 90), none, none) for n, name in enumerate(BONES, 1)))


def block_exam(seed: int, inverted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(image, labels) [i, j, k]. `inverted`: another scanner, on which the two have changed places."""
    random = np.random.default_rng(seed)
    image = np.zeros(SIZE)
    image[1:-1, 4:-4, 2:-2] = 100
    labels = np.zeros(SIZE, np.uint8)
    for label, top in ((1, 26), (2, 6)):
        low = np.array([2, 12, top]) + random.integers(-1, 2, 3)
        where = tuple(slice(a, a + n) for a, n in zip(low, (4, 24, 15), strict=True))
        labels[where] = label
        image[where] = 320 if (label == 1) != inverted else 200
    return (image + random.normal(0, 4, SIZE)).astype(np.float32), labels


def write_blocks(folder: Path, joint: str, exams: int, seed: int = 0, inverted: bool = False) -> Path:
    """An nnU-Net v2 raw folder and, beside its dataset.json, the joint's table as `table.csv`."""
    for number in range(exams):
        image, labels = block_exam(100 * seed + number, inverted)
        write_volume(folder / "imagesTr" / f"exam{number}_0000.nii.gz", image)
        write_volume(folder / "labelsTr" / f"exam{number}.nii.gz", labels)
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "MR"},
                "labels": {"background": 0, "upper_bone": 1, "lower_bone": 2},
                "numTraining": exams,
                "file_ending": ".nii.gz",
            }
        )
    )
    (folder / "table.csv").write_text(block_table(joint).to_csv())
    return folder


def write_block_study(folder: Path, exams: dict[str, int], steps: int, checkpoint_every: int) -> Path:
    """Data sets of so many exams of each joint, and a configuration that trains a tiny network on them."""
    domains = {}
    for joint, count in exams.items():
        data = write_blocks(folder / joint, joint, count, seed=count)
        domains[joint] = {"datasets": [str(data)], "table": str(data / "table.csv")}
    table = {
        "domains": domains,
        "slices": {"pixel_mm": 2.0},
        "network": {"architecture": "unet", "width": 4},
        "data": {"patch": [64, 64], "validation": 0.0, "reserved": 0.0},
        "training": {"steps": steps, "batch": 2, "learning_rate": 1e-2},
        "run": {"checkpoint_every": checkpoint_every, "picture_every": 0, "device": "cpu"},
    }
    path = folder / "blocks.toml"
    path.write_text(toml(table))
    return path
