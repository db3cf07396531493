"""The shoulder: humerus and scapula; clavicle, ribs, chest wall and lung beside them.

Adult millimeters of a left shoulder, the humeral head's center at the origin: x lateral, y anterior, z up. The scapula
is modeled in its own plane (x lateral along the blade, y off its front, z up) and turned 35° forward. Head 47 mm
across, glenoid 36 by 27, blade 150 high and 3 thick.
"""

import numpy as np
import torch

from .draw import Draw
from .model import Body, Bone, End, Frame, Joint
from .shapes import ball, brick, capsule, common, cut, ellipsoid, length, profile, rotation, sheet, step, tube, union
from .strands import Weaver
from .tissues import Tissue as T

REST = {"rotation": 0.0, "abduction": 0.0, "forward": 0.0}
ANCHOR = ("humerus", -22.0, 60.0)  # the bone, between two heights, by which shapes from elsewhere are fitted
BONES = ("humerus", "scapula")
NEIGHBORS = ("clavicle", "ribs", "vertebrae")
FIELD = (180.0, 164.0, 176.0)
CENTER = (-34.0, -4.0, -22.0)  # of the field: most of the joint lies medial of the head
LENGTH = 250.0


def draw(d: Draw) -> dict:
    return {
        "rotation": d.normal(0, 22),
        "abduction": round(abs(d.normal(8, 9)), 3),
        "forward": d.normal(0, 8),
        "scapula": [d.normal(0, 5), d.normal(0, 5), d.normal(34, 5)],
        "glenoid": d.normal(0, 3),
        "blade": d.normal(3.2, 0.4),
        "curve": d.normal(9, 2.5),
        "acromion": d.normal(0, 5),
        "coracoid": d.normal(1, 0.06),
        "tubercle": d.normal(1, 0.06),
        "chest": d.normal(0, 6),
        "tent": d.normal(0.45, 0.1),
        "effusion": round(max(d.normal(0.3, 0.4), 0.05), 3),
    }


def humerus(p, k: dict) -> Body:
    thin, tubercle = k["shaft"], k["tubercle"]
    shaft = tube(
        p,
        [-LENGTH, -110, -75, -52, -36, -22, -8, 6],
        [9, 9, 9, 9, 8, 7, 6, 5],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [10.5 * thin, 10.5 * thin, 11.5 * thin, 13.5 * thin, 17, 20.5, 22, 19],
        [10.5 * thin, 10.5 * thin, 11.5 * thin, 13 * thin, 16, 19, 20.5, 18],
        -LENGTH - 60,
        6,
    )
    bone = union(shaft, ball(p, (-1, -2, 0), 23.5), 5)
    bone = union(bone, ellipsoid(p, (17, -4, 2), (10.5 * tubercle, 15, 16 * tubercle), rotation(y=-10)), 6)
    bone = union(bone, ellipsoid(p, (9, 17, -5), (8, 7.5 * tubercle, 10)), 5)
    bone = cut(bone, capsule(p, (19, 18, 20), (13, 15, -36), 4.5, 3), 4)  # bicipital groove
    bone = union(bone, ellipsoid(p, (15 * thin, 3, -105), (6, 6, 24)), 8)  # deltoid tuberosity
    off = length(p[0] - 4, p[1] + 3)
    height = (p[2] + 8 + k["tent"] * off - 1.5 * (p[1] / 6).cos()) / (1 + k["tent"] ** 2) ** 0.5
    away = torch.minimum(-(p[0] * 0.72 + p[1] * 0.3 - p[2] * 0.62) + 6, p[2] + 24)  # the head, not the tubercles
    return Body(bone, [End("humerus.proximal", height)], away)


