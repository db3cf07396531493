"""The ankle: tibia, fibula, talus, calcaneus; the bones of the midfoot and metatarsal shafts beside them.

Local millimeters of an adult's left ankle: x lateral, y anterior, z up, the top of the talar dome at the origin.
Talus 58 mm long, calcaneus 80, plafond 42 wide; the foot hangs at a right angle to the shank before it is posed.
"""

import numpy as np
import torch

from .draw import Draw
from .model import Body, Bone, End, Frame, Joint
from .shapes import ball, brick, capsule, common, cut, disc, ellipsoid, length, rotation, tube, union
from .strands import Weaver

REST = {"plantarflexion": 0.0, "inversion": 0.0}
ANCHOR = ("talus", -60.0, 20.0)  # the bone by which shapes from elsewhere are fitted
BONES = ("calcaneus", "talus", "tibia")
NEIGHBORS = ("fibula",)  # in view, not in the joint's table
FIELD = (124.0, 176.0, 160.0)
CENTER = (0.0, 14.0, -10.0)
LENGTH = 240.0
DOME = np.array([0.0, 0.0, -20.0])  # the talar dome's center, about which the foot turns

# midfoot: name, center, half sizes, rounding, turn about z
TARSALS = {
    "navicular": ((-11, 40, -20), (18, 7.5, 13), 6.5, -14),
    "cuboid": ((13, 43, -37), (12.5, 15, 11), 7, 8),
    "medial cuneiform": ((-22, 57, -28), (8, 12, 14), 5, -6),
    "middle cuneiform": ((-9, 56, -20), (7, 9, 10), 5, 0),
    "lateral cuneiform": ((3, 57, -25), (7.5, 11, 11), 5, 4),
}
METATARSALS = {  # base, head, radius
    "metatarsal 1": ((-21, 78, -31), (-26, 138, -56), 8.5),
    "metatarsal 2": ((-9, 74, -24), (-10, 146, -52), 6.0),
    "metatarsal 3": ((3, 76, -28), (4, 142, -54), 5.8),
    "metatarsal 4": ((13, 70, -34), (17, 134, -56), 5.8),
    "metatarsal 5": ((24, 62, -42), (31, 124, -58), 6.2),
}


def draw(d: Draw) -> dict:
    return {
        "plantarflexion": d.normal(14, 11),
        "inversion": d.normal(2, 5),
        "adduction": d.normal(0, 5),
        "arch": d.normal(0, 3),
        "dome": d.normal(20, 1),
        "groove": d.normal(1.5, 0.5),
        "facet": d.normal(0, 2),
        "heel": d.normal(1, 0.06),
        "plate_wave": d.normal(1.5, 0.7),
        "mortise": d.normal(0, 0.8),
        "effusion": round(max(d.normal(0.3, 0.4), 0.05), 3),
    }


def tibia(p, k: dict) -> Body:
    thin = k["shaft"]
    up = [0, 10, 20, 34, 55, 90, LENGTH]
    bone = tube(
        p,
        up,
        [-1, -1, -1, -2, -2, -2, -3],
        [0, 0, 0, 0.5, 1, 2, 2],
        [21.5, 21.5, 20, 16, 12.5 * thin, 11.5 * thin, 12.5 * thin],
        [18, 18, 17, 14.5, 12.5 * thin, 12 * thin, 14 * thin],
        -3,
        LENGTH + 60,
        2.4,
    )
    bone = union(bone, ellipsoid(p, (-1, -15, 2), (15, 5, 9)), 5)  # posterior lip
    malleolus = union(capsule(p, (-18, 1, 10), (-22, 4, -8), 9, 6.5), capsule(p, (-19, -4, 8), (-21, -5, -3), 7, 5), 4)
    bone = union(bone, common(malleolus, p[0] + 15.5, 2), 6)
    bone = cut(bone, capsule(p, (31, -5, -10), (31, -5, 40), 11), 2)  # notch for the fibula
    wave = k["plate_wave"]
    plate = p[2] - 14 - wave * ((p[0] + 6) / 9).cos() - 0.8 * (p[1] / 8).sin()
    return Body(bone, [End("tibia.distal", -plate)], torch.minimum(6 - p[2], p[0] + 20))


