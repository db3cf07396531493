"""From a described joint to its voxel map: one way for every source of shapes.

Bones are fields on the half-resolution grid, refined inside each bone's box; soft tissue is painted first, bones last.
"""

from dataclasses import dataclass

import numpy as np
import torch

from . import growth
from .draw import Draw
from .model import OTHER_BONE, Anatomy, Bone, Joint
from .shapes import length, rotation, step
from .soft_tissue import empty, lump_distance, lumps, muscles, outline, strand_box, strand_distance, wandering_vessels
from .space import Box, Space, fine_box, finer
from .tissues import Tissue as T

FAR = 12.0  # distances are told up to here, mm


@dataclass
class _Grown:
    """A bone on the half-resolution grid, inside its box."""

    bone: Bone
    label: int
    box: Box
    surface: torch.Tensor  # the whole bone, unossified parts too
    ossified: torch.Tensor
    plate: torch.Tensor | None  # height above the nearest open plate
    scar: torch.Tensor | None  # height above the nearest plate that has closed
    wall: torch.Tensor | float  # thickness of the cortex, mm
    red: torch.Tensor  # readiness for red marrow
    cover: torch.Tensor | None


def assemble(joint: Joint, names: tuple[str, ...], parameters: dict, space: Space) -> Anatomy:
    """The voxel map of a joint; `names` are the bones of its table, in label order."""
    p = _body_points(space, parameters)
    grown = _grow(joint, names, parameters, space, p[1])
    tissue, group, skin = _paint_soft(joint, parameters, space, p)
    bones = torch.zeros(space.size, dtype=torch.uint8, device=space.device)
    depth = torch.full(space.size, FAR, device=space.device)
    _paint_joints(joint, parameters, space, p[1], grown, tissue)
    for g in grown:
        _paint_bone(g, parameters, space, tissue, bones, depth)
    group[tissue != T.MUSCLE] = 0
    arrays = [tissue, bones, depth, group]
    if parameters["soft"]["other_side_mm"] is not None:
        arrays = _other_side(arrays, skin, parameters, space)
    if parameters["side"] == "right":
        arrays = [a.flip(0) for a in arrays]
    tissue, bones, depth, group = arrays
    return Anatomy(joint.name, tissue, bones, depth, group, space.spacing, names, parameters)


def space_for(parameters: dict, device, spacing: float | None = None) -> Space:
    """The exam's field of view; `spacing` in millimeters overrides the drawn one."""
    spacing = spacing or parameters["field"]["spacing_mm"]
    size = tuple(max(8 * round(e / spacing / 8), 16) for e in parameters["field"]["extent_mm"])
    return Space(size, spacing, tuple(parameters["center_mm"]), torch.device(device))


def _body_points(space: Space, parameters: dict) -> dict[int, torch.Tensor]:
    """Coordinates in the body of the voxels of levels 1 to 3: the exam's turn, its crookedness, its smooth warp."""
    turn = rotation(*parameters["turn"])
    warp, points = parameters["warp"], {}
    for level in (1, 2, 3):
        p = space.points(level)
        q = torch.stack([sum(p[i] * float(turn[i, k]) for i in range(3)) for k in range(3)])
        curve = (q[2] / (100 * parameters["size"])) ** 2 * parameters["size"]
        q[0] += parameters["bend_mm"][0] * curve
        q[1] += parameters["bend_mm"][1] * curve
        points[level] = q + warp["amplitude"] * space.noise(warp["seed"], warp["cell"], level, 3)
    return points


