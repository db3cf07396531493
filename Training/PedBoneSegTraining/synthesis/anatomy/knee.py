"""The knee: femur, tibia, patella, fibula, and what surrounds them.

Local millimeters of an adult's left knee: x lateral, y anterior, z up, the joint line at z = 0. The sizes are those of
anatomy texts: condyles 80 mm wide and 62 deep, plateau 76 by 50, patella 44 by 44 by 22.
"""

import numpy as np
import torch

from .draw import Draw
from .model import Body, Bone, End, Frame, Joint
from .shapes import Points, capsule, common, cut, disc, ellipsoid, profile, rotation, step, tube, union
from .strands import Weaver
from .tissues import Tissue as T

PIVOT = np.array([0.0, -12.0, 23.0])  # the femoral condyles' center, about which the tibia turns
REST = {"flexion": 0.0}  # the pose in which shapes from elsewhere are expected
ANCHOR = ("femur", -10.0, 34.0)  # the bone, between two heights, by which they are fitted
BONES = ("femur", "tibia", "fibula", "patella")
NEIGHBORS = ()
FIELD = (172.0, 172.0, 184.0)  # an adult's field of view, mm
CENTER = (0.0, 0.0, 0.0)
LENGTH = 260.0  # shafts run out of any field of view


def draw(d: Draw) -> dict:
    return {
        "flexion": round(abs(d.normal(8, 9)) if d.chance(0.85) else d.uniform(20, 50), 3),
        "varus": d.normal(0, 2.5),
        "twist": d.normal(0, 4),
        "tilt": d.normal(0, 4),
        "patella_height": d.normal(0, 4),
        "patella_shift": d.normal(1, 1.5),
        "notch": d.normal(1, 0.12),
        "groove": d.normal(6, 1.3),
        "valgus": d.normal(6.5, 2),
        "slope": d.normal(7, 2.5),
        "tubercle": d.normal(1, 0.2),
        "plate_wave": d.normal(3, 1),
        "effusion": round(max(d.normal(0.3, 0.5), 0.05), 3),
        "cyst": d.chance(0.1),
    }


def femur(p: Points, k: dict) -> Body:
    x, y, z = p
    lean = np.tan(np.radians(k["valgus"]))
    up = np.array([20, 28, 40, 60, 85, 120, LENGTH])
    thin = k["shaft"]
    shaft = tube(
        p,
        up,
        np.maximum(up - 35, 0) * lean,
        [-1, 1, 4, 7, 8, 9, 12 * thin],
        [29, 34.5, 32, 24.5, 18.5 * thin, 14.5 * thin, 13.5 * thin],
        [20, 23.5, 22.5, 19, 16.5 * thin, 14.5 * thin, 14 * thin],
        14,
        LENGTH + 60,
        2.3,
    )
    bone = shaft
    for side, width in ((-1, 13.5), (1, 14.0)):
        c = 24.5 * side
        bulk = union(
            disc(p, (c + side, -14, 23.5), 21 if side < 0 else 20.5, width, 9, rotation(z=-7 * side)),
            disc(p, (c * 0.93, 3, 29), 26 if side < 0 else 27.5, width - 0.5, 8, rotation(z=-4 * side)),
            8,
        )
        bone = union(bone, bulk, 7)
        bone = union(bone, ellipsoid(p, (35 * side, -4, 27), (4.5, 9, 9)), 6)  # epicondyles
    bone = union(bone, ellipsoid(p, (-34.5, -9, 42), (3.5, 5, 6)), 5)  # adductor tubercle
    bridge = disc(p, (0, 3, 29), 26.5 - k["groove"], 16, 3)  # floor of the trochlea
    bone = union(bone, common(bridge, -2 - y, 3), 6)
    notch = union(
        ellipsoid(p, (0, -24, 8), (10.5 * k["notch"], 29, 19 * k["notch"])),
        capsule(p, (0, -30, 22), (0, -10, 14), 8.5 * k["notch"]),
        4,
    )
    bone = cut(bone, notch, 4)
    wave = k["plate_wave"]
    plate = z - 36 - wave * ((x / 11).cos() - 0.5) - 0.06 * (y - 4) - 1.2 * (y / 8).cos()
    cover = torch.minimum(profile(y, [-40, -20, 0, 20, 30], [40, 30, 14, 40, 47]) - z, 38 - x.abs())
    return Body(bone, [End("femur.distal", -plate)], cover)


