"""Tiny joints for tests of training: ellipsoids for bones in a box of flesh, written as an nnU-Net v2 raw folder."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from PedBoneSegLib.anatomy import joint_table

PLACES = {  # bone → its center, as shares of the extent towards posterior and superior
    "femur": (0.6, 0.78),
    "patella": (0.28, 0.6),
    "tibia": (0.5, 0.42),
    "fibula": (0.66, 0.18),
    "talus": (0.4, 0.58),
    "calcaneus": (0.6, 0.22),
    "humerus": (0.5, 0.3),
    "scapula": (0.55, 0.75),
}
SIZE, SPACING = (10, 48, 48), (5.0, 2.0, 2.0)  # [i, j, k] with i across the slices: left, posterior, superior


def phantom(joint: str, seed: int, size=SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image float32, labels uint8), [i, j, k]: a knee's bones are brighter, an ankle's darker than the flesh."""
    random = np.random.default_rng([seed, sum(joint.encode())])
    bones = joint_table(joint).names
    grid = np.stack(np.meshgrid(*[np.arange(each) for each in size], indexing="ij")).astype(float)
    image = random.normal(8, 3, size)
    flesh = (np.abs(grid[1] - size[1] / 2) < 0.42 * size[1]) & (np.abs(grid[2] - size[2] / 2) < 0.46 * size[2])
    image[flesh] = random.normal(100, 8, size)[flesh]
    labels = np.zeros(size, np.uint8)
    for number, bone in enumerate(bones):
        posterior, superior = PLACES[bone] if (joint, bone) != ("ankle", "tibia") else (0.5, 0.82)
        center = np.array([size[0] / 2, size[1] * posterior, size[2] * superior]) + random.uniform(-1, 1, 3)
        radius = np.array([0.34 * size[0], 0.15 * size[1], 0.08 * size[2]]) * random.uniform(0.9, 1.1)
        inside = (((grid - center[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0) < 1
        labels[inside] = number + 1
        image[inside] = random.normal(190 if joint == "knee" else 30, 8, size)[inside]
    return image.astype(np.float32), labels


def write_volume(path: Path, array: np.ndarray, spacing=SPACING, origin=(0.0, 0.0, 0.0)) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_dataset(folder: Path, joint: str, exams: int, *, seed: int = 0, ours: dict | None = None, **entries) -> Path:
    """Exams joint_00 … in `folder`; `ours` is the object `pedboneseg`, `entries` replace others of dataset.json."""
    names = [f"{joint}_{number:02d}" for number in range(exams)]
    for number, name in enumerate(names):
        image, labels = phantom(joint, 100 * seed + number)
        write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", image)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", labels)
    describe(folder, joint, exams, ours, **entries)
    return folder


def describe(folder: Path, joint: str, exams: int, ours: dict | None = None, **entries) -> None:
    document = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, **joint_table(joint).labels},
        "numTraining": exams,
        "file_ending": ".nii.gz",
        "pedboneseg": {"joint": joint, **(ours or {})},
    }
    (folder / "dataset.json").write_text(json.dumps(document | entries))


def tiny_study(folders: dict[str, list[Path]], **sections) -> dict:
    """A configuration's table that trains in seconds; `sections` replace single keys, as {"training": {"steps": 4}}."""
    table = {
        "name": "tiny",
        "seed": 3,
        "domains": {name: {"datasets": [str(folder) for folder in paths]} for name, paths in folders.items()},
        "slices": {"pixel_mm": 2.0},
        "network": {"architecture": "unet", "width": 8},
        "data": {"patch": [64, 64], "validation": 0.0, "reserved": 0.0},
        "training": {"steps": 4, "batch": 2, "warmup": 0, "learning_rate": 1e-2, "precision": "float32"},
        "run": {"device": "cpu", "checkpoint_every": 2, "log_every": 1, "picture_every": 0, "export": False},
    }
    for section, keys in sections.items():
        table[section] = {**table[section], **keys} if isinstance(keys, dict) and section in table else keys
    return table


def toml(table: dict, name: str = "") -> str:
    """The table as a TOML file's text; keys first, then the sections below it."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    below = {f"{name}.{key}" if name else key: value for key, value in table.items() if isinstance(value, dict)}
    return "\n".join([*lines, *(toml(value, key) for key, value in below.items())])
