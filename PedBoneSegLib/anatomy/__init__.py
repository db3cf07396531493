"""Joints and their bones: label value, name, color and SNOMED CT codes, one CSV per joint.

The CSV has the form of 3D Slicer's color tables, so one file defines the training labels, the segments' names, colors
and terminology, and DICOM SEG. A model contains its own tables, so a new joint needs no code. Standard library only.
"""

import csv
import io
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ..errors import BadInput

_COLUMNS = ["LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A"] + [
    f"{entry}_{part}" for entry in ("Category", "Type") for part in ("CodingScheme", "CodeValue", "CodeMeaning")
]
_NAME = re.compile(r"[^\W_][\w ()+-]{0,63}")  # used as a file's name, a JSON key and a segment's name
_CODE = re.compile(r"[^~^|\r\n]{0,200}")  # without the separators of Slicer's terminology entries


@dataclass(frozen=True)
class Code:
    """A coded concept, such as SCT 71341001 "Femur". All three parts empty: no code."""

    scheme: str
    value: str
    meaning: str


LATERALITY = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}  # the modifiers
ANATOMICAL_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")


@dataclass(frozen=True)
class Bone:
    """One structure of a joint. `name` is bare ("femur"), `color` is RGB, 0 to 255."""

    label: int
    name: str
    color: tuple[int, int, int]
    category: Code
    type: Code


@dataclass(frozen=True)
class JointTable:
    """A joint's bones in the order of their labels, which run from 1 without a gap; 0 is background."""

    joint: str
    bones: tuple[Bone, ...]

    def __post_init__(self) -> None:
        names = [bone.name for bone in self.bones]
        which, values = f"label table of {self.joint!r}", [bone.label for bone in self.bones]
        if not names or values != list(range(1, len(names) + 1)) or len(names) > 254:
            raise BadInput(f"{which}: the label values are {values}", "number the bones 1, 2, 3, … (254 at most)")
        if len({name.casefold() for name in names}) < len(names):
            raise BadInput(f"{which}: a name occurs twice in {names}", "give every bone its own name")
        for name in names:
            if not _NAME.fullmatch(name):
                raise BadInput(f"{which}: {name!r} is not a valid name for a bone", "use letters and digits")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(bone.name for bone in self.bones)

    @cached_property
    def labels(self) -> dict[str, int]:
        return {bone.name: bone.label for bone in self.bones}

    def bone(self, name: str) -> Bone:
        """The bone of that name; KeyError if the joint has none."""
        return self.bones[self.labels[name] - 1]

    @classmethod
    def from_csv(cls, text: str, joint: str) -> "JointTable":
        """Reads a color table as Slicer writes it. Other columns and a background row (label 0) are ignored."""
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        missing = {"LabelValue", "Name"} - set(reader.fieldnames or ())
        if missing:
            hint = "its first line must read " + ",".join(_COLUMNS)
            raise BadInput(f"label table of {joint!r} lacks the column {min(missing)}", hint)
        try:
            bones = [_bone(row) for row in reader]
        except (ValueError, TypeError, csv.Error) as error:
            raise BadInput(f"label table of {joint!r}, line {reader.line_num}: {error}", "correct that line") from None
        return cls(joint, tuple(sorted((bone for bone in bones if bone.label), key=lambda bone: bone.label)))

    def to_csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for bone in self.bones:
            codes = [part for code in (bone.category, bone.type) for part in (code.scheme, code.value, code.meaning)]
            writer.writerow([bone.label, bone.name, *bone.color, 255, *codes])
        return text.getvalue()


def known_joints() -> tuple[str, ...]:
    """The joints whose tables come with the software, in alphabetical order."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.csv")))


@cache
def joint_table(joint: str) -> JointTable:
    """The table of one of `known_joints()`."""
    if joint not in known_joints():
        raise BadInput(f"there is no joint {joint!r}", "the known ones are " + ", ".join(known_joints()))
    return JointTable.from_csv((Path(__file__).parent / f"{joint}.csv").read_text(encoding="utf-8"), joint)


def display_name(bone: Bone | str, side: str | None = None) -> str:
    """The name for people: "Right femur", or "Femur" if the side is not known. Programs read the bare name and the side
    separately."""
    name = bone if isinstance(bone, str) else bone.name
    return f"{side.capitalize()} {name}" if side else name[:1].upper() + name[1:]


def _bone(row: dict[str, str]) -> Bone:
    red, green, blue = (int(row.get(f"Color_{channel}") or 128) for channel in "RGB")
    color = red, green, blue
    if min(color) < 0 or max(color) > 255:
        raise ValueError(f"the color {color} is not within 0 to 255")
    return Bone(int(row["LabelValue"]), row["Name"].strip(), color, _code(row, "Category"), _code(row, "Type"))


def _code(row: dict[str, str], entry: str) -> Code:
    parts = [(row.get(f"{entry}_{part}") or "").strip() for part in ("CodingScheme", "CodeValue", "CodeMeaning")]
    for part in parts:
        if not _CODE.fullmatch(part):
            raise ValueError(f"{entry} code {part!r} contains one of the characters ~ ^ |")
    return Code(*parts)
