"""What each tissue is worth in an image: signal equations on relaxation times, blends of them, or anything at all.

Every tissue has a water and a fat part, since fat suppression and chemical shift act on fat alone.
"""

from dataclasses import dataclass
from math import cos, exp, radians, sin

import numpy as np

from ..anatomy.draw import Draw
from ..anatomy.tissues import Tissue

# proton density, fat share, T1 ms, T2 ms, T2* ms of the water part at 1.5 T; round numbers from the literature's range.
# `tesla` in a contrast's numbers, 0 to 1, goes from there to 3 T, where T1 is longer
_RELAXATION = {
    Tissue.AIR: (0.00, 0.00, 900, 30, 5),
    Tissue.SKIN: (0.60, 0.10, 800, 25, 12),
    Tissue.FAT: (0.95, 0.93, 900, 40, 20),
    Tissue.FASCIA: (0.50, 0.10, 700, 15, 6),
    Tissue.MUSCLE: (0.85, 0.03, 980, 38, 26),
    Tissue.VESSEL: (0.20, 0.00, 1300, 150, 60),  # flow void: a gradient echo turns it bright, below
    Tissue.NERVE: (0.75, 0.25, 900, 60, 25),
    Tissue.TENDON: (0.45, 0.00, 550, 5, 2),
    Tissue.LIGAMENT: (0.50, 0.03, 600, 9, 4),
    Tissue.MENISCUS: (0.60, 0.00, 750, 12, 6),
    Tissue.FLUID: (1.00, 0.00, 3000, 500, 120),
    Tissue.CARTILAGE: (0.85, 0.00, 1000, 42, 24),
    Tissue.UNOSSIFIED: (0.88, 0.00, 1000, 45, 26),
    Tissue.CORTEX: (0.10, 0.05, 400, 1.5, 0.5),
    Tissue.MARROW: (0.92, 0.86, 800, 45, 9),
    Tissue.MARROW_RED: (0.90, 0.45, 850, 45, 9),
    Tissue.PLATE: (0.85, 0.03, 1000, 48, 26),
    Tissue.LUNG: (0.12, 0.00, 1200, 30, 2),
    Tissue.NODE: (0.85, 0.05, 1000, 70, 30),
    Tissue.MASS: (0.90, 0.05, 1200, 80, 40),
    Tissue.INTERMUSCULAR: (0.92, 0.75, 950, 38, 20),
    Tissue.ORGAN: (0.85, 0.08, 900, 55, 25),
}
LURE_CORE, LURE_RIM = len(_RELAXATION), len(_RELAXATION) + 1  # the renderer's own: see texture.py
TISSUES = len(_RELAXATION) + 2
_FAT_T1, _FAT_T2, _FAT_T2_STAR = 290, 95, 35  # echo trains leave fat brighter than its single-echo T2 says


@dataclass(frozen=True)
class Preset:
    """Ranges of a sequence's settings: times in ms, angle in degrees; `fat` is the share of fat signal that is left."""

    tr: tuple[float, float]
    te: tuple[float, float]
    angle: tuple[float, float] | None = None  # a spoiled gradient echo; None: a spin echo
    ti: tuple[float, float] | None = None  # inversion recovery
    fat: tuple[float, float] = (1.0, 1.0)


_SUPPRESSED = (0.03, 0.22)
PRESETS = {
    "T1": Preset((450, 700), (8, 15)),
    "T1-FS": Preset((450, 750), (8, 18), fat=_SUPPRESSED),
    "PD": Preset((2000, 4000), (12, 38)),
    "PD-FS": Preset((2200, 4500), (12, 45), fat=_SUPPRESSED),
    "T2": Preset((3000, 6000), (60, 100)),
    "T2-FS": Preset((3000, 6000), (50, 90), fat=_SUPPRESSED),
    "GRE": Preset((15, 500), (4, 14), angle=(15, 40)),
    "GRE-FS": Preset((12, 50), (4, 10), angle=(8, 30), fat=_SUPPRESSED),
}
HELD_OUT_PRESETS = {"STIR": Preset((3000, 5500), (25, 60), ti=(180, 205))}  # never drawn for training


@dataclass(frozen=True)
class Contrast:
    """`water` and `fat`: signal of every tissue [TISSUES], such that the brightest tissue of `name` is about 1."""

    name: str
    water: np.ndarray
    fat: np.ndarray


def draw_contrast(random: Draw, preset: str | None = None) -> tuple[str, dict]:
    """A contrast's name and the numbers that make it, for the exam's parameters; `preset` fixes the sequence.

    Otherwise half the exams are a preset, a quarter a blend of two, a quarter has a signal at random for each tissue.
    """
    kind = random.uniform(0, 1)
    first, second = random.choice(sorted(PRESETS)), random.choice(sorted(PRESETS))
    entries = {"first": preset or first, "settings": [random.uniform(0, 1) for _ in range(4)]}
    if preset is None and kind > 0.75:
        return "random", {"signals": [random.uniform(0, 1) for _ in range(TISSUES)], **_personal(random)}
    if preset is None and kind > 0.5:
        entries |= {
            "second": second,
            "second_settings": [random.uniform(0, 1) for _ in range(4)],
            "share": random.uniform(0.2, 0.8),
        }
        return "blend", entries | _personal(random)
    return preset or first, entries | _personal(random)