def fibula(p, k: dict) -> Body:
    thin = k["shaft"]
    shaft = tube(
        p,
        [-26, -16, -6, 8, 25, 50, LENGTH],
        [25, 26, 26, 26, 26, 26, 28],
        [-8, -7, -6, -5, -5, -6, -8],
        [3.5, 6.5, 7.5, 7.5, 6 * thin, 5.5 * thin, 6 * thin],
        [5, 10, 11, 9.5, 7 * thin, 6 * thin, 7 * thin],
        -24,
        LENGTH + 60,
    )
    bone = union(shaft, ball(p, (25, -7, -20), 4.5), 5)
    return Body(bone, [End("fibula.distal", -(p[2] + 1 - 0.8 * (p[1] / 5).cos()))], torch.minimum(24 - p[0], 4 - p[2]))


def talus(p, k: dict) -> Body:
    radius = k["dome"]
    dome = disc(p, DOME, radius, 15, 3)
    dome = cut(dome, ball(p, (0, 0, radius + 150 - 20 - k["groove"]), 150), 3)  # shallow groove on top
    dome = common(common(dome, -24 - p[2], 2), p[1].abs() - 18, 4)
    bone = union(dome, brick(p, (0, -2, -20), (16.5, 18, 8), 5), 4)
    bone = union(bone, capsule(p, (7, -1, -19), (17.5, 0, -25), 7, 4), 5)  # lateral process
    bone = union(bone, capsule(p, (-2, -15, -20), (-3, -22, -24), 7, 4), 5)  # posterior process
    bone = union(bone, capsule(p, (-4, 12, -18), (-9, 22, -19), 12, 11), 5)  # neck
    bone = union(bone, ellipsoid(p, (-9.5, 25, -20), (14.5, 10.5, 12), rotation(z=12, y=-20)), 5)
    bone = cut(bone, capsule(p, (-19, -3, -36), (20, 14, -31), 6), 3)  # sinus tarsi
    bone = cut(bone, ellipsoid(p, (5, -8, -50 + k["facet"] * 0.3), (15, 22, 20), rotation(z=-35)), 3)
    head = length(p[0] + 9.5, p[1] - 25, p[2] + 20)
    return Body(
        bone, articular=torch.maximum(torch.minimum(14 + p[2], 20 - p[1].abs()), torch.minimum(p[1] - 24, 18 - head))
    )


def calcaneus(p, k: dict) -> Body:
    heel = k["heel"]
    bone = ellipsoid(p, (1, -38 * heel, -48), (15, 13, 21), rotation(x=-14))  # tuberosity
    bone = union(bone, ellipsoid(p, (4, -18, -44), (12.5, 32, 16), rotation(x=4)), 10)
    bone = union(bone, ellipsoid(p, (5, -6, -37), (13, 15, 10), rotation(x=-22, z=-20)), 6)  # posterior facet
    bone = union(bone, capsule(p, (7, 8, -44), (12, 24, -40), 11.5, 12), 8)  # anterior process
    bone = common(bone, p[1] - 31, 3)
    bone = union(bone, brick(p, (-9, 5, -35), (10, 9, 5), 4, rotation(y=8)), 6)  # sustentaculum
    bone = cut(bone, capsule(p, (-19, -30, -50), (-16, 10, -47), 6.5), 5)  # medial hollow
    bone = union(bone, ellipsoid(p, (-5, -40, -62), (7, 8, 5)), 5)  # plantar tubercles
    back = length(p[0] - 2, p[1] + 8 * heel, p[2] + 44) - 35 * heel
    return Body(bone, [End("calcaneus.apophysis", torch.minimum(back, -24 - p[1]))])


