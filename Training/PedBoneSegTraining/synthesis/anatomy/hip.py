"""The hip: femur and pelvis. Never trained on: for tests of detection and the example of a new joint.

Adult millimeters of a left hip, the femoral head's center at the origin: x lateral, y anterior, z up.
"""

import numpy as np
import torch

from .draw import Draw
from .model import Body, Bone, End, Frame, Joint
from .shapes import ball, capsule, common, cut, ellipsoid, length, rotation, sheet, tube, union
from .strands import Weaver
from .tissues import Tissue as T

BONES = ("femur", "pelvis")
NEIGHBORS = ()
REST = {"flexion": 0.0, "rotation": 0.0, "abduction": 0.0}
ANCHOR = ("femur", -24.0, 40.0)
FIELD = (176.0, 170.0, 180.0)
CENTER = (-2.0, -8.0, -8.0)
LENGTH = 250.0


def draw(d: Draw) -> dict:
    return {
        "flexion": d.normal(4, 6),
        "rotation": d.normal(0, 12),
        "abduction": d.normal(3, 6),
        "pelvis": [d.normal(0, 5), d.normal(0, 3), d.normal(0, 4)],
        "neck": d.normal(52, 4),
        "version": d.normal(14, 6),
        "wing": d.normal(7, 1),
        "effusion": round(max(d.normal(0.3, 0.4), 0.05), 3),
    }


def femur(p, k: dict) -> Body:
    thin, tilt, turn = k["shaft"], np.radians(k["neck"]), np.radians(k["version"])
    axis = np.array([np.sin(tilt) * np.cos(turn), -np.sin(tilt) * np.sin(turn), -np.cos(tilt)])  # from the head outward
    foot = 50 * axis
    bone = union(ball(p, (0, 0, 0), 23.5), capsule(p, 8 * axis, foot, 15.5, 16.5), 7)
    shaft = tube(
        p,
        [-LENGTH, -110, -75, -50, -25],
        [foot[0] - 4, foot[0] - 1, foot[0], foot[0] - 1, foot[0] + 1],
        [foot[1] + 10, foot[1] + 6, foot[1] + 3, foot[1], foot[1]],
        [13.5 * thin, 14 * thin, 16 * thin, 19, 17],
        [13.5 * thin, 14.5 * thin, 16 * thin, 18.5, 17],
        -LENGTH - 60,
        -22,
    )
    bone = union(bone, shaft, 10)
    bone = union(bone, ellipsoid(p, foot + (10, -7, 22), (11, 15, 20), rotation(y=-10)), 7)
    bone = union(bone, ellipsoid(p, foot + (-15, -12, -22), (9, 9, 12)), 8)
    along = sum(p[i] * float(axis[i]) for i in range(3))
    head = 14 - along - 0.012 * (length(p[0], p[1], p[2]) ** 2 - along**2)
    greater = torch.minimum(
        (p[0] - float(foot[0]) - 2) * 0.6 + (p[2] - float(foot[2]) - 14) * 0.8, p[0] - float(foot[0]) + 4
    )
    return Body(
        bone, [End("femur.head", torch.minimum(head, 30 - along)), End("femur.trochanter", greater)], 12 - along
    )


def pelvis(p, k: dict) -> Body:
    wing = k["wing"]
    bone = common(ball(p, (-3, -1, 1), 35), (p[0] * 0.70 + p[1] * 0.28 - p[2] * 0.66) - 6, 5)  # acetabulum
    bone = cut(bone, ball(p, (3, 1, -2), 25), 2)
    blade = (
        ((-10, 4, 26), (18, 34, 74), (0, -14, 112)),
        ((-10, 4, 26), (0, -14, 112), (-52, -70, 66)),
        ((-14, -10, 22), (-10, 4, 26), (-52, -70, 66)),
        ((-14, -10, 22), (-52, -70, 66), (-36, -46, 24)),
    )
    bone = union(bone, sheet(p, blade, (wing,) * 4), 10)
    crest = (
        ((17, 33, 72), (14, 14, 98), 7, 7),
        ((14, 14, 98), (-2, -16, 111), 7, 6),
        ((-2, -16, 111), (-32, -50, 98), 6, 7),
        ((-32, -50, 98), (-52, -70, 66), 7, 9),
        ((17, 33, 72), (4, 30, 34), 6, 8),
        ((-52, -70, 66), (-38, -48, 24), 8, 7),
        ((-38, -48, 24), (-18, -26, 14), 7, 10),
    )
    ischium_and_pubis = (
        ((-16, -22, -10), (-14, -32, -56), 14, 14),
        ((-14, -32, -58), (-50, 16, -50), 10, 6.5),
        ((-18, 16, 4), (-56, 42, -16), 10, 8),
        ((-58, 40, -18), (-56, 30, -42), 9, 7),
        ((-56, 30, -42), (-50, 16, -50), 7, 6.5),
    )
    for a, b, ra, rb in crest + ischium_and_pubis:
        bone = union(bone, capsule(p, a, b, ra, rb), 6)
    plate = torch.minimum(p[2] - 6 + 0.25 * p[1], torch.minimum(-8 - p[0], 36 - length(p[0], p[1], p[2])))
    return Body(bone, [End("pelvis", plate)] if k["triradiate"] else [], 30 - length(p[0], p[1], p[2]))


