"""A joint's exams on disk: an nnU-Net v2 raw folder, read without changing it.

    dataset.json                 channel_names, labels {bone: value}, file_ending, and our optional object `pedboneseg`
    imagesTr/<case>_0000.nii.gz  one channel
    labelsTr/<case>.nii.gz       the same grid

`pedboneseg`: {"joint", "domain", "sides": {case: side}, "unlabelled": {case: [bone]}, "reserved": [case]}; other
readers ignore it, and without it the configuration names the joint. `splits.json` or `splits_final.json`, nnU-Net's
list of {"train": [case], "val": [case]}, is honored.

Bones are matched by name (upper and lower case, `_` and spaces alike). A bone that `dataset.json` does not name was
drawn by nobody: it counts as unlabeled in every case. A label that the joint's table does not have becomes background.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from PedBoneSegLib.anatomy import JointTable, joint_table, known_joints
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import read_text
from PedBoneSegLib.formats.names import split_name
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.formats.registry import read_suffixes
from PedBoneSegLib.models.manifest import FEWEST_REFERENCES
from PedBoneSegLib.volume import Grid, Volume

if TYPE_CHECKING:  # torch, which the configuration's extensions load, is not needed to look at data
    from ..configuration.sections import Data

SIDES = ("left", "right")


@dataclass(frozen=True)
class Case:
    name: str
    image: Path
    labels: Path
    side: str | None
    unlabelled: frozenset[str]  # bones of the table that nobody drew here
    reserved: bool


@dataclass(frozen=True)
class LoadedCase:
    """`labels` uint8 [i, j, k] with the *table's* values; `known` bool [1 + bones], as `data.source.Batch` has it."""

    name: str
    volume: Volume
    labels: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """`values` maps the file's label values to the table's (0 where the table lacks the bone: background)."""

    folder: Path
    joint: str
    domain: str
    table: JointTable
    values: dict[int, int]
    foreign: tuple[str, ...]  # labels that the table does not have
    cases: tuple[Case, ...]
    folds: tuple[dict[str, tuple[str, ...]], ...]
    notices: tuple[str, ...] = field(default=())

    def case(self, name: str) -> Case:
        for case in self.cases:
            if case.name == name:
                return case
        raise BadInput(f"{self.folder} has no case {name!r}", "check the name")


def read_dataset(folder: str | Path, joint: str = "", domain: str = "", table: JointTable | None = None) -> Dataset:
    """The folder's description and list of cases; no voxel is read. What the arguments leave open, the folder says."""
    folder = Path(folder)
    described, ours = read_description(folder)
    joint = joint or ours.get("joint", "")
    if not joint:
        raise BadInput(
            f"{folder} names no joint", 'give --joint NAME, or add "pedboneseg": {"joint": "knee"} to dataset.json'
        )
    if ours.get("joint", joint) != joint:
        raise BadInput(f"{folder} is of the joint {ours['joint']}, not {joint}", "correct one of the two")
    if table is None:
        if joint not in known_joints():
            raise BadInput(f"{folder}: the joint {joint!r} has no table of bones", "give one, a CSV")
        table = joint_table(joint)
    channels = described.get("channel_names", described.get("modality", {"0": "MR"}))
    if len(channels) != 1:
        raise BadInput(f"{folder} has {len(channels)} channels an exam", "keep one channel (_0000) and name it alone")
    values, foreign, missing = _match_labels(folder, described.get("labels"), table)
    ending = described.get("file_ending") or _find_ending(folder)
    cases = _find_cases(folder, ending, ours, table, missing)
    notices = []
    if foreign:
        notices.append(f"the table of the {joint} lacks {', '.join(foreign)}: learned as background")
    if missing:
        notices.append(f"dataset.json does not name {', '.join(sorted(missing))}: counted as unlabeled in every case")
    if described.get("numTraining", len(cases)) != len(cases):
        notices.append(f"dataset.json promises {described['numTraining']} cases, {len(cases)} are there")
    return Dataset(
        folder,
        joint,
        domain or ours.get("domain", joint),
        table,
        values,
        foreign,
        cases,
        _read_folds(folder, cases),
        tuple(notices),
    )


