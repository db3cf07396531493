"""The verb `check-data`: what is wrong with data sets, before a network learns it.

An *error* makes training wrong or impossible (exit code 2); a *warning* is for someone to look at.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import ndimage

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.plaintext import lines

from .dataset import Case, Dataset, grid_difference, read_dataset, read_description
from .domains import read_table

# Where one bone lies from another, whatever the pose: (bone, world axis, sense, other). LPS: +1 posterior, +2 superior.
POSITIONS = {
    "knee": [("femur", 2, 1, "tibia", "above"), ("patella", 1, -1, "femur", "in front of")],
    "ankle": [("tibia", 2, 1, "talus", "above"), ("talus", 2, 1, "calcaneus", "above")],
}
LATERAL = {"knee": ("fibula", "tibia"), "ankle": ("fibula", "tibia")}  # the first lies on the outer side of the second
CLEARLY_MM = 5.0
STRAY_ML, STRAY_MM = 0.1, 15.0  # a piece so small and so far from the bone's largest is no unfused part of it
TOUCHING = 0.3  # share of a bone's surface that lies directly at another bone
CLOSE_SPACING, COARSE_PIXEL, COARSE_SLICE = 0.1, 2.0, 10.0  # mm


Fault = tuple[str, str, str]  # level, code, message


@dataclass(frozen=True)
class Finding:
    level: str  # "error" or "warning"
    code: str
    dataset: str
    case: str  # "" for the whole data set
    message: str


@dataclass(frozen=True)
class Summary:
    dataset: str
    joint: str
    cases: int
    bones: dict[str, int]  # bone → cases in which it has voxels
    spacing: tuple[float, float]  # finest and coarsest, mm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", metavar="DATASET", nargs="+", type=Path, help="nnU-Net v2 raw folders")
    parser.add_argument("--joint", default="", help="where dataset.json does not say it")
    parser.add_argument("--table", default="", metavar="CSV", help="bones of a joint that the software does not know")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    findings, summaries = check(args.datasets, args.joint, args.table)
    wrong = any(finding.level == "error" for finding in findings)
    if args.json:
        found = [asdict(finding) for finding in findings]
        print(json.dumps({"ok": not wrong, "datasets": [asdict(each) for each in summaries], "findings": found}))
    else:
        print(lines("\n".join(page(findings, summaries))))
    return 2 if wrong else 0


def check(folders: list[Path], joint: str = "", table: str = "") -> tuple[list[Finding], list[Summary]]:
    """Looks at every case of every folder; nothing stops at the first fault."""
    findings, summaries, images = [], [], {}
    for folder in folders:
        name = Path(folder).name
        try:
            named = read_description(Path(folder))[1].get("joint") or joint  # --joint is for folders that name none
            dataset = read_dataset(folder, named, table=read_table(named, table) if table else None)
        except BadInput as error:
            findings.append(Finding("error", "dataset", name, "", str(error)))
            continue
        findings += [Finding("warning", "dataset", name, "", notice) for notice in dataset.notices]
        counts, spacings = dict.fromkeys(dataset.table.names, 0), []
        for case in dataset.cases:
            for level, code, message in _check_case(dataset, case, counts, spacings, images):
                findings.append(Finding(level, code, name, case.name, message))
        findings += _never_drawn(dataset, name, counts)
        range_ = (min(map(min, spacings)), max(map(max, spacings))) if spacings else (0.0, 0.0)
        summaries.append(Summary(name, dataset.joint, len(dataset.cases), counts, range_))
    findings += _twice(images)
    return sorted(findings, key=lambda each: (each.level, each.dataset, each.code, each.case)), summaries


def page(findings: list[Finding], summaries: list[Summary]) -> list[str]:
    """For people: what there is, then the findings, alike ones on one line."""
    lines = []
    for each in summaries:
        bones = ", ".join(f"{bone} {count}" for bone, count in each.bones.items())
        spacing = "–".join(f"{number:.2g}" for number in each.spacing)
        lines.append(f"{each.dataset}: {each.joint}, {each.cases} cases, spacing {spacing} mm; {bones}")
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.level, finding.dataset, finding.code), []).append(finding)
    for (level, dataset, code), group in alike.items():
        where = f" {group[0].case}" if group[0].case else ""
        lines.append(f"{level}  {dataset}{where}: {group[0].message} [{code}]")
        if len(group) > 1:
            others = ", ".join(dict.fromkeys(finding.case for finding in group[1:6]))
            more = f" and {len(group) - 6} more" if len(group) > 6 else ""
            lines.append(f"       also: {others}{more}")
    errors = sum(finding.level == "error" for finding in findings)
    warnings = len(findings) - errors
    verdict = "training would be wrong" if errors else "ready for training"
    return [*lines, f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}: {verdict}"]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _check_case(dataset: Dataset, case: Case, counts, spacings, images) -> Iterator[Fault]:
    try:
        image, drawn = read_volume(case.image), read_volume(case.labels)
    except BadInput as error:
        yield "error", "unreadable", str(error)
        return
    grid = image.grid
    spacings.append(grid.spacing)
    digest = hashlib.sha256(np.ascontiguousarray(image.array, np.float32).tobytes()).hexdigest()
    images.setdefault(digest, []).append((dataset.folder.name, case.name))
    yield from _check_image(image)
    if difference := grid_difference(grid, drawn.grid):
        yield "error", "geometry", f"image and labels {difference}"
        return
    values = np.unique(drawn.array)
    unknown = [value for value in values.tolist() if value not in dataset.values]
    if unknown:
        yield "error", "label", f"label values {unknown[:5]} are not in dataset.json"
    masks = {dataset.table.names[to - 1]: drawn.array == value for value, to in dataset.values.items() if to}
    present = {bone: mask for bone, mask in masks.items() if mask.any()}
    for bone in present:
        counts[bone] += 1
        if bone in case.unlabelled:
            yield "error", "unlabelled", f"the {bone} is declared unlabelled and has voxels"
    if not present:
        yield "error", "empty", "no bone has a voxel"
        return
    for bone in masks.keys() - present.keys() - case.unlabelled:
        yield "warning", "empty", f"the {bone} has no voxels: right if it is out of view, else declare it unlabelled"
    yield from _check_places(dataset.table.joint, image, case.side, present)


def _check_image(image) -> Iterator[Fault]:
    for notice in image.warnings:
        yield "warning", notice.code, notice.message
    low, high = (float(each) for each in np.percentile(image.array, [1, 99.5]))
    if not high > low:
        yield "error", "intensity", f"the image has hardly any contrast: {low:g} to {high:g}"
    elif len(np.unique(image.array[:: max(1, image.array.shape[0] // 16)])) < 16:
        yield "warning", "intensity", "the image has fewer than 16 intensities: is it a label map?"
    elif low < -500:
        yield "warning", "intensity", f"intensities reach down to {low:g}: is it CT?"
    spacing = sorted(image.grid.spacing)
    if spacing[0] < CLOSE_SPACING or spacing[1] > COARSE_PIXEL or spacing[2] > COARSE_SLICE:
        yield "warning", "spacing", f"the spacing {' × '.join(f'{each:.3g}' for each in image.grid.spacing)} mm is odd"


def _check_places(joint: str, image, side: str | None, masks: dict[str, np.ndarray]) -> Iterator[Fault]:
    """Bones in the air, in scattered pieces, grown together, or on the wrong side of each other."""
    affine, spacing = image.grid.affine, np.array(image.grid.spacing)
    low, high = np.percentile(image.array, [1, 99.5])
    centers, boxes = {}, {}
    for bone, mask in masks.items():
        box = ndimage.find_objects(mask.view(np.uint8))[0]
        centers[bone] = affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]
        boxes[bone] = box
        grown = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
        if high > low and image.array[grown].mean() < low + 0.05 * (high - low):
            yield "error", "place", f"the {bone} lies in the air"
        yield from _check_pieces(bone, mask[box], spacing, image.grid.voxel_ml)
    for one, other in combinations(masks, 2):
        if (touching := _touching(masks[one], masks[other], boxes[one])) > TOUCHING:
            yield "warning", "overlap", f"{touching:.0%} of the {one}'s surface lies at the {other}: no joint space"
    for one, axis, sense, other, how in POSITIONS.get(joint, []):
        if one in centers and other in centers and (centers[one] - centers[other])[axis] * sense < -CLEARLY_MM:
            yield "error", "place", f"the {one} does not lie {how} the {other}: labels swapped or image turned over"
    outer, inner = LATERAL.get(joint, ("", ""))
    if side and outer in centers and inner in centers:
        outwards = 1 if side == "left" else -1
        if (centers[outer] - centers[inner])[0] * outwards < -CLEARLY_MM:
            yield "error", "side", f"side {side}, but the {outer} lies on the inner side of the {inner}"


def _check_pieces(bone: str, mask: np.ndarray, spacing: np.ndarray, voxel_ml: float) -> Iterator[Fault]:
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel())[1:]
    distance = ndimage.distance_transform_edt(pieces != 1 + int(sizes.argmax()), sampling=spacing)
    stray = [
        number
        for number in range(1, count + 1)
        if sizes[number - 1] * voxel_ml < STRAY_ML and distance[pieces == number].min() > STRAY_MM
    ]
    if stray:
        yield "warning", "pieces", f"the {bone} has {len(stray)} tiny pieces far from the rest: stray voxels?"


def _touching(one: np.ndarray, other: np.ndarray, box) -> float:
    grown = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
    one, other = one[grown], other[grown]
    if not other.any():
        return 0.0
    surface = one & ~ndimage.binary_erosion(one)
    return float((surface & ndimage.binary_dilation(other)).sum() / max(1, surface.sum()))


def _never_drawn(dataset: Dataset, name: str, counts: dict[str, int]) -> list[Finding]:
    """A bone without a voxel in the whole data set would be learned as background."""
    return [
        Finding("error", "empty", name, "", f"the {bone} has no voxel in any case: declare it unlabelled")
        for bone, count in counts.items()
        if not count and any(bone not in case.unlabelled for case in dataset.cases)
    ]


def _twice(images: dict[str, list[tuple[str, str]]]) -> list[Finding]:
    return [
        Finding(
            "error",
            "twice",
            *places[0],
            f"the same image as {' and '.join('/'.join(each) for each in places[1:])}"
            ": one exam could be learned from and judged by",
        )
        for places in images.values()
        if len(places) > 1
    ]
