"""Every effect of the renderer with its name, how often it acts and how strongly: one table to read and to change."""

from dataclasses import dataclass, fields, replace

from ..anatomy.draw import Draw


@dataclass(frozen=True)
class Effect:
    """Acts in a share `probability` of the exams, with a strength between `low` and `high`: drawn evenly, or with `log`
    evenly on a logarithmic scale, so that weak ones are as common as strong ones."""

    probability: float
    low: float
    high: float
    log: bool = False

    def draw(self, random: Draw) -> float | None:
        """The strength, or None where it does not act; takes two numbers either way."""
        acts = random.chance(self.probability)
        place = random.uniform(0, 1)
        strength = self.low * (self.high / self.low) ** place if self.log else self.low + place * (self.high - self.low)
        return round(strength, 5) if acts else None


@dataclass(frozen=True)
class RenderSettings:
    """The domain. Strengths are named by their unit; "of white" means of the brightest tissue.

    Geometry (moves the label map with the image)
    oblique        tilt of the slices, degrees                    field_cut   share of the body left out at a side
    padding        share of the slice that is blank at corners and edges: neither image nor label there
    Tissue (drawn with the anatomy, label map untouched)
    lures          radius in mm of masses in soft tissue that look like bone: bright inside, often a dark rim
    trabeculae     fine texture of marrow, of its signal          marrow_mix  how far red and yellow marrow mingle
    striation      share of fat in the planes inside muscles      septa       dark planes in fat
    variation      smooth variation within a tissue               regions     difference between parts of one tissue
    bones          difference of one bone's marrow from another's
    Acquisition and reconstruction (intensities alone)
    bias_field     log of the gain, its deviation                 coil_falloff  a surface coil's reach, in bodies
    skin_gain      log of the gain at the skin against deep inside, as in a coil that surrounds the limb
    edge_loss      share of the stack's length that is darkened at an end
    chemical_shift fat against water, mm                          wrap        share of the field folded over
    metal          radius of the void, mm                         blur        lost resolution, in pixels
    gibbs          share of k-space cut off sharply               zero_fill   resolution lost along the phase axis alone
    motion         mm                                             ghosting    of the image
    noise          deviation, of white                            slice_gain  unequal gain of the slices
    gamma          log of the exponent                            saturation  share of white above which it is flat
    """

    oblique: Effect = Effect(0.5, 2.0, 25.0)
    field_cut: Effect = Effect(0.5, 0.05, 0.5)
    padding: Effect = Effect(0.15, 0.05, 0.3)
    lures: Effect = Effect(0.6, 4.0, 32.0)
    trabeculae: Effect = Effect(0.9, 0.02, 0.12)
    marrow_mix: Effect = Effect(0.6, 0.1, 0.9)
    striation: Effect = Effect(0.9, 0.15, 0.9)
    septa: Effect = Effect(0.8, 0.1, 0.7)
    variation: Effect = Effect(0.9, 0.01, 0.12)
    regions: Effect = Effect(0.8, 0.02, 0.3)
    bones: Effect = Effect(0.5, 0.02, 0.25)
    bias_field: Effect = Effect(0.9, 0.03, 0.35, log=True)
    coil_falloff: Effect = Effect(0.4, 0.3, 1.5, log=True)
    skin_gain: Effect = Effect(0.4, 0.15, 1.3, log=True)
    edge_loss: Effect = Effect(0.3, 0.05, 0.35)
    chemical_shift: Effect = Effect(0.5, 0.3, 2.5)
    wrap: Effect = Effect(0.06, 0.05, 0.25)
    metal: Effect = Effect(0.04, 3.0, 14.0)
    blur: Effect = Effect(0.4, 0.3, 1.0)
    gibbs: Effect = Effect(0.3, 0.1, 0.5)
    zero_fill: Effect = Effect(0.3, 0.15, 0.5)
    motion: Effect = Effect(0.12, 0.3, 2.5)
    ghosting: Effect = Effect(0.15, 0.02, 0.15)
    noise: Effect = Effect(0.95, 0.002, 0.07, log=True)
    slice_gain: Effect = Effect(0.15, 0.02, 0.12)
    gamma: Effect = Effect(0.4, -0.3, 0.3)
    saturation: Effect = Effect(0.25, 0.7, 0.97)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    def without(self, *names: str) -> "RenderSettings":
        """The same with these effects switched off."""
        return replace(self, **{name: replace(getattr(self, name), probability=0.0) for name in names})

    def only(self, *names: str, strength: float | None = None) -> "RenderSettings":
        """These effects always, at `strength` where given, and no other."""
        chosen = {name: getattr(self, name) for name in names}
        always = {
            name: replace(effect, probability=1.0) if strength is None else Effect(1.0, strength, strength)
            for name, effect in chosen.items()
        }
        return replace(self.without(*self.names()), **always)