def tarsal(name: str):
    at, half, rounding, turn = TARSALS[name]
    return lambda p: Body(
        union(
            brick(p, at, half, rounding, rotation(z=turn)),
            ellipsoid(p, (at[0], at[1], at[2] - 3), tuple(0.9 * h for h in half)),
            4,
        )
    )


def metatarsal(name: str, thin: float):
    base, head, r = METATARSALS[name]
    axis = np.subtract(head, base) / np.linalg.norm(np.subtract(head, base))

    def shape(p) -> Body:
        waist = np.add(base, 22 * axis)
        bone = union(capsule(p, base, waist, r * 1.15, r * 0.75 * thin), capsule(p, waist, head, r * 0.7 * thin, r), 3)
        if name == "metatarsal 5":
            bone = union(bone, capsule(p, base, (29, 53, -45), r * 0.9, 4.5), 4)  # its tuberosity
        along = sum((p[i] - float(base[i])) * float(axis[i]) for i in range(3))
        ends = [End("metatarsal.base", 4 - along)] if name == "metatarsal 1" else []
        return Body(bone, ends)

    return shape


def frames(parameters: dict) -> dict[str, Frame]:
    pose, size, proportions = parameters["pose"], parameters["size"], parameters["proportions"]

    def frame(bone: str | None, turn: np.ndarray, pivot) -> Frame:
        scale = np.asarray(proportions[bone]) if bone else np.ones(3)
        pivot = np.asarray(pivot, float)
        return Frame(turn, size * (pivot - turn @ pivot), size * scale)

    foot = rotation(x=-pose["plantarflexion"], z=0.3 * pose["adduction"])
    under = foot @ rotation(y=pose["inversion"], z=0.5 * pose["adduction"])
    middle = under @ rotation(x=-pose["arch"], z=0.5 * pose["adduction"])
    result = {
        "tibia": frame("tibia", np.eye(3), DOME),
        "fibula": frame("fibula", rotation(z=pose["mortise"]), DOME),
        "talus": frame("talus", foot, DOME),
        "calcaneus": frame("calcaneus", under, DOME),
    }
    return result | {"foot": frame(None, middle, DOME)}


def build(parameters: dict) -> Joint:
    f, knobs = frames(parameters), parameters["pose"] | {"shaft": parameters["shaft"]}
    main = {
        "talus": (talus, (-26, -30, -36), (26, 38, 3), "talus", (0.8, 0.8)),
        "tibia": (tibia, (-33, -24, -18), (26, 24, LENGTH), None, (0.7, 5.5)),
        "fibula": (fibula, (14, -22, -28), (38, 8, LENGTH), None, (0.8, 2.8)),
        "calcaneus": (calcaneus, (-24, -58, -72), (28, 36, -20), "calcaneus", (0.8, 0.8)),
    }
    bones = [
        Bone(n, lambda p, s=shape: s(p, knobs), f[n], low, high, center, cortex)
        for n, (shape, low, high, center, cortex) in main.items()
    ]
    for n, (at, half, _, _) in TARSALS.items():
        reach = max(half) + 3
        bones.append(
            Bone(n, tarsal(n), f["foot"], tuple(c - reach for c in at), tuple(c + reach for c in at), "tarsal")
        )
    for n, (base, head, r) in METATARSALS.items():
        low, high = np.minimum(base, head) - 1.6 * r - 4, np.maximum(base, head) + 1.6 * r + 4
        bones.append(Bone(n, metatarsal(n, parameters["shaft"]), f["foot"], tuple(low), tuple(high), None, (0.7, 1.8)))
    contacts = [
        ("talus", "tibia", 0.5),
        ("talus", "fibula", 0.5),
        ("talus", "calcaneus", 0.5),
        ("tibia", "fibula", 0.2),
        ("talus", "navicular", 0.5),
        ("calcaneus", "cuboid", 0.45),
        ("cuboid", "metatarsal 4", 0.35),
        ("cuboid", "metatarsal 5", 0.35),
        ("navicular", "medial cuneiform", 0.4),
        ("navicular", "middle cuneiform", 0.4),
        ("navicular", "lateral cuneiform", 0.4),
        ("medial cuneiform", "metatarsal 1", 0.4),
        ("middle cuneiform", "metatarsal 2", 0.35),
        ("lateral cuneiform", "metatarsal 3", 0.35),
    ]
    return Joint(
        "ankle", bones, contacts, soft(f, parameters), filled=(15.0, 45.0, 1.0), filled_below=False, wrap=22.0, fat=0.5
    )