def frames(parameters: dict) -> dict[str, Frame]:
    pose, size, proportions = parameters["pose"], parameters["size"], parameters["proportions"]
    leg = rotation(x=pose["flexion"]) @ rotation(y=-pose["abduction"]) @ rotation(z=pose["rotation"])
    trunk = rotation(*pose["pelvis"])
    return {
        n: Frame(turn, np.zeros(3), size * np.asarray(proportions[n]))
        for n, turn in (("femur", leg), ("pelvis", trunk))
    }


def build(parameters: dict) -> Joint:
    f = frames(parameters)
    knobs = parameters["pose"] | {"shaft": parameters["shaft"], "triradiate": parameters.get("bone_age", 99) < 14.5}
    bones = [
        Bone("femur", lambda p: femur(p, knobs), f["femur"], (-26, -42, -LENGTH), (68, 34, 28), None, (0.8, 5.0)),
        Bone("pelvis", lambda p: pelvis(p, knobs), f["pelvis"], (-72, -84, -76), (36, 56, 120), None, (1.2, 1.2)),
    ]
    size = parameters["size"]

    def torso(p: torch.Tensor):
        q = p / size
        trunk = torch.maximum(ellipsoid(q, (-95, -12, 60), (135, 92, 110)), -40 - q[2])
        thigh = capsule(q, (-180, -5, -40), (-180, -5, -300), 78, 70)
        cavity = torch.maximum(ellipsoid(q, (-96, 5, 60), (74, 52, 88)), q[2] - 140)
        return union(trunk, thigh, 20) * size, torch.full_like(q[0], 50.0), cavity * size

    return Joint("hip", bones, [("femur", "pelvis", 0.75)], soft(f, parameters), wrap=26.0, torso=torso)


def soft(f: dict[str, Frame], parameters: dict) -> list:
    w, fe, pe = Weaver(f, parameters), "femur", "pelvis"
    m = w.muscle
    m((pe, -48, -74, 60, 14), (pe, -20, -66, 20, 20), (fe, 30, -52, -30, 18), (fe, 46, -26, -80, 8))  # gluteus maximus
    m((pe, -40, -72, 20, 14), (pe, -20, -60, -20, 18), (fe, 30, -40, -60, 14), (fe, 44, -20, -100, 5))
    m((pe, -10, -24, 100, 8), (pe, 14, -14, 60, 18), (fe, 46, -12, 26, 8), (fe, 54, -14, -2, 4))  # medius, minimus
    m((pe, 12, 14, 84, 7), (pe, 26, 12, 44, 13), (fe, 48, 2, 10, 5))
    m((pe, 18, 34, 72, 5), (fe, 44, 34, 20, 10), (fe, 58, 18, -60, 8))  # tensor
    m((pe, -20, -16, 90, 10), (pe, -14, 18, 50, 16), (pe, -8, 32, 10, 12), (fe, 20, -6, -48, 5))  # iliopsoas
    m((pe, -62, -20, 130, 18), (pe, -48, 6, 70, 14), (pe, -16, 36, 12, 8))
    m((pe, 6, 34, 34, 5), (fe, 26, 36, -30, 11), (fe, 34, 34, -200, 15))  # rectus femoris
    m((pe, 18, 38, 70, 4), (fe, 10, 46, -10, 7), (fe, -16, 40, -200, 8))  # sartorius
    m((fe, 54, -4, -20, 6), (fe, 54, 6, -90, 14), (fe, 52, 8, -220, 18))  # vasti
    m((fe, 36, 18, -50, 6), (fe, 38, 24, -120, 13), (fe, 36, 24, -220, 14))
    m((pe, -40, 34, -14, 8), (fe, 0, 18, -50, 12), (fe, 24, -4, -90, 5))  # pectineus, adductors
    m((pe, -54, 34, -34, 8), (fe, -20, 18, -90, 16), (fe, 16, -8, -180, 10))
    m((pe, -40, 2, -54, 8), (fe, -14, -12, -90, 20), (fe, 14, -18, -200, 14))
    m((pe, -16, -36, -62, 8), (fe, 6, -44, -110, 14), (fe, 10, -48, -220, 18))  # hamstrings
    m((pe, -28, -26, 14, 9), (pe, 4, -34, 8, 9), (fe, 44, -24, 4, 5))  # rotators
    m((pe, -44, 6, -30, 11), (pe, -22, -6, -32, 11), (fe, 28, -24, -14, 5))  # obturators
    for dx, r in ((0, 4.5), (-10, 5.5)):
        w.vessel(
            (pe, -40 + dx, 20, 60, r),
            (pe, -22 + dx, 46, 8, r),
            (fe, -4 + dx, 42, -50, r),
            (fe, 0 + dx, 20, -220, 0.8 * r),
        )
    w.nerve((pe, -30, -54, 14, 6), (fe, 8, -48, -30, 5.5), (fe, 14, -36, -220, 5))
    w.nerve((pe, -8, 44, 24, 3), (fe, 8, 46, -20, 2.6))
    rim = rotation(y=40, z=20)
    ring = [tuple(rim @ (9.0, 27 * np.cos(a), 27 * np.sin(a))) for a in np.linspace(0, 2 * np.pi, 13)]
    w.strand(T.MENISCUS, [(pe, *point, 3.2) for point in ring])
    w.ligament((pe, 4, 34, 24, 7), (fe, 24, 14, -20, 9), flat=(0.2, 1, 0.2), aspect=3.0)
    w.fluid(
        (fe, 16, 16, -14, 8), (fe, 28, 8, -26, 7), flat=(0, 1, 0), aspect=3 / (0.5 + parameters["pose"]["effusion"])
    )
    return w.strands
