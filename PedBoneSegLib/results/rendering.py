"""A picture of the bones in 3-D, by ray casting with numpy and scipy: it needs no screen, no OpenGL and no VTK."""

from dataclasses import dataclass

import numpy as np

from ..anatomy import JointTable
from ..volume import Grid

FRONT = (-0.3, 1.0, -0.15)  # where the viewer looks, in LPS: from the front, a little from the patient's left and above
MARGIN = 1.06  # the picture's width over the bones' extent
AMBIENT = 0.3  # brightness of a surface that is seen edge-on; 1 is one that faces the viewer
OVERSAMPLING = 2  # rays along each side of a pixel; their mean smooths the edges
DEPTH_STEP_MM = 1.0  # between the samples along a ray, at least; the surface is placed between two of them
PADDING = 3  # voxels of background around a bone, so that its smoothed mask falls to 0


def render_bones(
    labels: np.ndarray, grid: Grid, table: JointTable, size: int = 400, direction: tuple[float, float, float] = FRONT
) -> np.ndarray:
    """The bones' surfaces as RGB uint8 [size, size, 3] on white, the feet's side down, lit from the viewer.

    `labels` is [i, j, k]. Bones that lie behind others are hidden by them; without any bone the picture is white.
    """
    from scipy import ndimage

    boxes = ndimage.find_objects(labels, len(table.bones))
    bones = [(bone, box) for bone, box in zip(table.bones, boxes, strict=True) if box is not None]
    rays = size * OVERSAMPLING
    picture, nearest = np.full((rays, rays, 3), 255, np.float32), np.full((rays, rays), np.inf)
    if bones:
        camera = _Camera.around([box for _, box in bones], grid, direction, rays)
        for bone, box in bones:
            rows, columns, depth, facing = _cast(labels[box] == bone.label, box, grid, camera)
            front = depth < nearest[rows, columns]
            rows, columns = rows[front], columns[front]
            nearest[rows, columns] = depth[front]
            brightness = AMBIENT + (1 - AMBIENT) * facing[front]
            picture[rows, columns] = brightness[:, None] * np.array(bone.color)
    return picture.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean((1, 3)).round().astype(np.uint8)


@dataclass(frozen=True)
class _Camera:
    """A parallel projection. `axes` are unit vectors in LPS, as rows: into the picture, down and to the right in it.
    `corner` is the place of the first ray in mm along these axes, `step` the distance of neighboring rays."""

    axes: np.ndarray
    corner: np.ndarray
    step: float
    rays: int

    @classmethod
    def around(
        cls, boxes: list[tuple[slice, ...]], grid: Grid, direction: tuple[float, float, float], rays: int
    ) -> "_Camera":
        depth = np.array(direction) / np.linalg.norm(direction)
        down = np.array((0.0, 0.0, -1.0)) + depth[2] * depth  # towards the feet, as far as the view allows
        down /= np.linalg.norm(down)
        axes = np.array([depth, down, np.cross(down, depth)])
        extent = np.concatenate([_corners(box, grid) for box in boxes]) @ axes.T
        low, high = extent.min(0), extent.max(0)
        width = (high - low)[1:].max() * MARGIN
        return cls(axes, np.array([low[0], *((low + high)[1:] - width) / 2]), width / rays, rays)


def _cast(
    mask: np.ndarray, box: tuple[slice, ...], grid: Grid, camera: _Camera
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rays that meet a bone: their rows and columns, the depth in mm where they first meet it, and the cosine
    between its surface there and the ray (1: it faces the viewer)."""
    from scipy import ndimage

    spacing = np.array(grid.spacing)
    sigma = np.maximum(0.7 * spacing, 0.35 * spacing.max()) / spacing  # smooths the steps between thick slices
    solid = ndimage.gaussian_filter(np.pad(mask, PADDING).astype(np.float32), sigma)

    # The samples are a grid [depth, row, column] over the part of the picture that the bone can reach.
    reach = (_corners(box, grid, PADDING) @ camera.axes.T - camera.corner) / camera.step
    first, last = np.floor(reach.min(0)).astype(int), np.ceil(reach.max(0)).astype(int)
    first[1:], last[1:] = np.clip(first[1:], 0, camera.rays), np.clip(last[1:], 0, camera.rays)
    stride = np.array([max(1, int(max(DEPTH_STEP_MM, 0.5 * spacing.max()) / camera.step)), 1, 1])
    count = -(-(last - first) // stride)
    to_voxels = np.linalg.inv(grid.affine[:3, :3]) @ camera.axes.T * camera.step  # one ray's distance in voxels
    origin = np.linalg.solve(grid.affine[:3, :3], camera.axes.T @ camera.corner - grid.origin)
    origin = origin - [along.start - PADDING for along in box] + to_voxels @ first
    samples = ndimage.affine_transform(solid, to_voxels * stride, origin, tuple(count), order=1)

    rows, columns = np.nonzero((samples > 0.5).any(0))
    index = (samples[:, rows, columns] > 0.5).argmax(0)
    before, after = samples[np.maximum(index - 1, 0), rows, columns], samples[index, rows, columns]
    depth = (index - (after - 0.5) / np.maximum(after - before, 1e-6)) * stride[0]  # where the mask rises through 1/2
    places = origin[:, None] + to_voxels @ np.stack([depth, rows, columns])
    rise = np.stack([ndimage.map_coordinates(slope, places, order=1) for slope in np.gradient(solid)])
    normals = to_voxels.T @ rise  # along the camera's axes
    facing = normals[0] / np.maximum(np.linalg.norm(normals, axis=0), 1e-12)
    return rows + first[1], columns + first[2], (depth + first[0]) * camera.step, np.clip(facing, 0, 1)


def _corners(box: tuple[slice, ...], grid: Grid, padding: int = 0) -> np.ndarray:
    """The eight corners of a box of voxels, LPS mm."""
    ends = [(along.start - padding - 0.5, along.stop + padding - 0.5) for along in box]
    return np.array(np.meshgrid(*ends)).reshape(3, 8).T @ grid.affine[:3, :3].T + grid.origin