def _grow(joint: Joint, names, parameters: dict, space: Space, p: torch.Tensor) -> list[_Grown]:
    rough = parameters["rough"]["amplitude"] * space.noise(parameters["rough"]["seed"], 9.0, 1)[0]
    wobble = parameters["plate_wobble"] * space.noise(parameters["rough"]["seed"] + 2, 7.0, 1)[0]
    others = [b.name for b in joint.bones if b.name not in names]
    partners = {frozenset(pair[:2]): pair[2] for pair in joint.contacts}
    grown: list[_Grown] = []
    for bone in joint.bones:
        box = _bone_box(bone, parameters, space)
        if empty(box):
            continue
        size, frame = bone.frame.size, bone.frame
        body = bone.shape(frame.local(p[(slice(None), *box)]))
        body.surface = (body.surface * size + rough[box]).clamp(max=FAR)
        for end in body.ends:
            end.height = end.height * size + wobble[box]
        for other in grown:
            share = partners.get(frozenset((bone.name, other.bone.name)))
            gap = 1.5 if share is None else 2 * share * parameters["cartilage_mm"] + parameters["film_mm"]
            _keep_clear(body.surface, box, other, max(gap, 2.0 * space.spacing))
        ossified, plate = growth.ossify(
            body, bone.center, parameters["bone_age"], size, parameters["plate_mm"], 2 * space.spacing
        )
        closed = [e.height for e in body.ends if not growth.is_open(e.center, parameters["bone_age"])]
        scar = min(closed, key=lambda height: float(height.abs().min())) if closed else None
        inward = torch.stack([-e.height for e in body.ends]).amin(0) if body.ends else torch.zeros_like(ossified)
        ends, middle = (c * size * parameters["cortex"] for c in bone.cortex)
        wall = ends + (middle - ends) * step(inward, 6 * size, 55 * size) if body.ends else ends
        red = 1 - (inward / (50 * size)).abs() if body.ends else torch.full_like(ossified, 0.3)
        if body.ends:
            red = torch.where(inward < 0, red - 0.6, red)
        label = names.index(bone.name) + 1 if bone.name in names else OTHER_BONE + 1 + others.index(bone.name)
        cover = None if body.articular is None else body.articular * size
        grown.append(_Grown(bone, label, box, body.surface, ossified, plate, scar, wall, red, cover))
    return grown


def _bone_box(bone: Bone, parameters: dict, space: Space) -> Box:
    """The voxels of level 1 around a bone, with room for its cartilage; turned back from the body to the field."""
    turn = rotation(*parameters["turn"])
    corners = (
        np.array(
            [
                bone.frame.world((x, y, z))
                for x in (bone.low[0], bone.high[0])
                for y in (bone.low[1], bone.high[1])
                for z in (bone.low[2], bone.high[2])
            ]
        )
        @ turn.T
    )
    reach = max(e / 2 for e in parameters["field"]["extent_mm"]) / 100
    bend = max(abs(b) for b in parameters["bend_mm"]) * (reach + 0.3) ** 2 / parameters["size"]
    margin = 6.0 + 1.6 * parameters["warp"]["amplitude"] + bend
    return space.box(corners.min(0) - margin, corners.max(0) + margin, 1)


def _shared(a: Box, b: Box) -> tuple[Box, Box, Box] | None:
    """What two boxes share, in the whole grid and in each one's own indices."""
    both = tuple(slice(max(s.start, t.start), min(s.stop, t.stop)) for s, t in zip(a, b, strict=True))
    if empty(both):
        return None
    return (
        both,
        *(tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(both, box, strict=True)) for box in (a, b)),
    )


def _keep_clear(surface: torch.Tensor, box: Box, other: _Grown, gap: float):
    """Carve a bone back, in place, to `gap` mm from one that came before: joint spaces are open by construction."""
    shared = _shared(box, other.box)
    if shared:
        _, mine, theirs = shared
        surface[mine] = torch.maximum(surface[mine], gap - other.surface[theirs])