def tibia(p: Points, k: dict) -> Body:
    x, y, z = p
    thin, slope = k["shaft"], np.tan(np.radians(k["slope"]))
    down = np.array([-LENGTH, -150, -110, -80, -55, -38, -22, -10, 0])
    shaft = tube(
        p,
        down,
        [0, 0, 0, 0, 0, 0.5, 0, 0, 0],
        [-3, -3, -3, -2, -1, -1, -2, -3, -4],
        [11.5 * thin, 12 * thin, 13 * thin, 15.5 * thin, 19.5, 26, 33.5, 37, 37],
        [13 * thin, 13.5 * thin, 14.5 * thin, 15.5 * thin, 17, 18.5, 21.5, 23.5, 23],
        -LENGTH - 60,
        3,
        2.2,
    )
    crest = capsule(p, (2, 9 * thin, -LENGTH), (2, 12, -75), 5 * thin, 6)  # anterior border
    bone = union(shaft, crest, 8)
    bone = union(bone, capsule(p, (3, 13, -25), (3, 17, -42), 8, 7 * k["tubercle"]), 10)
    bone = union(bone, capsule(p, (3, 17, -42), (2, 12, -64), 7 * k["tubercle"], 5), 8)
    bone = cut(bone, ellipsoid(p, (0, -31, -8), (9, 10, 16)), 6)  # behind, between the condyles
    top = z + 3 - slope * (y + 3)  # the plateau slopes back; the condyles will hollow it
    bone = common(bone, top, 3)
    bone = union(
        bone,
        union(capsule(p, (-5, -3, -6), (-4.5, -2, 2), 6, 2.2), capsule(p, (6, -3, -6), (5.5, -3, 1), 6, 2.2), 2),
        5,
    )  # eminence
    above = z + 17 - 1.5 * (x / 10).cos() * step(-y, -15, 0)
    # tubercle's apophysis
    tongue = torch.minimum(torch.minimum(y - 14.5 + 0.15 * (z + 17), z + 46), 11 - (x - 3).abs())
    articular = (1 - (((x.abs() - 20) / 17.5) ** 2 + ((y + 2) / 22) ** 2).sqrt()) * 18
    return Body(bone, [End("tibia.proximal", torch.maximum(above, tongue))], torch.minimum(articular, z + 9))


def fibula(p: Points, k: dict) -> Body:
    z, thin = p[2], k["shaft"]
    down = [-LENGTH, -120, -60, -38, -28, -18, -10]
    shaft = tube(
        p,
        down,
        [33, 34, 34, 34, 34, 34, 34],
        [-12, -13, -15, -16, -17, -17, -17],
        [6.5 * thin, 6.5 * thin, 5.5 * thin, 6, 8.5, 11, 9],
        [6.5 * thin, 6.5 * thin, 6 * thin, 7, 9, 11.5, 9],
        -LENGTH - 60,
        -13,
    )
    bone = union(shaft, ellipsoid(p, (34, -17, -19), (10.5, 11, 10)), 5)
    bone = union(bone, ellipsoid(p, (36, -21, -12), (5, 5, 6)), 5)  # apex
    return Body(bone, [End("fibula.proximal", z + 27 + 0.1 * (p[1] + 17))])


def patella(p: Points, k: dict) -> Body:
    """About its own center."""
    bone = ellipsoid(p, (0, -1, 3), (22.5, 11.5, 19.5))
    bone = union(bone, ellipsoid(p, (0, 2, -14), (10, 7, 9)), 14)
    bone = common(bone, ellipsoid(p, (0, -28, 0), (42, 37, 50)), 5)  # the flat front
    back = torch.maximum(-0.42 * p[0] - p[1] - 9.5, 0.34 * p[0] - p[1] - 10.5)  # two facets and their ridge
    return Body(common(bone, back, 3), articular=torch.minimum(-1 - p[1], p[2] + 12))


SHAPES = {"femur": femur, "tibia": tibia, "fibula": fibula, "patella": patella}


def frames(parameters: dict) -> dict[str, Frame]:
    """Where the bones are: the femur stays, the tibia turns about the condyles, the patella follows."""
    pose, size, proportions = parameters["pose"], parameters["size"], parameters["proportions"]

    def frame(bone: str, turn: np.ndarray, pivot=PIVOT, at=(0, 0, 0), shift=(0, 0, 0)) -> Frame:
        place = size * (pivot + turn @ (np.asarray(at, float) - pivot) + np.asarray(shift, float))
        return Frame(turn, place, size * np.asarray(proportions[bone]))

    bend = rotation(x=-pose["flexion"]) @ rotation(y=pose["varus"], z=pose["twist"])
    follow = rotation(x=-0.72 * pose["flexion"] - 6, z=0.5 * pose["tilt"])
    return {
        "femur": frame("femur", np.eye(3)),
        "tibia": frame("tibia", bend),
        "fibula": frame("fibula", bend),
        "patella": frame("patella", follow, at=(pose["patella_shift"], 38, 31 + pose["patella_height"])),
    }


