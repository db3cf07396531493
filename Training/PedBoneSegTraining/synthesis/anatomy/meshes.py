"""Joints from a folder of bone meshes: `*.vtp` and a `poses.json` that says how they go together.

    {"units": "meters", "age": 9, "knee": {"femur": {"mesh": "femur_r.vtp", "offset": [0, 0, 0]}, …}, …}

Meshes are of a right limb, x anterior, y superior, z right (lateral). `age` in years is the subject's own, an adult's
where it is not given: a child's bones are brought to an adult's size first, since every exam has its own age and
growth.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from PedBoneSegLib.errors import BadInput

from . import JOINTS
from .growth import ADULT, shaft_width, size_at
from .sampled import LONG, Field, fit, modelled_extent, neutral_frames, shaft_end

STEP = 1.0  # mm of the sampled field, of an adult
REACH = 130.0  # mm of a shaft that are kept


def joints_in(folder: Path) -> tuple[str, ...]:
    return tuple(j for j in _poses(folder) if j in JOINTS)


def load(folder: Path, joint: str) -> dict[str, Field]:
    """Distance fields of a joint's bones, in the local millimeters of the joint's model."""
    poses = _poses(folder)
    if joint not in poses:
        raise BadInput(f"{folder / 'poses.json'}: no joint {joint}", "name one of " + ", ".join(joints_in(folder)))
    age = float(poses.get("age", ADULT))
    unit = (1000.0 if poses.get("units", "meters") == "meters" else 1.0) / size_at(age)
    read = {bone: read_mesh(folder / pose["mesh"]) for bone, pose in poses[joint].items()}
    points = {
        bone: unit * (p + np.asarray(poses[joint][bone]["offset"]))[:, (2, 0, 1)] for bone, (p, _) in read.items()
    }
    box = _anchor_box(points[JOINTS[joint].ANCHOR[0]], joint)
    _, shift = fit(*box, joint, scale=1.0)
    frames = neutral_frames(joint)
    fields = {}
    for bone, p in points.items():
        placed = _harmonized(p + shift, bone, joint)
        fields[bone] = replace(_field(placed, read[bone][1], frames[bone], bone), shaft=shaft_width(age))
    return fields


def _harmonized(points: np.ndarray, bone: str, joint: str) -> np.ndarray:
    """Bones of several subjects brought together, after the model of the joint: joint spaces are neither wide nor shut.

    A short bone takes about the model's size and place; a shaft keeps its size, and its end takes the model's height.
    """
    if bone == "scapula":
        return points
    low, high = modelled_extent(joint, bone)
    down, up = shaft_end(joint, bone)
    if up or down:
        end = high[2] - points[:, 2].max() if down else low[2] - points[:, 2].min()
        return points if bone == JOINTS[joint].ANCHOR[0] else points + np.array([0, 0, end])
    center = (points.min(0) + points.max(0)) / 2
    ratio = float((np.prod(high - low) / np.prod(np.ptp(points, axis=0))) ** (1 / 3))
    return (low + high) / 2 + min(max(ratio, 0.85), 1.2) * (points - center)


def _anchor_box(points: np.ndarray, joint: str) -> tuple[np.ndarray, np.ndarray]:
    """Box around the end of the anchor that faces the joint: as much of it as the model's anchor is high."""
    _, bottom, top = JOINTS[joint].ANCHOR
    if joint == "knee":
        points = points[points[:, 2] < points[:, 2].min() + top]
    elif joint == "shoulder":
        points = points[points[:, 2] > points[:, 2].max() - (24.0 - bottom)]
    return points.min(0), points.max(0)


def _poses(folder: Path) -> dict:
    path = Path(folder) / "poses.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{folder}: no poses.json", "a folder of shapes holds *.vtp and poses.json") from None
    except ValueError as error:
        raise BadInput(f"{path}: not JSON ({error})", "mend it or take the example in docs/synthesis.md") from None


READERS = {
    ".vtp": "vtkXMLPolyDataReader",
    ".stl": "vtkSTLReader",
    ".ply": "vtkPLYReader",
    ".obj": "vtkOBJReader",
}