def soft(f: dict[str, Frame], parameters: dict) -> list:
    w, ti, ta, ca, fo = Weaver(f, parameters), "tibia", "talus", "calcaneus", "foot"
    m, t, ligament = w.muscle, w.tendon, w.ligament
    thin = 3 / (0.5 + parameters["pose"]["effusion"])
    w.fat((ti, 0, -20, 60, 10), (ti, 0, -27, 10, 11), (ca, 0, -30, -22, 10))  # behind the joint
    w.fat((ca, 0, -36, -68, 12), (ca, 2, -10, -70, 8))  # heel pad
    m((ti, 0, -38, 230, 26), (ti, 2, -34, 130, 17), (ti, 3, -32, 80, 9), (ti, 2, -33, 55, 4))  # soleus
    m((ti, 10, -18, 230, 12), (ti, 10, -19, 110, 10), (ti, 4, -22, 50, 9), (ti, 0, -22, 22, 5))  # flexor hallucis
    m((ti, -8, -18, 230, 10), (ti, -12, -16, 110, 8), (ti, -15, -16, 55, 4))  # toe flexors
    m((ti, 8, -12, 230, 9), (ti, 2, -14, 110, 7), (ti, -10, -15, 50, 3))  # tibialis posterior
    m((ti, 34, -16, 230, 11), (ti, 32, -18, 110, 9), (ti, 28, -18, 50, 6), (ti, 27, -18, 18, 3))  # peroneals
    m((ti, 14, 14, 230, 13), (ti, 6, 15, 120, 8), (ti, -4, 16, 60, 4))  # tibialis anterior
    m((ti, 24, 10, 230, 10), (ti, 18, 13, 110, 8), (ti, 12, 15, 40, 5), (ti, 10, 17, 15, 3))  # extensors
    m((ca, 18, 14, -28, 4), (fo, 20, 34, -22, 6), (fo, 14, 58, -16, 5), (fo, 8, 85, -22, 3))  # short extensors
    m((ca, -14, -32, -58, 5), (ca, -22, 0, -54, 9), (fo, -30, 40, -46, 8), (fo, -34, 90, -52, 6))  # abductor hallucis
    m((ca, 0, -32, -68, 6), (ca, 0, 0, -66, 10), (fo, 0, 45, -58, 11), (fo, 0, 95, -62, 8))  # flexor brevis
    m((ca, 12, -32, -66, 5), (ca, 20, 0, -62, 8), (fo, 32, 45, -56, 7), (fo, 38, 95, -62, 5))  # abductor minimi
    m((ca, -4, -10, -56, 6), (fo, -4, 30, -50, 8), (fo, -4, 60, -48, 6))  # quadratus plantae
    m((fo, -14, 70, -46, 7), (fo, -16, 110, -58, 8))  # short flexors
    m((fo, 6, 70, -44, 7), (fo, 10, 115, -56, 8))
    t(
        (ti, 2, -36, 110, 8),
        (ti, 2, -38, 40, 8),
        (ca, 1, -46, -18, 9),
        (ca, 1, -52, -38, 10),
        flat=(0, 1, 0),
        aspect=2.2,
    )
    t((ti, -6, 18, 80, 3), (ti, -8, 21, 10, 3.5), (fo, -20, 34, -6, 3), (fo, -30, 56, -22, 3))  # tibialis anterior
    t((ti, 2, 19, 50, 2.2), (ti, 0, 21, 8, 2.4), (fo, -14, 50, -4, 2.2), (fo, -22, 100, -28, 2))  # extensor hallucis
    t((ti, 10, 17, 30, 3), (ti, 9, 20, 5, 3), (fo, 4, 50, -6, 3), (fo, 6, 100, -32, 3))
    t((ti, -13, -16, 60, 2.8), (ti, -20, -15, 4, 3), (ca, -24, 0, -28, 3), (fo, -27, 34, -30, 4))  # tibialis posterior
    # flexor digitorum
    t((ti, -15, -17, 60, 2.2), (ti, -19, -20, 4, 2.4), (ca, -22, 0, -38, 2.4), (fo, -8, 50, -48, 2.4))
    # flexor hallucis
    t((ti, 0, -22, 26, 2.6), (ta, -6, -26, -20, 2.6), (ca, -14, -2, -42, 2.6), (fo, -20, 60, -46, 2.4))
    t((ti, 29, -18, 50, 2.8), (ti, 28, -20, -6, 3), (ca, 22, -4, -38, 2.8), (fo, 27, 44, -44, 2.6))  # peroneals
    t(
        (ti, 31, -19, 50, 2.4),
        (ti, 30, -22, -8, 2.6),
        (ca, 22, 0, -48, 2.6),
        (fo, 18, 34, -52, 2.4),
        (fo, -10, 66, -48, 2.2),
    )
    t(
        (ca, -2, -38, -68, 8),
        (ca, -2, 0, -74, 8),
        (fo, -2, 50, -69, 9),
        (fo, -2, 100, -72, 10),
        flat=(0, 0, 1),
        aspect=4.0,
    )
    ligament((ti, -22, 2, -12, 6), (ta, -19, 0, -26, 7), (ca, -16, 2, -33, 6), flat=(1, 0, 0), aspect=2.5)  # deltoid
    ligament((ti, 25, 0, -16, 2.2), (ta, 17, 12, -20, 2.5), flat=(1, 0, 0), aspect=1.5)
    ligament((ti, 25, -10, -22, 2.2), (ca, 17, -16, -40, 2.5))
    ligament((ti, 22, -12, -16, 2.5), (ta, 2, -21, -20, 2.5))
    ligament((ti, 14, 13, 6, 3), (ti, 23, 3, 2, 3), flat=(0, 1, 0), aspect=2.0)
    ligament((ti, 10, -2, 230, 6), (ti, 17, -3, 30, 6), flat=(0, 1, 0), aspect=9.0)  # membrane
    ligament((ca, 6, 8, -29, 3), (ta, 4, 8, -27, 3))  # interosseous
    w.fluid((ti, 0, 17, -1, 6), (ti, 2, 19, 4, 5), flat=(0, 1, 0), aspect=thin)
    w.fluid((ti, 0, -20, -3, 6), (ti, 2, -23, 4, 4), flat=(0, 1, 0), aspect=thin)
    w.vessel(
        (ti, -4, -24, 230, 2.4),
        (ti, -12, -20, 50, 2.2),
        (ti, -16, -24, 0, 2.2),
        (ca, -19, -6, -44, 2),
        (fo, -14, 50, -52, 1.8),
    )
    w.vessel((ti, -7, -25, 230, 2.6), (ti, -14, -23, 50, 2.4), (ti, -17, -27, 0, 2.4), (ca, -20, -9, -46, 2))
    w.vessel((ti, 10, 6, 230, 2), (ti, 4, 16, 30, 1.8), (fo, -6, 50, -3, 1.6), (fo, -14, 90, -22, 1.4))
    w.vessel((ti, -28, 4, 230, 2.4), (ti, -28, 10, 40, 2.2), (ti, -26, 14, -4, 2), (fo, -26, 60, -8, 1.8))
    w.vessel((ti, 26, -34, 230, 2.2), (ti, 24, -30, 60, 2), (ti, 28, -28, -10, 1.8))
    w.nerve((ti, 0, -26, 230, 2.8), (ti, -10, -25, 50, 2.4), (ti, -14, -28, 0, 2.4), (ca, -19, -12, -46, 2))
    return w.strands
