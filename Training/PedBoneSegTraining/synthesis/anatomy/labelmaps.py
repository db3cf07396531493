"""A joint from any label map of real bones, deformed.

The file's labels are named by a mapping {bone: value}; without one, they are the joint's own table's. Only the bones
are read: cartilage, menisci and the rest are made anew, as for every source.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from PedBoneSegLib.errors import BadInput

from . import JOINTS
from .sampled import Field, fit, neutral_frames, shaft_end


def load(path: Path, joint: str, labels: dict[str, int] | None = None, side: str = "right") -> dict[str, Field]:
    """Distance fields of the file's bones, in the local millimeters of the joint's model."""
    module = JOINTS[joint]
    labels = labels or {n: k for k, n in enumerate(module.BONES, start=1)}
    try:
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    except RuntimeError as error:
        raise BadInput(f"{path}: not a readable label map", str(error).strip().splitlines()[-1]) from None
    array = np.transpose(sitk.GetArrayFromImage(image), (2, 1, 0))[:, ::-1]  # left, anterior, up
    spacing = np.array(image.GetSpacing())
    every = np.maximum(np.round(0.75 / spacing).astype(int), 1)  # finer than the exams is of no use
    array, spacing = array[tuple(slice(None, None, e) for e in every)], spacing * every
    if side == "right":
        array = array[::-1]
    wanted = module.BONES + module.NEIGHBORS
    masks = {bone: _largest(array == value) for bone, value in labels.items() if bone in wanted}
    for bone, mask in masks.items():
        if not mask.any():
            raise BadInput(f"{path}: no voxel of {bone} (label {labels[bone]})", "name the file's own label values")
    anchor = module.ANCHOR[0]
    if anchor not in masks:
        raise BadInput(f"{path}: no {anchor}", f"a {joint} is fitted by its {anchor}")
    low, high = _extent(masks[anchor], spacing)
    if joint == "knee":
        high[2] = min(high[2], low[2] + module.ANCHOR[2])
        top = int(high[2] / spacing[2]) + 1
        low, high = _extent(masks[anchor][:, :, :top], spacing)
    scale, shift = fit(low, high, joint)
    frames = neutral_frames(joint)
    return {
        bone: _field(mask, spacing, scale, shift, frames[bone], shaft_end(joint, bone)) for bone, mask in masks.items()
    }


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1


def _extent(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = [np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != i)))[0] for i in range(3)]
    return np.array([f[0] for f in found]) * spacing, np.array([f[-1] for f in found]) * spacing


def _field(mask, spacing, scale: float, shift: np.ndarray, frame, cut: tuple[bool, bool]) -> Field:
    """Resample a bone into its frame at 1 mm; `cut` says at which end its shaft leaves the file's field."""
    corners = np.array(np.nonzero(mask))
    low, high = corners.min(1), corners.max(1)
    first, last = np.ceil(10 / spacing).astype(int), np.ceil(10 / spacing).astype(int)
    if any(cut):  # the last slices of a label map are ragged: the shaft is continued from a little before
        (first if cut[0] else last)[2] = -np.ceil(4 / spacing[2])
    view = tuple(
        slice(max(a - f, 0), min(b + t + 1, n))
        for a, b, f, t, n in zip(low, high, first, last, mask.shape, strict=True)
    )
    source = Field.from_mask(
        mask[view], shift + scale * np.array([s.start for s in view]) * spacing, scale * spacing, cut, smooth_mm=1.0
    )
    box = np.array(
        [frame.local(source.origin + (np.array(c) * (source.high - source.origin))) for c in np.ndindex(2, 2, 2)]
    )
    start, stop = box.min(0), box.max(0)
    axes = [np.arange(a, b, 1.0) for a, b in zip(start, stop, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    there = np.einsum("ij,jxyz->ixyz", frame.rotation * frame.scale, grid) + frame.origin[:, None, None, None]
    where = (there - source.origin[:, None, None, None]) / source.spacing[:, None, None, None]
    values = ndimage.map_coordinates(source.distance.numpy(), where, order=1, mode="nearest")
    return Field(torch.from_numpy(values.astype(np.float32)), start, np.ones(3), cut)