def read_mesh(path: Path, piece: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """→ points [n, 3] and the closed surface's triangles [m, 3]; of a file with several surfaces the one of rank
    `piece`, the largest first."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    if not path.is_file() or path.suffix.lower() not in READERS:
        raise BadInput(f"{path}: no such mesh", f"the shapes' description names it; {', '.join(READERS)} can be read")
    reader = getattr(vtk, READERS[path.suffix.lower()])()
    reader.SetFileName(str(path))
    triangles, clean, holes = vtk.vtkTriangleFilter(), vtk.vtkCleanPolyData(), vtk.vtkFillHolesFilter()
    triangles.SetInputConnection(reader.GetOutputPort())
    clean.SetInputConnection(triangles.GetOutputPort())
    if piece is not None:
        regions = vtk.vtkPolyDataConnectivityFilter()
        regions.SetInputConnection(clean.GetOutputPort())
        regions.SetExtractionModeToAllRegions()
        regions.Update()
        sizes = vtk_to_numpy(regions.GetRegionSizes())
        regions.SetExtractionModeToSpecifiedRegions()
        regions.InitializeSpecifiedRegionList()
        regions.AddSpecifiedRegion(int(np.argsort(-sizes)[piece]))
        alone = vtk.vtkCleanPolyData()
        alone.SetInputConnection(regions.GetOutputPort())
        clean = alone
    holes.SetInputConnection(clean.GetOutputPort())
    holes.SetHoleSize(1e6)
    holes.Update()
    mesh = holes.GetOutput()
    if mesh.GetNumberOfPolys() < 4:
        raise BadInput(f"{path}: no surface in it", "a closed triangle mesh is needed")
    cells = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(mesh.GetPoints().GetData()).astype(float), cells


def _field(points: np.ndarray, cells: np.ndarray, frame, bone: str) -> Field:
    local = np.stack([frame.local(row) for row in points])
    low, high, cut = local.min(0), local.max(0), [False, False]
    if bone in LONG:  # the far end of the shaft is not the joint's business
        if high[2] > REACH:
            high[2], cut[1] = REACH, True
        if low[2] < -REACH:
            low[2], cut[0] = -REACH, True
    margin = np.array([8.0, 8.0, 8.0])
    start, stop = low - margin * [1, 1, not cut[0]], high + margin * [1, 1, not cut[1]]
    size = np.ceil((stop - start) / STEP).astype(int) + 1
    mask = winding(local, cells, start, size)
    thin = bone == "scapula"
    return Field.from_mask(mask, start, (STEP,) * 3, cut, smooth_mm=0.6 if thin else 1.8)


def winding(points: np.ndarray, cells: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Voxels inside a mesh, by the majority of three scan directions: a gap in the mesh misleads one at most."""
    votes = np.zeros(size, np.int8)
    for axis in range(3):
        order = (*(i for i in range(3) if i != axis), axis)
        crossings = _crossings(points[:, order], cells, start[list(order)], size[list(order)])
        inside = np.cumsum(crossings, axis=2) % 2 == 1
        inside &= crossings.sum(axis=2, keepdims=True) % 2 == 0  # a ray that meets a gap abstains
        votes += np.moveaxis(inside, (0, 1, 2), order).astype(np.int8)
    return votes >= 2


def _crossings(points: np.ndarray, cells: np.ndarray, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How often each ray along the last axis passes the mesh just before each voxel."""
    counts = np.zeros(size, np.int16)
    jitter = np.array([1.7e-4, 3.1e-4])  # rays keep off vertices and edges
    for a, b, c in points[cells]:
        low = np.maximum(np.ceil((np.minimum(np.minimum(a, b), c)[:2] - start[:2] - jitter) / STEP), 0).astype(int)
        high = np.minimum(np.floor((np.maximum(np.maximum(a, b), c)[:2] - start[:2] - jitter) / STEP), size[:2] - 1)
        high = high.astype(int)
        if (high < low).any():
            continue
        u = np.arange(low[0], high[0] + 1)[:, None] * STEP + start[0] + jitter[0]
        v = np.arange(low[1], high[1] + 1)[None, :] * STEP + start[1] + jitter[1]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-12:
            continue
        wb = ((u - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (v - a[1])) / area
        wc = ((b[0] - a[0]) * (v - a[1]) - (u - a[0]) * (b[1] - a[1])) / area
        hit = (wb >= 0) & (wc >= 0) & (wb + wc <= 1)
        depth = a[2] + wb * (b[2] - a[2]) + wc * (c[2] - a[2])
        k = np.clip(np.ceil((depth - start[2]) / STEP), 0, size[2] - 1).astype(int)
        i, j = np.nonzero(hit)
        np.add.at(counts, (i + low[0], j + low[1], k[i, j]), 1)
    return counts
