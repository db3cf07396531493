"""Pictures of a result: slices with the bones tinted and outlined. For the view in 3-D see `rendering`."""

from pathlib import Path

import numpy as np

from ..anatomy import JointTable
from ..files import whole_file
from ..inference.slices import SliceStack
from ..models.slice_settings import SliceSettings
from ..volume import Volume


def overlay(volume: Volume, labels: np.ndarray, table: JointTable, count: int = 12, columns: int = 4) -> np.ndarray:
    """A sheet of `count` evenly spaced slices through the bones, RGB uint8."""
    tiles = tinted(volume, labels, table, count)
    sheet = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, count, columns)]
    return np.concatenate(sheet)


def tinted(
    volume: Volume, labels: np.ndarray, table: JointTable, count: int, everywhere: bool = False
) -> list[np.ndarray]:
    """`count` evenly spaced slices through the bones, or through all of the volume; each bone tinted, its outline
    solid."""
    stack = SliceStack(volume, SliceSettings(pixel_mm=1.0))
    norm, image_slices, label_slices = stack.normalization, stack.oriented(volume.array), stack.oriented(labels)
    with_bone = np.flatnonzero(label_slices.any(axis=(1, 2)))
    choice = with_bone if len(with_bone) and not everywhere else np.arange(stack.count)
    choice = choice[np.linspace(0, len(choice) - 1, count).round().astype(int)]
    colors = np.array([(0, 0, 0), *(bone.color for bone in table.bones)], float)
    pixel = min(stack.in_plane)
    rows, columns = (
        (np.arange(int(size * mm / pixel)) * pixel / mm).astype(int)
        for size, mm in zip(image_slices.shape[1:], stack.in_plane, strict=True)
    )
    tiles = []
    for index in choice:
        values = image_slices[index][np.ix_(rows, columns)].astype(float)
        gray = np.clip((values - norm.low) / max(norm.high - norm.low, 1e-30), 0, 1) * 255
        bone = label_slices[index][np.ix_(rows, columns)]
        padded = np.pad(bone, 1, mode="edge")
        neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        outline = np.any([bone != other for other in neighbors], axis=0) & (bone > 0)
        opacity = np.where(outline, 1.0, np.where(bone > 0, 0.25, 0.0))[..., None]
        tiles.append((gray[..., None] * (1 - opacity) + colors[bone] * opacity).round().astype(np.uint8))
    return tiles


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes RGB uint8 [rows, columns, 3]."""
    import SimpleITK as sitk

    with whole_file(path) as temporary:
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(temporary))