def scapula(p, k: dict) -> Body:
    x, y, z = p
    body_part = step(-x, 40, 75)
    bend = k["curve"] * body_part * (((x + 88) / 40) ** 2 * 0.5 + ((z + 35) / 75) ** 2 * 0.5 - 0.6).clamp(-1, 1.2)
    q = (x, y + bend * 0.8, z)  # hollow in front
    t = k["blade"]
    bone = sheet(
        q,
        (
            ((-40, 0, 10), (-40, 0, -18), (-118, -3, 4)),
            ((-40, 0, 10), (-102, 0, 38), (-118, -3, 4)),
            ((-40, 0, -18), (-96, -1, -108), (-118, -3, 4)),
            ((-96, -1, -108), (-119, -3, -45), (-118, -3, 4)),
        ),
        (t, t, t, t),
    )
    for a, b, ra, rb in (
        ((-42, 0, -16), (-94, -1, -104), 6.5, 5.0),
        ((-94, -1, -106), (-118, -3, -48), 4.0, 2.2),
        ((-118, -3, -48), (-118, -3, 4), 2.2, 2.6),
        ((-118, -3, 4), (-102, 0, 37), 2.4, 2.2),
        ((-102, 0, 37), (-52, 1, 16), 2.4, 2.6),
    ):
        bone = union(bone, capsule(q, a, b, ra, rb), 4)  # borders
    neck = union(capsule(p, (-34, 0, -3), (-52, 0, -6), 12, 6.5), capsule(p, (-34, 0, 4), (-50, 0, 5), 9, 5), 6)
    bone = union(bone, neck, 8)
    turn = rotation(z=k["glenoid"], y=-4)
    glenoid = ellipsoid(p, (-30, 0, -3), (8, 13.5, 18.5), turn)
    glenoid = union(glenoid, ellipsoid(p, (-30, 0, 4), (7, 10.5, 15), turn), 4)  # pear: narrow on top
    bone = union(bone, common(glenoid, -40 - p[0], 3), 5)
    crest = [(-116, -6, 5), (-90, -18, 11), (-62, -32, 18), (-36, -43, 26), (-14, -44, 31)]
    base = [(-116, -3, 5), (-90, -4, 8), (-58, -4, 10)]
    fins = [
        (base[0], crest[1], base[1]),
        (base[1], crest[1], crest[2]),
        (base[1], crest[2], base[2]),
        (base[2], crest[2], crest[3]),
        (base[0], crest[0], crest[1]),
    ]
    bone = union(bone, sheet(p, fins, (t,) * 5), 4)
    for a, b, ra, rb in zip(crest[:-1], crest[1:], (3, 4.5, 5.2, 5.5), (4.5, 5.2, 5.5, 6), strict=True):
        bone = union(bone, capsule(p, a, b, ra, rb), 3)
    tip = k["acromion"]
    roof = brick(p, (5, -26, 35 + 0.1 * tip), (13.5, 21, 4.8), 4.6, rotation(x=6 + 0.5 * tip, y=8, z=-28))
    bone = union(bone, roof, 7)
    c = k["coracoid"]
    hook = union(
        capsule(p, (-38, 3, 12), (-35, 15, 27), 9, 7.5), capsule(p, (-35, 15, 27), (-22, 31 * c, 22), 7.5, 6.5), 5
    )
    hook = union(hook, capsule(p, (-22, 31 * c, 22), (-12, 36 * c, 13), 6.5, 5), 3)
    bone = union(bone, hook, 5)
    coracoid = (p[1] - 10 + (p[2] - 22) * 0.5) / 1.12
    ends = [
        End("coracoid", torch.minimum(coracoid, 40 - (p[1] - 25).abs() - 0.3 * (p[0] + 20).abs())),
        End("acromion", torch.minimum((p[0] + p[1] * 0.5 + 0.0) / 1.12 - 1, p[2] - 24)),
    ]
    return Body(bone, ends, 17 - length(p[0] + 27, p[1], (p[2] + 2) * 0.75))


def clavicle(p, k: dict) -> Body:
    path = [(-4, -8, 40), (-26, -4, 43), (-55, 14, 44), (-90, 34, 40), (-124, 42, 34), (-152, 44, 28)]
    bone = None
    for a, b, ra, rb in zip(path[:-1], path[1:], (7.5, 7, 6, 6, 7), (7, 6, 6, 7, 10), strict=True):
        d = capsule(p, a, b, ra, rb)
        bone = d if bone is None else union(bone, d, 4)
    return Body(bone)


def chest(p, k: dict) -> torch.Tensor:
    """Distance to the outside of the ribs: an elliptic cone, narrow at the top."""
    heights = [-160, -100, -60, -20, 20, 50, 80]
    a, b = (profile(p[2], heights, v) for v in ([142, 128, 114, 94, 66, 46, 30], [88, 80, 72, 60, 44, 30, 18]))
    u, v = p[0] + 172 - k["chest"] * 0.5, p[1] - 10
    k0, k1 = length(u / a, v / b), length(u / a**2, v / b**2)
    return k0 * (k0 - 1) / k1.clamp(min=1e-6)


