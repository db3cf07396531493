"""The elbow: humerus, ulna, radius. Never trained on: for tests of detection and the story of a new joint.

Adult millimeters of a left elbow, the middle of the hinge at the origin, the arm straight: x lateral (radius), y
anterior, z up.
"""

import numpy as np
import torch

from .draw import Draw
from .model import Body, Bone, End, Frame, Joint
from .shapes import ball, brick, capsule, cut, disc, ellipsoid, rotation, tube, union
from .strands import Weaver

BONES = ("humerus", "ulna", "radius")
NEIGHBORS = ()
REST = {"flexion": 0.0}
ANCHOR = ("humerus", -20.0, 20.0)
FIELD = (116.0, 130.0, 160.0)
CENTER = (0.0, 0.0, 0.0)
LENGTH = 230.0


def draw(d: Draw) -> dict:
    return {
        "flexion": round(abs(d.normal(12, 14)) if d.chance(0.7) else d.uniform(40, 90), 3),
        "carrying": d.normal(10, 3),
        "trochlea": d.normal(11, 0.7),
        "olecranon": d.normal(1, 0.07),
        "effusion": round(max(d.normal(0.3, 0.4), 0.05), 3),
    }


def humerus(p, k: dict) -> Body:
    thin, r = k["shaft"], k["trochlea"]
    bone = tube(
        p,
        [6, 16, 30, 50, 90, LENGTH],
        [-1, -1, -1, 0, 0, 0],
        [0, -1, -2, -3, -4, -4],
        [27, 28, 22, 13.5 * thin, 11 * thin, 11 * thin],
        [9, 7.5, 8, 9.5 * thin, 11 * thin, 12 * thin],
        4,
        LENGTH + 60,
        2.3,
    )
    rims = union(disc(p, (-18, 3, 0), r + 1.5, 3.5, 3), disc(p, (-1, 3, 0), r, 2.5, 2), 6)
    trochlea = union(disc(p, (-9, 3, 0), r - 2, 11, 2), rims, 5)
    bone = union(bone, trochlea, 5)
    bone = union(bone, ball(p, (13, 5, 0), 10.5), 5)
    bone = union(bone, capsule(p, (-22, -1, 12), (-32, -4, 9), 8, 5.5), 5)
    bone = union(bone, capsule(p, (20, 0, 12), (26, -2, 9), 8, 6), 5)
    bone = cut(bone, ellipsoid(p, (-6, -13, 18), (11, 10, 11)), 3)
    bone = cut(bone, ellipsoid(p, (-8, 13, 17), (9, 8, 8)), 3)
    medial = torch.minimum(-24 - p[0], 26 - p[2])
    return Body(
        bone,
        [End("humerus.distal", torch.minimum(9 - p[2], p[0] + 22)), End("humerus.medial", medial)],
        torch.minimum(9 - p[2], 22 - p[0].abs()),
    )


def ulna(p, k: dict) -> Body:
    thin, tall = k["shaft"], k["olecranon"]
    bone = union(
        capsule(p, (-9, -14, 9 * tall), (-9, -13, -14), 8.5, 9.5), brick(p, (-9, -12, 6 * tall), (11, 8, 10), 5), 6
    )
    bone = union(bone, capsule(p, (-9, -8, -19), (-9, 9, -14), 9, 6), 6)
    bone = union(bone, capsule(p, (-9, -12, -14), (-6, -10, -60), 10, 7.5 * thin), 7)
    bone = union(bone, capsule(p, (-6, -10, -60), (-4, -6, -LENGTH), 7.5 * thin, 6.5 * thin), 5)
    return Body(bone, [End("ulna.olecranon", torch.minimum(p[2] - 5 - 0.3 * (p[1] + 12), -6 - p[1]))])


def radius(p, k: dict) -> Body:
    thin = k["shaft"]
    q = (p[2] + 17, p[0] - 13, p[1] - 4)  # a disc's axis is its first
    bone = disc(q, (0, 0, 0), 11, 5, 2)
    bone = cut(bone, ball(p, (13, 5, 0), 12), 1)
    bone = union(bone, capsule(p, (13, 4, -20), (12, 3, -40), 7.0, 6.5), 4)
    bone = union(bone, ellipsoid(p, (8, 2, -40), (6, 6, 9)), 4)
    bone = union(bone, capsule(p, (12, 3, -40), (16, 3, -130), 6.5 * thin, 7.5 * thin), 4)
    bone = union(bone, capsule(p, (16, 3, -130), (14, 4, -LENGTH), 7.5 * thin, 8 * thin), 4)
    return Body(bone, [End("radius.head", p[2] + 23)], p[2] + 24)