def build(parameters: dict) -> Joint:
    f, pose = frames(parameters), parameters["pose"]
    knobs = pose | {"shaft": parameters["shaft"]}
    boxes = {
        "femur": ((-48, -45, -6), (80, 40, LENGTH)),
        "tibia": ((-44, -40, -LENGTH), (44, 36, 8)),
        "fibula": ((20, -34, -LENGTH), (50, 2, -2)),
        "patella": ((-26, -16, -28), (26, 16, 26)),
    }
    cortex = {"femur": (0.6, 7.0), "tibia": (0.7, 6.0), "fibula": (0.7, 2.8), "patella": (0.9, 0.9)}
    bones = [
        Bone(
            n,
            lambda p, s=SHAPES[n]: s(p, knobs),
            f[n],
            *boxes[n],
            center="patella" if n == "patella" else None,
            cortex=cortex[n],
        )
        for n in ("femur", "patella", "tibia", "fibula")
    ]
    contacts = [("femur", "patella", 1.1), ("femur", "tibia", 1.0), ("tibia", "fibula", 0.4)]
    return Joint("knee", bones, contacts, soft(f, parameters))


def soft(f: dict[str, Frame], parameters: dict) -> list:
    w = Weaver(f, parameters)
    pose, fe, ti = parameters["pose"], "femur", "tibia"
    m = w.muscle
    m((fe, 42, 18, 190, 26), (fe, 38, 22, 120, 20), (fe, 28, 30, 60, 8), (fe, 20, 38, 42, 3))  # v. lateralis
    m((fe, -26, 18, 190, 24), (fe, -30, 17, 110, 20), (fe, -30, 24, 60, 14), (fe, -17, 40, 34, 4))  # v. medialis
    m((fe, 14, 34, 190, 16), (fe, 8, 30, 110, 12), (fe, 4, 36, 60, 4))  # v. intermedius
    m((fe, 12, 54, 200, 18), (fe, 6, 46, 120, 10), (fe, 3, 46, 80, 5))  # rectus femoris
    m((fe, 30, -36, 190, 20), (fe, 34, -34, 90, 15), (fe, 40, -30, 30, 8), (ti, 36, -20, -10, 3))  # biceps
    m((fe, 24, -14, 170, 10), (fe, 30, -20, 80, 10), (fe, 38, -24, 20, 4))  # its short head
    m((fe, -18, -44, 190, 18), (fe, -24, -40, 80, 16), (fe, -27, -32, 20, 9), (ti, -28, -24, -8, 4))  # semimembranosus
    m((fe, 0, -58, 190, 16), (fe, -18, -56, 100, 9), (fe, -24, -52, 70, 4))  # semitendinosus
    m((fe, -50, -4, 190, 13), (fe, -48, -20, 70, 11), (fe, -43, -24, 10, 7), (ti, -30, 4, -50, 3))  # sartorius
    m((fe, -44, -34, 190, 10), (fe, -44, -36, 80, 6), (fe, -41, -36, 40, 3))  # gracilis
    m((fe, -26, -10, 190, 18), (fe, -30, -6, 110, 8), (fe, -35, -8, 60, 3))  # adductor magnus
    m((fe, -19, -26, 34, 6), (ti, -20, -40, 0, 13), (ti, -22, -50, -60, 19), (ti, -20, -50, -150, 21))  # gastrocnemius
    m((fe, 20, -26, 32, 6), (ti, 21, -40, 0, 12), (ti, 21, -48, -60, 17), (ti, 20, -46, -150, 19))
    m((ti, 30, -6, 6, 3), (ti, 6, -26, -16, 6), (ti, -12, -22, -50, 8), (ti, -10, -15, -90, 4))  # popliteus
    m((ti, 30, -27, -26, 6), (ti, 10, -32, -80, 15), (ti, 2, -36, -160, 22))  # soleus
    m((ti, 22, 2, -22, 4), (ti, 21, 9, -60, 12), (ti, 18, 8, -160, 15))  # tibialis anterior
    m((ti, 31, -2, -26, 4), (ti, 30, 3, -90, 9), (ti, 29, 3, -160, 10))  # toe extensors
    m((ti, 42, -12, -26, 5), (ti, 41, -12, -90, 10), (ti, 39, -12, -160, 11))  # peroneals
    m((ti, 12, -16, -50, 6), (ti, 14, -16, -160, 11))  # tibialis posterior
    m((ti, -13, -20, -90, 6), (ti, -12, -22, -160, 10))  # toe flexors
    w.fat((fe, 0, -34, 90, 12), (fe, 1, -42, 40, 15), (ti, 0, -40, 0, 14), (ti, 0, -40, -30, 8))  # popliteal fossa
    t = w.tendon
    t((fe, -24, -52, 80, 3), (fe, -37, -46, 30, 2.5), (ti, -37, -24, -20, 2.5), (ti, -22, 10, -56, 2))
    t((fe, -42, -36, 50, 2.5), (fe, -41, -36, 20, 2.3), (ti, -38, -20, -22, 2.3), (ti, -23, 9, -50, 2))
    t((fe, -34, -7, 70, 2.5), (fe, -37, -9, 45, 2))
    for side in (-1, 1):  # fat beside the patella: it does not stand out
        w.fat((fe, 31 * side, 18, 44, 13), (fe, 27 * side, 24, 22, 14), (ti, 24 * side, 20, -6, 12))
    w.fat((ti, 0, 22, 6, 11), (ti, 2, 22, -10, 9))  # below the patella
    flat = {"flat": (0, 1, 0.1), "aspect": 4.8}
    t((fe, 3, 46, 110, 9), ("patella", 0, 7, 24, 14), ("patella", 0, 7, 12, 13), **flat)  # quadriceps
    t(("patella", 0, 6, -8, 13), ("patella", 0, 4, -20, 12), (ti, 3, 26, -32, 11), (ti, 3, 25, -44, 10), **flat)
    ligament = w.ligament
    ligament((fe, 8, -14, 20, 4), (ti, -1, 8, -4, 5))  # cruciates
    ligament((fe, -8, -4, 12, 5), (ti, 0, -20, 0, 5), (ti, 0, -27, -12, 5))
    ligament((fe, -43, -4, 27, 6), (ti, -42, -3, 0, 6), (ti, -30, 2, -45, 5), flat=(1, 0, 0), aspect=3.0)
    ligament((fe, 43, -5, 27, 3), (ti, 42, -12, 0, 2.5), (ti, 39, -17, -16, 2.5))
    ligament((fe, 43, 8, 60, 9), (fe, 44, 4, 20, 9), (ti, 34, 12, -14, 7), flat=(1, 0.3, 0), aspect=5.0)  # iliotibial
    for side in (-1, 1):  # menisci
        angles = np.radians(np.linspace(-135, 135, 11))
        w.strand(T.MENISCUS, [(ti, side * (19 + 15.5 * np.cos(a)), -2 + 18 * np.sin(a), 1.0, 6) for a in angles])
    w.fluid(
        (fe, 3, 36, 68, 7),
        (fe, 3, 36, 45, 12),
        (fe, 2, 34, 34, 12),
        flat=(0, 1, 0),
        aspect=5.0 / (0.6 + 2 * pose["effusion"]),
    )
    if pose["cyst"]:
        w.fluid((fe, -24, -42, 12, 5), (ti, -26, -52, -8, 9), (ti, -25, -56, -30, 6))
    w.vessel(
        (fe, -12, -26, 190, 3.6),
        (fe, -2, -36, 60, 3.6),
        (ti, 2, -36, 0, 3.4),
        (ti, 4, -30, -50, 3),
        (ti, 8, -26, -160, 2),
    )
    w.vessel(
        (fe, -9, -33, 190, 4.6),
        (fe, 3, -43, 60, 4.6),
        (ti, 5, -43, 0, 4.2),
        (ti, 6, -35, -50, 3),
        (ti, 10, -30, -160, 2),
    )
    w.vessel((fe, -58, -20, 190, 2.6), (fe, -52, -34, 40, 2.4), (ti, -46, -22, -40, 2.2), (ti, -40, -4, -160, 2))
    w.nerve(
        (fe, 6, -44, 190, 4.5), (fe, 6, -50, 60, 3.2), (ti, 4, -49, 0, 3), (ti, 4, -40, -60, 2.6), (ti, 4, -30, -160, 2)
    )
    w.nerve((fe, 12, -46, 130, 3), (fe, 28, -42, 50, 2.5), (ti, 40, -27, -14, 2.3), (ti, 42, -14, -36, 2))
    return w.strands
