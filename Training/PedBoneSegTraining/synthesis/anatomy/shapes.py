"""Signed distances (negative inside, millimeters) of the solids that bones are modeled from.

Every function takes points p, a sequence of three tensors (x, y, z), and returns a tensor. Distances are exact or
first-order right near the surface, which is what cortex, cartilage and joint space are measured with.
"""

from collections.abc import Sequence

import numpy as np
import torch

Points = Sequence[torch.Tensor]


def length(*components: torch.Tensor) -> torch.Tensor:
    total = components[0] ** 2
    for c in components[1:]:
        total = total + c**2
    return total.clamp(min=1e-12).sqrt()


def turned(p: Points, rotation: np.ndarray | None, center) -> list[torch.Tensor]:
    """Coordinates of p in a frame at `center` whose axes are the columns of `rotation`."""
    q = [p[i] - float(center[i]) for i in range(3)]
    if rotation is None:
        return q
    return [sum(q[i] * float(rotation[i, k]) for i in range(3)) for k in range(3)]


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Rotation by degrees about x, then y, then z."""
    a, b, c = np.radians([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def ellipsoid(p: Points, center, radii, turn: np.ndarray | None = None) -> torch.Tensor:
    q = turned(p, turn, center)
    k0 = length(*(q[i] / radii[i] for i in range(3)))
    k1 = length(*(q[i] / radii[i] ** 2 for i in range(3)))
    return torch.where(k0 < 0.3, (k0 - 1) * min(radii), k0 * (k0 - 1) / k1)  # the quotient is void at the center


def ball(p: Points, center, radius: float) -> torch.Tensor:
    return length(*turned(p, None, center)) - radius


def capsule(p: Points, a, b, ra: float, rb: float | None = None) -> torch.Tensor:
    """A round stick from a to b whose radius goes from ra to rb."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    axis = b - a
    q = turned(p, None, a)
    t = (sum(q[i] * float(axis[i]) for i in range(3)) / float(axis @ axis)).clamp(0, 1)
    distance = length(*(q[i] - t * float(axis[i]) for i in range(3)))
    return distance - (ra if rb is None else ra + (rb - ra) * t)


def disc(p: Points, center, radius: float, half_width: float, rounding: float, turn=None) -> torch.Tensor:
    """A cylinder along x with rounded rims: a condyle."""
    q = turned(p, turn, center)
    u, v = length(q[1], q[2]) - (radius - rounding), q[0].abs() - (half_width - rounding)
    return length(u.clamp(min=0), v.clamp(min=0)) + torch.maximum(u, v).clamp(max=0) - rounding


def brick(p: Points, center, half, rounding: float, turn=None) -> torch.Tensor:
    q = turned(p, turn, center)
    q = [q[i].abs() - (half[i] - rounding) for i in range(3)]
    outside = length(*(c.clamp(min=0) for c in q))
    return outside + torch.maximum(torch.maximum(q[0], q[1]), q[2]).clamp(max=0) - rounding


def profile(where: torch.Tensor, knots: Sequence[float], values: Sequence[float]) -> torch.Tensor:
    """Smooth curve through (knots, values), constant beyond the ends; knots rise."""
    knots_t = torch.as_tensor(knots, dtype=where.dtype, device=where.device)
    values_t = torch.as_tensor(values, dtype=where.dtype, device=where.device)
    index = torch.bucketize(where.contiguous(), knots_t).clamp(1, len(knots) - 1)
    left, right = knots_t[index - 1], knots_t[index]
    t = ((where - left) / (right - left)).clamp(0, 1)
    slope = torch.zeros_like(values_t)  # Catmull-Rom tangents, flat at the ends
    if len(knots) > 2:
        slope[1:-1] = (values_t[2:] - values_t[:-2]) / (knots_t[2:] - knots_t[:-2])
    span = right - left
    v0, v1 = values_t[index - 1], values_t[index]
    m0, m1 = slope[index - 1] * span, slope[index] * span
    return v0 + t * (m0 + t * (3 * (v1 - v0) - 2 * m0 - m1 + t * (2 * (v0 - v1) + m0 + m1)))


def tube(p: Points, knots, x, y, a, b, bottom: float, top: float, power: float = 2.0) -> torch.Tensor:
    """A shaft along z: at the heights `knots` its section is centered at (x, y) with half axes (a, b).

    The section is an ellipse for power 2, squarer above; between the knots its curves are smooth.
    """
    cx, cy, ra, rb = (profile(p[2], knots, v) for v in (x, y, a, b))
    u, v = (p[0] - cx), (p[1] - cy)
    if power == 2.0:
        k0 = length(u / ra, v / rb)
    else:
        k0 = ((u / ra).abs() ** power + (v / rb).abs() ** power).clamp(min=1e-9) ** (1 / power)
    k1 = length(u / ra**2, v / rb**2)
    side = torch.where(k0 < 0.3, (k0 - 1) * torch.minimum(ra, rb), k0 * (k0 - 1) / k1.clamp(min=1e-6))
    return torch.maximum(side, torch.maximum(bottom - p[2], p[2] - top))


def union(a: torch.Tensor, b: torch.Tensor, k: float = 0.0) -> torch.Tensor:
    """Union, its seam filled over about k millimeters."""
    if k <= 0:
        return torch.minimum(a, b)
    h = (k - (a - b).abs()).clamp(min=0)
    return torch.minimum(a, b) - h * h / (4 * k)


def cut(a: torch.Tensor, b: torch.Tensor, k: float = 0.0) -> torch.Tensor:
    """a without b, the new edge rounded over about k millimeters."""
    if k <= 0:
        return torch.maximum(a, -b)
    h = (k - (a + b).abs()).clamp(min=0)
    return torch.maximum(a, -b) + h * h / (4 * k)


def common(a: torch.Tensor, b: torch.Tensor, k: float = 0.0) -> torch.Tensor:
    """What a and b share."""
    return cut(a, -b, k)


def step(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 below low, 1 above high, smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def sheet(p: Points, triangles, thickness, turn=None) -> torch.Tensor:
    """Union of flat triangles, each grown by half its `thickness` to either side and round at the rim."""
    result = None
    for corners, thick in zip(triangles, thickness, strict=True):
        d = _triangle(p, np.asarray(corners, float)) - thick / 2
        result = d if result is None else torch.minimum(result, d)
    return result


def _triangle(p: Points, v: np.ndarray) -> torch.Tensor:
    edges = [v[(k + 1) % 3] - v[k] for k in range(3)]
    normal = np.cross(edges[0], v[2] - v[0])
    normal = normal / np.linalg.norm(normal)
    q = [turned(p, None, v[k]) for k in range(3)]
    nearest, inside = None, None
    for k in range(3):
        e = edges[k]
        t = (sum(q[k][i] * float(e[i]) for i in range(3)) / float(e @ e)).clamp(0, 1)
        d = sum((q[k][i] - t * float(e[i])) ** 2 for i in range(3))
        nearest = d if nearest is None else torch.minimum(nearest, d)
        across = np.cross(normal, e)
        side = sum(q[k][i] * float(across[i]) for i in range(3)) > 0
        inside = side if inside is None else inside & side
    plane = sum(q[0][i] * float(normal[i]) for i in range(3))
    return torch.where(inside, plane.abs(), nearest.clamp(min=1e-12).sqrt())