def frames(parameters: dict) -> dict[str, Frame]:
    pose, size, proportions = parameters["pose"], parameters["size"], parameters["proportions"]
    pivot = np.array([0.0, 3.0, 0.0])
    bend = rotation(x=pose["flexion"]) @ rotation(y=-pose["carrying"] * np.cos(np.radians(pose["flexion"])))

    def frame(bone: str, turn: np.ndarray) -> Frame:
        return Frame(turn, size * (pivot - turn @ pivot), size * np.asarray(proportions[bone]))

    return {"humerus": frame("humerus", np.eye(3)), "ulna": frame("ulna", bend), "radius": frame("radius", bend)}


def build(parameters: dict) -> Joint:
    f, knobs = frames(parameters), parameters["pose"] | {"shaft": parameters["shaft"]}
    bones = [
        Bone("humerus", lambda p: humerus(p, knobs), f["humerus"], (-40, -18, -16), (34, 20, LENGTH), None, (0.7, 3.5)),
        Bone("ulna", lambda p: ulna(p, knobs), f["ulna"], (-24, -26, -LENGTH), (8, 18, 22), None, (0.8, 2.8)),
        Bone("radius", lambda p: radius(p, knobs), f["radius"], (0, -10, -LENGTH), (28, 18, -8), None, (0.7, 2.4)),
    ]
    contacts = [("humerus", "ulna", 0.5), ("humerus", "radius", 0.5), ("ulna", "radius", 0.35)]
    return Joint("elbow", bones, contacts, soft(f, parameters), wrap=20.0, fat=0.7)


def soft(f: dict[str, Frame], parameters: dict) -> list:
    w, hu, ul, ra = Weaver(f, parameters), "humerus", "ulna", "radius"
    m = w.muscle
    m((hu, 0, 24, 220, 15), (hu, 0, 24, 80, 13), (hu, 2, 22, 30, 7), (ra, 6, 8, -30, 3))  # biceps
    m((hu, 2, 12, 120, 12), (hu, -2, 14, 50, 13), (hu, -6, 19, 10, 8), (ul, -9, 6, -22, 4))  # brachialis
    m((hu, 0, -22, 220, 20), (hu, 0, -20, 80, 16), (hu, -4, -20, 35, 8), (ul, -9, -22, 10, 4))  # triceps
    m((hu, 24, 2, 60, 6), (hu, 26, 8, 20, 9), (ra, 26, 14, -40, 11), (ra, 22, 10, -150, 9))  # brachioradialis
    m((hu, 26, -4, 12, 5), (ra, 28, -2, -40, 10), (ra, 24, -6, -150, 10))  # extensors
    m((hu, 24, -6, 6, 4), (ra, 14, -14, -50, 10), (ra, 10, -14, -150, 10))
    m((hu, -30, 0, 8, 5), (ul, -20, 14, -30, 10), (ul, -4, 18, -150, 11))  # flexors
    m((hu, -31, -3, 6, 5), (ul, -26, 0, -40, 11), (ul, -20, 4, -150, 12))
    m((hu, -28, 4, 10, 4), (ul, -8, 16, -30, 7), (ra, 12, 12, -70, 5))  # pronator
    m((ul, -20, -8, -30, 5), (ul, -16, -4, -70, 10), (ul, -12, 0, -150, 11))
    m((hu, 24, -6, 4, 3), (ul, 0, -20, -14, 6), (ul, -4, -18, -36, 3))  # anconeus
    w.ligament((hu, 24, 0, 6, 3), (ra, 24, 3, -18, 4), flat=(1, 0, 0), aspect=2.0)
    w.ligament((hu, -27, -2, 4, 3), (ul, -20, -2, -14, 4), flat=(1, 0, 0), aspect=2.0)
    w.fluid((hu, -6, 12, 18, 6), (hu, -2, 13, 10, 5), flat=(0, 1, 0), aspect=3 / (0.5 + parameters["pose"]["effusion"]))
    w.vessel((hu, -18, 18, 220, 2.6), (hu, -12, 26, 30, 2.6), (ul, 0, 24, -30, 2.2), (ra, 4, 18, -150, 1.8))
    w.vessel((hu, -26, 20, 220, 2.4), (hu, -18, 34, 20, 2.6), (ul, -14, 32, -60, 2.2))
    w.vessel((hu, 20, 24, 220, 2.2), (hu, 18, 34, 20, 2.4), (ra, 26, 26, -60, 2.2))
    w.nerve((hu, -20, 14, 220, 2.4), (hu, -16, 24, 30, 2.4), (ul, -4, 20, -40, 2.2))
    w.nerve((hu, -20, -10, 200, 2.2), (hu, -25, -12, 20, 2.2), (ul, -20, -8, -20, 2.2))
    w.nerve((hu, 22, 6, 80, 2.0), (hu, 20, 14, 20, 2.0), (ra, 18, 14, -30, 1.8))
    return w.strands
