"""How a domain's slices are made from a volume: plain numbers that travel in the model. Standard library only, so that
they are checked when a model's header is read, before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import BadModel

PLANE_NAMES = ("sagittal", "coronal", "axial")
LONGEST_SIDE = 4096  # pixels of a slice; a knee at 0.1 mm has 2000

# Field → the smallest and the largest value. No real model comes near them; beyond them a small file could ask for any
# amount of memory or time.
_LIMITS: dict[str, tuple[float, float]] = {
    "pixel_mm": (0.1, 20), "context": (0, 31), "context_mm": (0.1, 1000), "isotropy": (1, 100),
    "margin_mm": (0, 1000), "field_mm": (10, 2000),
}  # fmt: skip


@dataclass(frozen=True)
class SliceSettings:
    """Lengths are millimeters."""

    pixel_mm: float
    context: int = 0  # neighbors on either side, as further channels
    context_mm: float = 3.0  # distance from one neighbor to the next
    plane: str = "sagittal"  # where the voxels do not decide
    isotropy: float = 1.5  # coarsest spacing / next one: below this the voxels do not decide
    margin_mm: float = 10.0  # kept around the body
    field_mm: float = 512.0  # no slice is longer than this; a larger body is cut around its middle

    def __post_init__(self) -> None:
        if self.plane not in PLANE_NAMES:
            raise BadModel(f"the plane {str(self.plane)[:40]!r} is none of {', '.join(PLANE_NAMES)}")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if type(value) not in ((int,) if name == "context" else (int, float)) or not least <= value <= most:
                raise BadModel(f"the slice setting {name} is {str(value)[:40]}, not from {least} to {most}")
        if self.field_mm / self.pixel_mm > LONGEST_SIDE:
            raise BadModel(f"slices of {self.field_mm} mm have more than {LONGEST_SIDE} pixels of {self.pixel_mm} mm")

    @property
    def channels(self) -> int:
        return 2 * self.context + 1

    def neighbours(self, spacing: float) -> list[int]:
        """A slice's channels, lowest first, as offsets in slices that lie `spacing` mm apart; its own is 0."""
        steps = [math.floor(number * self.context_mm / spacing + 0.5) for number in range(1, self.context + 1)]
        return [-step for step in reversed(steps)] + [0] + steps

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "SliceSettings":
        known = {field.name for field in fields(cls)}
        if not isinstance(entries, Mapping) or "pixel_mm" not in entries or not entries.keys() <= known:
            fault = "the slice settings are not those that this PedBoneSeg knows"
            raise BadModel(fault, "update PedBoneSeg, or export the model again")
        return cls(**entries)