def _paint_soft(joint: Joint, parameters: dict, space: Space, p):
    soft, half = parameters["soft"], p[1]
    seed, strands = soft["seed"], joint.strands
    uneven = space.noise(seed + 1, 25.0, 1)[0]
    septum = soft["septum_mm"] * (1 + 1.2 * uneven)  # muscles fuse where it is below 0
    far = torch.stack([b.shape(b.frame.local(p[3])).surface * b.frame.size for b in joint.bones]).amin(0)
    fascia = outline(space, p[2], strands, finer(far) - 3.0 * parameters["size"], joint.wrap * parameters["size"])
    if joint.torso is not None:
        fascia = torch.minimum(fascia, joint.torso(p[2])[0])
    fascia = _blurred(fascia)
    fat = joint.fat * soft["fat_mm"] * (1 + 0.35 * space.noise(seed + 2, 70.0, 2)[0]) + 1.5
    skin = finer(fascia - fat, 4)
    thick = finer(soft["skin_mm"] * _steepness(fascia - fat, 4 * space.spacing), 4)
    steep, fascia = finer(_steepness(fascia, 4 * space.spacing), 4), finer(fascia, 4)
    size = parameters["size"]
    begins, whole, share = joint.filled
    height = half[2].abs() if joint.filled_below else half[2]
    more = share * soft["filled_mm"] * size * (0.12 + 0.88 * step(height, begins * size, whole * size))
    for strand in strands:
        if strand.tissue == T.FAT and not empty(box := strand_box(space, strand, 1, 6.0)):  # stays fat between muscles
            more[box] *= step(strand_distance(half[(slice(None), *box)], strand) + 4 * uneven[box], -3, 5)
    flesh, group = muscles(space, half, strands, septum, more)
    tissue = torch.full(space.size, int(T.FAT), dtype=torch.uint8, device=space.device)

    lobules = (space.noise(seed + 3, 11.0, 0)[0] + 0.5 * space.noise(seed + 4, (6.0, 6.0, 14.0), 0)[0]).abs()
    stranded = (uneven > 0).repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    tissue[(lobules < 0.02 * soft["lobules"]) & stranded] = T.FASCIA
    meat = torch.minimum(finer(flesh), -0.5 - fascia)
    inside = meat > 0
    tissue[inside] = T.MUSCLE
    if soft["rims"]:
        tissue[inside & (meat < 0.5) & (lobules < 0.5)] = T.FASCIA
    if soft["streaks"] > 0.05:
        bundles = space.noise(seed + 5, (4.0, 4.0, 30.0), 0)[0].abs() + 0.8 * space.noise(seed + 6, 30.0, 0)[0].abs()
        tissue[inside & (bundles < 0.16 * soft["streaks"])] = T.INTERMUSCULAR
    tissue[(fascia.abs() < 0.5 * steep) & ~inside] = T.FASCIA
    if joint.torso is not None:
        wall, lung, organ = (finer(d) for d in joint.torso(half))
        tissue[(wall < -5) & (wall > -16) & (organ > 0)] = T.MUSCLE
        tissue[organ < 0] = T.ORGAN
        tissue[lung < 0] = T.LUNG

    for inner, shell, center, radii, rough in lumps(space, parameters):
        box = space.box(center - 1.4 * radii, center + 1.4 * radii, 1)
        if empty(box):
            continue
        d = finer(
            lump_distance(half[(slice(None), *box)], center, radii, space.noise(seed + 7, 15.0, 1)[0][box], rough)
        )
        fine = fine_box(box)
        d = torch.maximum(d, skin[fine] + 2)
        tissue[fine] = torch.where(d < 0, int(inner), tissue[fine])
        if shell is not None:
            tissue[fine] = torch.where((d < 0) & (d > -1.3), int(shell), tissue[fine])
    order = (T.LUNG, T.FLUID, T.TENDON, T.NERVE, T.VESSEL, T.LIGAMENT)
    ropes = [s for s in strands if s.tissue in order] + wandering_vessels(space, parameters)
    for strand in sorted(ropes, key=lambda s: order.index(s.tissue)):
        _paint_strand(strand, space, half, tissue)
    tissue[skin > -thick] = T.SKIN
    tissue[skin > 0] = T.AIR
    return tissue, group.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2), skin


def _steepness(field: torch.Tensor, step_mm: float) -> torch.Tensor:
    """Length of the gradient, at most 1: it turns a field's values into distances from its zero."""
    slopes = torch.gradient(field, spacing=step_mm)
    return length(*slopes).clamp(max=1)


