"""Everything that varies between exams, drawn from (seed, joint, i) alone.

The dictionary is JSON-able and hashes the same on every machine (draw.digest); the voxel map is a function of it.
"""

from . import JOINTS
from .draw import Draw
from .growth import cartilage_thickness, plate_thickness, shaft_width, size_at

VERSION = 3  # of the anatomy: part of every exam's name, raised when the same draw would give another joint


def exam_parameters(seed: int, joint: str, i: int, age: float | None = None) -> dict:
    """Parameters of exam i of a joint. An `age` in years overrides the drawn one (for tests and pictures)."""
    d = Draw("anatomy", VERSION, seed, joint, i)
    drawn = d.uniform(17, 30) if d.chance(0.2) else d.uniform(2, 17)
    age = drawn if age is None else age
    size = round(size_at(age) * d.normal(1, 0.05), 5)
    names = JOINTS[joint].BONES + JOINTS[joint].NEIGHBORS
    reach = d.normal(1, 0.1)
    extent = [round(e * (0.4 + 0.6 * size) * reach, 2) for e in JOINTS[joint].FIELD]
    center = [round(c * size + d.normal(0, s), 4) for c, s in zip(JOINTS[joint].CENTER, (6, 6, 9), strict=True)]
    if d.chance(0.3):  # a tall field, up the one shaft or down the other
        tall = d.uniform(1.2, 1.7)
        center[2] = round(center[2] + 0.6 * d.uniform(-1, 1) * (tall - 1) * extent[2], 4)
        extent[2] = round(tall * extent[2], 2)
    if joint == "shoulder" and d.chance(0.15):  # a field as wide as the chest
        center[0], extent[0] = round(center[0] - 0.25 * extent[0], 4), round(1.5 * extent[0], 2)
    both = joint in ("ankle", "knee") and d.chance(0.12)
    if both:
        center[0] = round(center[0] - 0.33 * extent[0], 4)  # looks at the space between the limbs
    crooked = 6.0 if d.chance(0.12) else 1.2
    return {
        "version": VERSION,
        "joint": joint,
        "age": round(age, 3),
        "bone_age": round(age + d.normal(0, 0.7), 3),
        "size": size,
        "side": d.choice(("left", "right")),
        "proportions": {n: [round(d.normal(1, 0.035), 5) for _ in range(3)] for n in names},
        "shaft": round(shaft_width(age) * d.normal(1, 0.07), 5),
        "cartilage_mm": round(cartilage_thickness(age) * d.normal(1, 0.12), 4),
        "film_mm": round(abs(d.normal(0.5, 0.4)), 4),
        "plate_mm": round(plate_thickness(age) * d.normal(1, 0.15), 4),
        "cortex": d.normal(1.05, 0.2),
        "plate_wobble": round(d.uniform(0.3, 1.4), 4),  # mm, of its height
        "scar_mm": round(d.uniform(0.3, 0.9), 4) if d.chance(0.5) else 0.0,  # where a plate has closed
        "marrow_blur": round(d.uniform(0.15, 0.8), 4),  # how gradually red marrow turns yellow
        "red_marrow": round(max(0.9 - 0.055 * age, 0.05) * d.uniform(0.3, 1.3), 4),
        "warp": {"seed": d.seed(), "amplitude": d.uniform(0.5, 3.0), "cell": d.uniform(45, 90)},
        "bend_mm": [d.normal(0, crooked), d.normal(0, crooked)],  # of the axis, sideways and forward, 10 cm along it
        "rough": {"seed": d.seed(), "amplitude": d.uniform(0.1, 0.5)},
        "turn": [d.normal(0, 5), d.normal(0, 5), d.normal(0, 12)],
        "center_mm": center,
        "pose": JOINTS[joint].draw(d),
        "soft": {
            "seed": d.seed(),
            "bulk": d.normal(1.55, 0.12),
            "fat_mm": round(2 + 9 * d.uniform(0, 1) ** 2 * d.uniform(0.4, 2.0), 3),
            "filled_mm": round(d.uniform(8, 24), 3) if d.chance(0.8) else d.uniform(0, 10),
            "septum_mm": d.uniform(0.1, 1.3),
            "rims": d.chance(0.25),  # muscles have a dark rim
            "streaks": round(d.uniform(0, 1) ** 2, 4),
            "lobules": d.uniform(0, 1),
            "skin_mm": d.uniform(1.0, 1.8),
            "vessels": int(d.uniform(2, 9)),
            "nodes": int(d.uniform(0, 4)) if d.chance(0.5) else 0,
            "masses": (1 + int(d.uniform(0, 2.2))) if d.chance(0.35) else 0,
            "tumor_mm": round(d.uniform(18, 55), 3) if d.chance(0.15) else None,  # radius of a large mass
            "other_side_mm": d.uniform(-12, 12) if both else None,
        },
        "field": {"extent_mm": extent, "spacing_mm": round(min(max(max(extent) / 192, 0.6), 1.0), 4)},
    }