def read_description(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The folder's dataset.json, and the object `pedboneseg` in it, which may be empty."""
    described = _read_json(folder / "dataset.json", dict)
    ours = described.get("pedboneseg", {})
    if not isinstance(ours, dict):
        raise BadInput(f"{folder}/dataset.json: pedboneseg is not an object", "see Training/README.md")
    return described, ours


def load_case(dataset: Dataset, case: Case) -> LoadedCase:
    """Image and labels, on the same grid or BadInput."""
    volume = read_volume(case.image)
    drawn = read_volume(case.labels)
    if difference := grid_difference(volume.grid, drawn.grid):
        raise BadInput(f"{case.name}: image and labels {difference}", "export both on the same grid; see check-data")
    found = np.unique(drawn.array)
    unknown = [value for value in found.tolist() if value not in dataset.values]
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        raise BadInput(f"{case.name}: label values {shown} are not in dataset.json", "name them there, or erase them")
    labels = np.zeros(drawn.array.shape, np.uint8)
    for value in found.tolist():
        if dataset.values[value]:
            labels[drawn.array == value] = dataset.values[value]
    volume.side = case.side or volume.side
    known = np.array([True, *(bone not in case.unlabelled for bone in dataset.table.names)])
    return LoadedCase(case.name, volume, labels, known)


def grid_difference(image: Grid, labels: Grid) -> str:
    """What differs, or "" where two grids are the same to a hundredth of a voxel."""
    if image.size != labels.size:
        return f"have {image.size} and {labels.size} voxels"
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in image.size])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm(((image.affine - labels.affine) @ corners)[:3], axis=0).max()
    if apart > max(0.01 * min(image.spacing), 1e-3):
        return f"lie up to {apart:.2g} mm apart (spacing {_mm(image.spacing)} and {_mm(labels.spacing)})"
    return ""