def _blurred(field: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(field[None, None], (1,) * 6, mode="replicate")
    return torch.nn.functional.avg_pool3d(padded, 3, 1)[0, 0]


def _paint_strand(strand, space: Space, p: torch.Tensor, tissue: torch.Tensor):
    box = strand_box(space, strand, 1, 2.0 + 2 * space.spacing)
    if empty(box):
        return
    fine = fine_box(box)
    d = finer(strand_distance(p[(slice(None), *box)], strand))
    tissue[fine] = torch.where(d < 0, int(strand.tissue), tissue[fine])


def _paint_joints(joint: Joint, parameters: dict, space: Space, p: torch.Tensor, grown: list[_Grown], tissue):
    """Menisci and labra, fluid between the bones, articular cartilage."""
    by_name = {g.bone.name: g for g in grown}
    for strand in joint.strands:
        if strand.tissue == T.MENISCUS:
            _paint_strand(strand, space, p, tissue)
    for a, b, share in joint.contacts:
        if a not in by_name or b not in by_name:
            continue
        shared = _shared(by_name[a].box, by_name[b].box)
        if shared is None:
            continue
        box, mine, theirs = shared
        da, db = finer(by_name[a].surface[mine]), finer(by_name[b].surface[theirs])
        size = min(by_name[a].bone.frame.size, by_name[b].bone.frame.size)
        thick = share * parameters["cartilage_mm"]
        fine = fine_box(box)
        view = tissue[fine]
        film = (da + db < 2 * thick + parameters["film_mm"] + 0.5) & (view != T.MENISCUS)
        view = torch.where(film, int(T.FLUID), view)
        for g, d, other, own in ((by_name[a], da, db, mine), (by_name[b], db, da, theirs)):
            reach = (3 + 6 * share) * size - other
            if g.cover is not None:
                reach = finer(g.cover[own])
            view = torch.where((d < thick * step(reach, 0, 3)) & (reach > 0), int(T.CARTILAGE), view)
        tissue[fine] = view


def _paint_bone(g: _Grown, parameters: dict, space: Space, tissue, bones, depth):
    fine = fine_box(g.box)
    d, view = finer(g.ossified), tissue[fine]
    if g.ossified is not g.surface:
        view = torch.where((finer(g.surface) < 0) & (d >= 0), int(T.UNOSSIFIED), view)
    inside = d < 0
    patches = space.noise(parameters["rough"]["seed"] + 1, 7.0, 1)[0][g.box]
    red = finer(0.9 * g.red + 0.25 * patches) - 0.75 + parameters["red_marrow"]
    grain = Draw("marrow", parameters["rough"]["seed"], g.label).generator.random(tuple(d.shape), dtype=np.float32)
    red += parameters["marrow_blur"] * (2 * torch.from_numpy(grain).to(d.device) - 1)  # a gradient of fine grains
    view = torch.where(inside, int(T.MARROW), view)
    view = torch.where(inside & (red > 0), int(T.MARROW_RED), view)
    view = torch.where(inside & (d > -(g.wall if isinstance(g.wall, float) else finer(g.wall))), int(T.CORTEX), view)
    if g.plate is not None:
        thick = max(parameters["plate_mm"], 0.9 * space.spacing)
        view = torch.where(inside & (finer(g.plate).abs() < thick / 2), int(T.PLATE), view)
    if g.scar is not None and parameters["scar_mm"]:
        view = torch.where(inside & (finer(g.scar).abs() < parameters["scar_mm"] / 2), int(T.CORTEX), view)
    tissue[fine] = view
    bones[fine] = torch.where(inside, g.label, bones[fine])
    depth[fine] = torch.minimum(depth[fine], d)


def _other_side(arrays, skin: torch.Tensor, parameters: dict, space: Space):
    """The other limb, mirrored: the plane lies just medial of this one's skin, `other_side_mm` between the two."""
    middle = skin[:, :, space.size[2] // 3 : 2 * space.size[2] // 3] < 0
    first = int(torch.nonzero(middle.flatten(1).any(1))[0]) if middle.any() else 0
    plane = first - round(parameters["soft"]["other_side_mm"] / 2 / space.spacing)
    if plane <= 0:
        return arrays
    source = 2 * plane - 1 - torch.arange(plane, device=space.device)
    inside = source < space.size[0]
    mirrored = []
    for a, empty_value in zip(arrays, (int(T.AIR), 0, FAR, 0), strict=True):
        side = torch.full_like(a[:plane], empty_value)
        side[inside] = a[source[inside]]
        mirrored.append(torch.cat([side, a[plane:]]))
    return mirrored