def ribs(p, k: dict) -> Body:
    wall = chest(p, k) + 5
    along = (p[2] + 0.45 * (p[1] - 10) + 0.1 * (p[0] + 100)) / 24
    off = (along - along.round()) * 22
    k0 = length(wall / 3.6, off / 6.2)
    k1 = length(wall / 3.6**2, off / 6.2**2)
    return Body(torch.maximum(k0 * (k0 - 1) / k1.clamp(min=1e-6), p[2] - 26))


def vertebrae(p) -> Body:
    """Bodies, discs between them, arches and spinous processes behind the canal: 26 mm each."""
    along = p[2] / 26
    off = (along - along.round()) * 26
    q = (p[0] + 172, p[1] + 38, off)
    body = tube(q, [-12, 0, 12], [0, 0, 0], [0, 0, 0], [16, 14, 16], [13, 11.5, 13], -10.5, 10.5)
    arch = torch.maximum(
        length(q[0] / 1.2, q[1] + 24) - 13, torch.maximum(9 - length(q[0] / 1.2, q[1] + 24), q[2].abs() - 7)
    )
    bone = union(body, arch, 3)
    bone = union(bone, capsule(q, (0, -36, 0), (0, -54, -8), 4, 3.5), 4)
    for side in (-1, 1):
        bone = union(bone, capsule(q, (11 * side, -22, 0), (30 * side, -34, 2), 5, 4), 4)
    return Body(bone)


def frames(parameters: dict) -> dict[str, Frame]:
    pose, size, proportions = parameters["pose"], parameters["size"], parameters["proportions"]

    def frame(bone: str, turn: np.ndarray) -> Frame:
        return Frame(turn, np.zeros(3), size * np.asarray(proportions[bone]))

    arm = rotation(x=pose["forward"]) @ rotation(y=-pose["abduction"]) @ rotation(z=pose["rotation"])
    blade = rotation(z=pose["scapula"][2]) @ rotation(
        x=pose["scapula"][0], y=pose["scapula"][1] - 0.3 * pose["abduction"]
    )
    return {
        "humerus": frame("humerus", arm),
        "scapula": frame("scapula", blade),
        "clavicle": frame("clavicle", np.eye(3)),
        "ribs": frame("ribs", np.eye(3)),
        "vertebrae": frame("vertebrae", np.eye(3)),
    }


def build(parameters: dict) -> Joint:
    f, knobs = frames(parameters), parameters["pose"] | {"shaft": parameters["shaft"]}
    far = 400.0
    bones = [
        Bone("humerus", lambda p: humerus(p, knobs), f["humerus"], (-28, -28, -LENGTH), (32, 30, 28), None, (0.8, 5.5)),
        Bone("scapula", lambda p: scapula(p, knobs), f["scapula"], (-130, -56, -116), (26, 48, 48), None, (0.9, 0.9)),
        Bone(
            "clavicle",
            lambda p: clavicle(p, knobs),
            f["clavicle"],
            (-166, -20, 14),
            (8, 58, 56),
            "clavicle",
            (1.2, 1.6),
        ),
        Bone("vertebrae", vertebrae, f["vertebrae"], (-205, -100, -far), (-140, -20, far), "rib", (0.8, 0.8)),
        Bone("ribs", lambda p: ribs(p, knobs), f["ribs"], (-far, -far, -far), (0, far, 30), "rib", (0.8, 0.8)),
    ]
    size = parameters["size"]

    def torso(p: torch.Tensor):
        q = p / size
        wall = chest(q, knobs)
        neck = capsule(q, (-180, -20, 20), (-180, -15, 200), 62, 55)
        lung = torch.maximum(torch.maximum(wall + 12, q[2] - 22), -118 - q[0] + 0.3 * q[2])
        organ = torch.maximum(wall + 12, q[2] - 40)
        return union(wall - 4, neck, 30) * size, lung * size, organ * size

    contacts = [("humerus", "scapula", 0.6), ("scapula", "clavicle", 0.4)]
    return Joint("shoulder", bones, contacts, soft(f, parameters), filled=(-1.0, 0.0, 0.3), wrap=32.0, torso=torso)