@dataclass(frozen=True)
class Split:
    """Names of cases, each in one list at most."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    selection: tuple[str, ...]
    reserved: tuple[str, ...]


def split_cases(dataset: Dataset, data: "Data", seed: int, hold_out: Iterable[str] = ()) -> Split:
    """Who learns, who is looked at, who chooses among the steps, and who is reserved.

    The fold of the data set's own splits comes first, or else a share for validation; a data set that has folds but not
    this one trains on all of its exams. Reserved are the cases that the data set lists, else a share of what is left to
    train on, if it comes to the FEWEST_REFERENCES below which a reserve does nothing. Shares are drawn by a hash of
    seed and name alone. A share of a few exams may be no exam, but training always keeps one.
    """
    hold_out = set(hold_out)
    for name in hold_out - {case.name for case in dataset.cases}:
        raise BadInput(f"{dataset.folder} has no case {name!r} to hold out", "check domains.….hold_out")
    names = [case.name for case in dataset.cases if case.name not in hold_out]
    listed = [case.name for case in dataset.cases if case.reserved and case.name in names]
    left = sorted(set(names) - set(listed), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    validation: list[str] = []
    if not dataset.folds:
        left, validation = _take(left, round(data.validation * len(names)))
    elif data.fold < len(dataset.folds):
        fold = dataset.folds[data.fold]
        validation = [name for name in left if name in fold["val"]]
        left = [name for name in left if name in fold["train"]]
        if fold["val"] and not validation:
            raise BadInput(
                f"{dataset.folder}: all exams that fold {data.fold} validates on are reserved or held out",
                "take them out of `reserved` in dataset.json or out of hold_out",
            )
    left, selection = _take(left, round(data.selection * len(names)))
    reserved, wanted = listed, round(data.reserved * len(names))
    if not listed and FEWEST_REFERENCES <= wanted < len(left):
        left, reserved = _take(left, wanted)
    if not left:
        raise BadInput(f"{dataset.folder} leaves no exam to train on", "reserve or hold out fewer")
    return Split(*(tuple(sorted(group)) for group in (left, validation, selection, reserved)))


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """SHA-256 of every file that training depends on, by its name inside the folder."""
    files = [dataset.folder / "dataset.json", *dataset.folder.glob("splits*.json")]
    files += [path for case in dataset.cases for path in (case.image, case.labels)]
    return {str(path.relative_to(dataset.folder)): _sha256(path) for path in sorted(files)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _take(names: list[str], count: int) -> tuple[list[str], list[str]]:
    """What is left, and the first `count`; one always stays."""
    count = max(0, min(count, len(names) - 1))
    return names[count:], names[:count]


def _match_labels(folder: Path, labels, table: JointTable) -> tuple[dict[int, int], tuple[str, ...], frozenset[str]]:
    if not isinstance(labels, dict) or not labels:
        raise BadInput(f"{folder}/dataset.json has no labels", 'add "labels": {"background": 0, "femur": 1, …}')
    if all(isinstance(name, str) and name.isdigit() for name in labels):  # nnU-Net's first version: value → name
        labels = {name: int(value) for value, name in labels.items()}
    by_name = {_normalized(name): value for name, value in table.labels.items()}
    values, foreign, found = {0: 0}, [], set()
    for name, value in labels.items():
        if not isinstance(value, int) or value < 0 or value > 65535 or name == "ignore":
            raise BadInput(
                f"{folder}/dataset.json: label {name!r} = {value!r} is not one value for one bone",
                "regions and ignore labels are not supported; name unlabeled bones in pedboneseg.unlabelled",
            )
        if value == 0:
            continue
        target = by_name.get(_normalized(name), 0)
        if target and target in values.values() or value in values:
            raise BadInput(f"{folder}/dataset.json: {name!r} or its value {value} occurs twice", "one value for a bone")
        values[value] = target
        if target:
            found.add(table.names[target - 1])
        else:
            foreign.append(name)
    if not found:
        raise BadInput(
            f"{folder} labels {', '.join(foreign) or 'nothing'}, none of which is a bone of the {table.joint}",
            f"its bones are called {', '.join(table.names)}",
        )
    return values, tuple(foreign), frozenset(table.names) - found


def _find_cases(folder: Path, ending: str, ours: dict, table: JointTable, missing: frozenset[str]) -> tuple[Case, ...]:
    images = sorted((folder / "imagesTr").glob(f"*{ending}"))
    names = {}
    for image in images:
        stem = image.name.removesuffix(ending)
        name, underscore, channel = stem.rpartition("_")
        if not underscore or not channel.isdigit():
            raise BadInput(f"{image} does not end in _0000{ending}", "name images <case>_0000 as nnU-Net does")
        if channel != "0000" or name in names:
            raise BadInput(f"{image}: exam {name} has several channels", "keep one channel (_0000)")
        names[name] = image
    if not names:
        raise BadInput(f"{folder}/imagesTr holds no images *_0000{ending}", "see the layout in Training/README.md")
    unlabelled = {name: _bones(folder, name, bones, table) for name, bones in ours.get("unlabelled", {}).items()}
    sides, reserved = ours.get("sides", {}), set(ours.get("reserved", []))
    for name in (sides.keys() | unlabelled.keys() | reserved) - names.keys():
        raise BadInput(f"{folder}/dataset.json speaks of a case {name!r} that is not there", "correct the name")
    for name, side in sides.items():
        if side not in SIDES:
            raise BadInput(f"{folder}/dataset.json: the side of {name} is {side!r}", "it is left or right")
    cases = []
    for name, image in names.items():
        labels = folder / "labelsTr" / f"{name}{ending}"
        if not labels.exists():
            raise BadInput(f"{labels} is missing", "add it, or move the image to imagesTs")
        cases.append(
            Case(name, image, labels, sides.get(name), unlabelled.get(name, frozenset()) | missing, name in reserved)
        )
    return tuple(cases)


def _bones(folder: Path, case: str, bones: list[str], table: JointTable) -> frozenset[str]:
    by_name = {_normalized(name): name for name in table.names}
    for bone in bones:
        if _normalized(bone) not in by_name:
            raise BadInput(f"{folder}/dataset.json: {bone!r}, unlabeled in {case}, is not in the table", "correct it")
    return frozenset(by_name[_normalized(bone)] for bone in bones)


def _read_folds(folder: Path, cases: tuple[Case, ...]) -> tuple[dict[str, tuple[str, ...]], ...]:
    path = next((folder / name for name in ("splits.json", "splits_final.json") if (folder / name).exists()), None)
    if path is None:
        return ()
    names, folds = {case.name for case in cases}, []
    for number, fold in enumerate(_read_json(path, list)):
        if not isinstance(fold, dict) or not {"train", "val"} <= fold.keys():
            raise BadInput(f"{path}: fold {number} lacks train or val", 'write [{"train": [case], "val": [case]}, …]')
        for name in {*fold["train"], *fold["val"]} - names:
            raise BadInput(f"{path}: fold {number} names {name!r}, which is not there", "correct the name")
        for name in set(fold["train"]) & set(fold["val"]):
            raise BadInput(f"{path}: fold {number} trains on {name} and validates on it", "keep it in one of the two")
        folds.append({key: tuple(fold[key]) for key in ("train", "val")})
    return tuple(folds)


def _read_json(path: Path, kind: type):
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise BadInput(f"{path} is not there", "a data set is an nnU-Net v2 raw folder") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}", "correct it") from None
    if not isinstance(content, kind):
        raise BadInput(f"{path} does not hold a JSON {'object' if kind is dict else 'list'}", "correct it")
    return content


def _find_ending(folder: Path) -> str:
    for path in sorted((folder / "imagesTr").glob("*_0000.*")):
        return split_name(path)[1]
    raise BadInput(f"{folder}/imagesTr holds no images", "name them <case>_0000, " + " or ".join(read_suffixes()))


def _normalized(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _mm(numbers) -> str:
    return " × ".join(f"{number:.3g}" for number in numbers)