def _personal(random: Draw) -> dict:
    """One body's deviation from the table: factors on density, T1 and T2; what the lures are made of."""
    return {
        "personal": [[random.uniform(0.88, 1.12) for _ in range(3)] for _ in range(TISSUES)],
        "tesla": random.uniform(0, 1),
        "lure": random.uniform(0, 1),
        "rim": random.uniform(0, 0.5),
    }


def contrast(name: str, numbers: dict) -> Contrast:
    """The signals that `draw_contrast`'s numbers stand for."""
    if name == "random":
        water, fat = _anything(numbers["signals"])
    else:
        water, fat = _sequence(numbers["first"], numbers["settings"], numbers["personal"], numbers["tesla"])
        if name == "blend":
            other = _sequence(numbers["second"], numbers["second_settings"], numbers["personal"], numbers["tesla"])
            share = numbers["share"]
            water, fat = ((1 - share) * mine + share * theirs for mine, theirs in zip((water, fat), other, strict=True))
    partners = (Tissue.MARROW, Tissue.MARROW_RED, Tissue.FAT, Tissue.MASS, Tissue.FLUID, Tissue.NODE)
    like = partners[int(numbers["lure"] * len(partners))]
    for signal in (water, fat):
        signal[LURE_CORE] = signal[like]
        signal[LURE_RIM] = numbers["rim"] * signal[Tissue.MUSCLE] + (1 - numbers["rim"]) * signal[Tissue.CORTEX]
    white = np.percentile((water + fat)[[Tissue.FAT, Tissue.MARROW, Tissue.MUSCLE, Tissue.FLUID, Tissue.CARTILAGE]], 90)
    return Contrast(name, (water / white).astype(np.float32), (fat / white).astype(np.float32))


def _anything(signals: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A signal at random for each tissue; air, cortex and what is like it stay dark, since no sequence shows them."""
    total = np.array(signals)
    for tissue, ceiling in (
        (Tissue.AIR, 0.0),
        (Tissue.CORTEX, 0.15),
        (Tissue.TENDON, 0.35),
        (Tissue.LIGAMENT, 0.5),
        (Tissue.LUNG, 0.2),
    ):
        total[tissue] *= ceiling
    red = total[Tissue.MARROW_RED]
    total[Tissue.MARROW] = 0.2 + 0.8 * total[Tissue.MARROW]  # marrow of no signal at all is no marrow
    total[Tissue.MARROW_RED] = 0.5 * (total[Tissue.MARROW] + red)
    fat = np.zeros_like(total)
    for tissue, (_, share, *_) in _RELAXATION.items():
        fat[tissue] = share * total[tissue]
    return total - fat, fat


def _sequence(preset: str, places: list[float], personal: list, tesla: float) -> tuple[np.ndarray, np.ndarray]:
    """Signal equations with the settings at `places` (0 to 1) of the preset's ranges."""
    ranges = (PRESETS | HELD_OUT_PRESETS)[preset]
    tr, te = _between(ranges.tr, places[0]), _between(ranges.te, places[1])
    third, left = ranges.angle or ranges.ti, _between(ranges.fat, places[3])
    water, fat = np.zeros(TISSUES), np.zeros(TISSUES)

    def signal(t1: float, t2: float, t2_star: float) -> float:
        if ranges.angle:
            angle, rest = radians(_between(third, places[2])), exp(-tr / t1)
            return sin(angle) * (1 - rest) / (1 - cos(angle) * rest) * exp(-te / t2_star)
        if ranges.ti:
            return abs(1 - 2 * exp(-_between(third, places[2]) / t1) + exp(-tr / t1)) * exp(-te / t2)
        return (1 - exp(-tr / t1)) * exp(-te / t2)

    for tissue, (density, share, t1, t2, t2_star) in _RELAXATION.items():
        more, slower, longer = personal[tissue]
        if tissue == Tissue.VESSEL and ranges.angle:
            density = 1.0  # fresh blood flows in
        water_t1, fat_t1 = t1 * slower * (1 + 0.4 * tesla), _FAT_T1 * slower * (1 + 0.25 * tesla)
        water[tissue] = density * more * (1 - share) * signal(water_t1, t2 * longer, t2_star * longer)
        marrow = tissue in (Tissue.MARROW, Tissue.MARROW_RED)
        decay = _FAT_T2_STAR * (0.4 if marrow else 1.0)  # trabeculae dephase what lies between them
        fat[tissue] = density * more * share * left * signal(fat_t1, _FAT_T2 * longer, decay * longer)
    return water, fat


def _between(ends: tuple[float, float], place: float) -> float:
    return ends[0] + place * (ends[1] - ends[0])