def soft(f: dict[str, Frame], parameters: dict) -> list:
    w, hu, sc, cl, ch = Weaver(f, parameters), "humerus", "scapula", "clavicle", "ribs"
    m, t = w.muscle, w.tendon
    w.fat((ch, -120, 14, 34, 22), (ch, -80, 4, 30, 18), (ch, -45, -4, 28, 12))  # above the clavicle
    w.fat((ch, -84, 22, -14, 18), (ch, -62, 12, -14, 18), (ch, -46, 4, -40, 14))  # axilla
    m((ch, -150, 10, 20, 10), (ch, -158, 2, 60, 13), (ch, -160, -6, 130, 13))  # scalenes
    m((ch, -140, 46, 30, 8), (ch, -150, 26, 80, 12), (ch, -140, 0, 140, 12))  # sternocleidomastoid
    m((sc, -108, -4, 34, 7), (ch, -136, -36, 70, 11), (ch, -150, -34, 130, 11))  # levator scapulae
    m((ch, -152, -60, -160, 18), (ch, -152, -58, -40, 16), (ch, -156, -52, 100, 15))  # along the spine
    m((ch, -140, -70, -70, 6), (sc, -118, -8, -30, 6))  # rhomboids
    m((ch, -150, -66, -20, 6), (sc, -119, -6, -4, 6))
    m((sc, 10, -26, 40, 6), (hu, 31, 0, 6, 9), (hu, 28, 2, -50, 11), (hu, 15, 4, -110, 4))  # deltoid
    m((cl, -24, 2, 40, 6), (hu, 20, 30, 4, 10), (hu, 22, 18, -50, 10), (hu, 15, 6, -105, 4))
    m((sc, -30, -46, 28, 6), (hu, 16, -32, 4, 11), (hu, 22, -18, -50, 10), (hu, 15, -2, -105, 4))
    m((sc, -110, -8, 20, 6), (sc, -70, -14, 24, 11), (sc, -36, -14, 30, 8), (sc, -12, -4, 28, 4))  # supraspinatus
    m((sc, -112, -10, -20, 8), (sc, -80, -15, -22, 15), (sc, -42, -20, -4, 13), (hu, 8, -24, 8, 4))  # infraspinatus
    m((sc, -86, -8, -84, 6), (sc, -56, -14, -44, 9), (sc, -30, -22, -16, 7), (hu, 10, -22, -10, 4))  # teres minor
    m((sc, -96, -9, -98, 9), (sc, -60, -10, -70, 12), (hu, -4, -10, -62, 8), (hu, 4, 10, -56, 4))  # teres major
    m((sc, -108, 7, -30, 8), (sc, -78, 13, -36, 15), (sc, -46, 17, -14, 13), (hu, -4, 25, -4, 5))  # subscapularis
    m((sc, -96, 6, -80, 6), (sc, -66, 11, -50, 11), (sc, -40, 16, -16, 9))
    m((ch, -140, 84, -60, 10), (ch, -80, 68, -50, 13), (hu, -18, 36, -45, 11), (hu, 12, 13, -70, 4))  # pectoralis major
    m((ch, -130, 74, 10, 8), (ch, -70, 52, -5, 11), (hu, -16, 38, -25, 10), (hu, 12, 13, -55, 4))
    m((ch, -100, 66, -80, 6), (ch, -70, 58, -40, 8), (sc, -14, 34, 8, 4))  # pectoralis minor
    m((hu, 6, 20, -70, 6), (hu, 5, 23, -130, 13), (hu, 4, 24, -220, 16))  # biceps
    m((sc, -14, 34, 8, 4), (hu, -8, 24, -50, 7), (hu, -6, 20, -120, 10))  # coracobrachialis
    m((sc, -36, -3, -24, 4), (hu, -6, -22, -55, 9), (hu, 2, -24, -130, 17), (hu, 4, -24, -220, 18))  # triceps
    m((hu, 18, -16, -50, 6), (hu, 17, -20, -120, 12), (hu, 14, -20, -220, 12))
    m((ch, -120, -70, -150, 9), (ch, -60, -62, -100, 11), (hu, -26, -14, -75, 8), (hu, 4, 12, -60, 3))  # latissimus
    m((ch, -150, -62, 20, 10), (ch, -100, -55, 46, 11), (ch, -40, -34, 48, 9), (sc, -8, -38, 38, 5))  # trapezius
    m((ch, -150, -78, -60, 8), (ch, -110, -72, -10, 9), (sc, -90, -24, 14, 6))
    m((ch, -60, 40, -90, 8), (ch, -48, 0, -80, 10), (ch, -70, -40, -60, 8), (sc, -116, 3, -40, 5))  # serratus
    m((ch, -56, 30, -130, 8), (ch, -38, -6, -120, 9), (ch, -60, -50, -100, 7), (sc, -98, 4, -100, 5))
    t((sc, -36, -12, 30, 3.5), (sc, -12, -4, 28.5, 4.5), (hu, 16, -3, 20, 5), flat=(0, 0, 1), aspect=1.8)
    t((sc, -26, -23, 3, 4), (hu, 12, -22, 10, 5), (hu, 21, -14, 10, 5), flat=(0.3, 1, 0), aspect=2.0)
    t((sc, -32, 20, -4, 5), (hu, 0, 25, -2, 6), (hu, 10, 24, -4, 6), flat=(0, 1, 0), aspect=2.5)
    t((sc, -27, 2, 17, 2.4), (hu, 8, 10, 25, 2.4), (hu, 18, 18, 8, 2.6), (hu, 13.5, 16, -36, 2.8), (hu, 8, 20, -75, 3))
    w.strand(
        T.MENISCUS, [(sc, -26.5, 13.5 * np.cos(a), -2 + 18.5 * np.sin(a), 3.0) for a in np.linspace(0, 2 * np.pi, 13)]
    )
    w.ligament((sc, -12, 34, 15, 4), (sc, 0, 8, 34, 4), flat=(0, 0.5, 1), aspect=2.0)
    w.ligament((sc, -34, 18, 32, 3.5), (cl, -32, 0, 38, 4))
    w.fluid(
        (hu, 2, 14, -20, 6),
        (hu, -12, 10, -26, 7),
        (hu, -14, -10, -26, 6),
        flat=(0, 0, 1),
        aspect=4 / (0.5 + 2 * parameters["pose"]["effusion"]),
    )
    for x, y, r in ((0, 0, 4.0), (-5, -7, 4.6)):
        w.vessel(
            (ch, -110 + x, 40 + y, 20, r),
            (ch, -66 + x, 34 + y, 8, r),
            (ch, -34 + x, 20 + y, -30, r),
            (hu, -20 + x, 8 + y, -80, 0.8 * r),
            (hu, -14 + x, 6 + y, -220, 0.6 * r),
        )
    w.vessel(
        (ch, -150, 26, -160, 14), (ch, -152, 30, -60, 13), (ch, -160, 18, -20, 12), (ch, -176, -16, -40, 11)
    )  # aorta
    w.vessel((ch, -158, 20, -20, 7), (ch, -160, 12, 60, 5), (ch, -156, 4, 140, 4))  # carotid artery, jugular vein
    w.vessel((ch, -160, 34, -30, 8), (ch, -152, 22, 60, 7), (ch, -148, 12, 140, 6))
    w.strand(T.LUNG, [(ch, -176, 6, -60, 8), (ch, -176, 10, 40, 8), (ch, -176, 16, 140, 8)])  # trachea
    w.strand(T.FLUID, [(ch, -172, -62, -200, 8), (ch, -172, -62, 200, 8)])  # spinal canal
    w.vessel((cl, -50, 34, 36, 2), (hu, 4, 40, 0, 2.2), (hu, 14, 34, -80, 2.2), (hu, 10, 40, -220, 2))
    w.vessel((hu, -16, -20, -36, 2), (hu, 6, -28, -34, 1.8), (hu, 24, -14, -34, 1.6))
    for dx, dy in ((2, -10), (-2, 8), (8, 2)):
        w.nerve(
            (ch, -110 + dx, 30 + dy, 30, 2.4),
            (ch, -66 + dx, 30 + dy, 4, 2.2),
            (ch, -34 + dx, 18 + dy, -34, 2),
            (hu, -20 + dx, 6 + dy, -90, 1.8),
            (hu, -12 + dx, 4 + dy, -220, 1.6),
        )
    return w.strands
