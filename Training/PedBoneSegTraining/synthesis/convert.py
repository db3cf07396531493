"""Turns folders of bone shapes into one small file a person, from which exams are drawn without a mesh library.

    python -m PedBoneSegTraining.synthesis.convert SHAPES OUT [--atlas ATLAS]

SHAPES holds the folders that `subjects` names below (docs/synthesis.md says where each comes from); those that are not
there are left out. Every bone is turned, shifted and scaled onto the modeled adult's, and sampled.

Who may be trained on: of a source with six people or more, those are kept out of all training for whom SHA-256 of the
name, as a number, is divisible by three, and those in `UNSEEN_PEOPLE`; of smaller ones nobody, unless it is one of
`UNSEEN_SOURCES`. Both sides of one person have one name for this.
"""

import argparse
import hashlib
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from scipy.optimize import least_squares

from PedBoneSegLib.errors import BadInput

from .anatomy import JOINTS
from .anatomy.meshes import read_mesh
from .anatomy.model import Bone
from .anatomy.people import write_person
from .anatomy.sampled import LONG, Field, average_parameters, modelled_extent
from .anatomy.shapes import rotation

SPACING = 1.1  # mm of the stored fields
REACH = 125.0  # mm of a shaft that are kept
NEAR = 75.0  # mm from the joint's center: what decides how a joint is laid onto the model
JOINT_SPACE = 3.0  # mm between bones that were laid apart, as in an adult
AWAY = {  # (bone laid first, bone of a later group): which way the second lies
    ("femur", "tibia"): (0, 0, -1),
    ("femur", "patella"): (0, 1, 0),
    ("scapula", "humerus"): (1, 0, 0),
    ("talus", "tibia"): (0, 0, 1),
}
FEWEST_TO_SPLIT = 6
UNSEEN_PEOPLE = ("LLP_s18", "LLP_s22", "LLP_s25", "LLP_s23")  # to make it a third; s23 has the patella of s09
UNSEEN_SOURCES = ("bodyparts3d_severus",)  # its license is unclear: an unseen person in tests, never trained on
LICENCES = {  # folder → license, credit line
    "lenz_talocrural_CC0": ("CC0 1.0", "Lenz Lab, University of Utah, TalocruralShapeModeling"),
    "lenz_JMA_CC0": ("CC0 1.0", "Lenz Lab, University of Utah, JMA"),
    "map_LLP26_MPL2": ("MPL-2.0", "Musculoskeletal Atlas Project, Auckland Bioengineering Institute (LLP26)"),
    "vhf_vhm_denver_CCBY": (
        "CC BY 4.0",
        "Andreassen TE, Hume DR, Hamilton LD, Walker KE, Higinbotham SE, Shelburne KB. Three-dimensional lower "
        "extremity musculoskeletal geometry of the Visible Human Female and Male. Scientific Data 2022, "
        "doi:10.56902/COB.vh.2022.0",
    ),
    "imago_lowerleg_Apache": ("Apache-2.0", "COMODO-research (Kevin M. Moerman), Imago.jl"),
    "unibas_femur_Apache": ("Apache-2.0", "GRAVIS group, University of Basel"),
    "totalseg_s0327_shoulder_CCBY": (
        "CC BY 4.0",
        "Wasserthal et al., TotalSegmentator dataset v2, Radiology: Artificial Intelligence 2023",
    ),
    "bodyparts3d_severus": ("CC BY 4.0", "BodyParts3D, The Database Center for Life Science"),
    "opensim": (
        "CC BY 3.0",
        "OpenSim models: Delp, Loan, Hoy, Zajac, Topp, Rosen, Thelen, Anderson, Seth; upper limb: Holzbaur",
    ),
    "pymskt": ("MIT", "gattia/pymskt"),
}


@dataclass(frozen=True)
class Shape:
    """A bone's file below the folder of shapes: a mesh, the surface of rank `piece` in one, or a label of an image."""

    file: str
    piece: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class Subject:
    """Bones of one joint of one person. `axes`: the file's axes that point laterally, forward and up ("x -y z")."""

    name: str  # of the person's file
    person: str  # for the split: the same for both sides
    source: str
    joint: str
    axes: str
    bones: dict[str, Shape]
    groups: tuple[tuple[str, ...], ...] = ()  # bones that keep their places to each other; (): all of them do
    unit: float = 1.0  # mm
    age: float | None = None  # years; None: an adult


def subjects(shapes: Path, atlas: Path | None = None) -> list[Subject]:
    """All of the folders that are there."""
    found: list[Subject] = []
    for file in sorted((shapes / "lenz_talocrural_CC0/meshes").glob("*_talus.vtp")):
        name = file.stem.removesuffix("_talus")
        side, number = name.split("_")[1:]
        bones = {b: Shape(f"lenz_talocrural_CC0/meshes/{name}_{b}.vtp") for b in ("tibia", "fibula", "talus")}
        axes = "x -y z" if side == "L" else "-x -y z"
        found.append(Subject(name, f"KSBL_{number}", "lenz_talocrural_CC0", "ankle", axes, bones))
    for file in sorted((shapes / "lenz_JMA_CC0").glob("*_Calcaneus_*.vtp")):
        name, side = file.stem.split("_Calcaneus_")
        group, number = name.split("_")
        bones = {"calcaneus": Shape(f"lenz_JMA_CC0/{file.name}")}
        talus = f"lenz_JMA_CC0/{name}_Talus.vtp"
        if group != "TAR" and (shapes / talus).exists():  # a replaced ankle's talus may have been cut
            bones["talus"] = Shape(talus)
        axes = "x -y z" if side == "Left" else "-x -y z"
        person = f"JMA_{group.removeprefix('Non')}_{number}"
        found.append(Subject(f"JMA_{name}", person, "lenz_JMA_CC0", "ankle", axes, bones))
    for file in sorted((shapes / "map_LLP26_MPL2/meshes").glob("*_femur.vtp")):
        name = file.stem.removesuffix("_femur")
        both = f"map_LLP26_MPL2/meshes/{name}_tibiafibula.vtp"
        bones = {
            "femur": Shape(f"map_LLP26_MPL2/meshes/{name}_femur.vtp"),
            "patella": Shape(f"map_LLP26_MPL2/meshes/{name}_patella.vtp"),
            "tibia": Shape(both, piece=0),
            "fibula": Shape(both, piece=1),
        }
        groups = (("femur",), ("tibia", "fibula"), ("patella",))  # the femur's lowest point lies below the plateau
        found.append(Subject(f"LLP_{name}", f"LLP_{name}", "map_LLP26_MPL2", "knee", "x -y z", bones, groups))
    vhf = {bone: Shape(f"imago_lowerleg_Apache/VHF_right_{bone}.obj") for bone in JOINTS["knee"].BONES}
    found.append(Subject("VHF", "VHF", "imago_lowerleg_Apache", "knee", "y -x z", vhf))
    shank = {"tibia": "Tibia", "fibula": "Fibula"}  # the feet hang down
    foot = {"talus": "Talus", "calcaneus": "Calcaneous", "navicular": "Navicular", "cuboid": "Cuboid"}
    foot |= {f"{which.lower()} cuneiform": f"{which}Cuneiform" for which in ("Medial", "Lateral")}
    foot |= {"middle cuneiform": "IntermediateCuneiform"}
    bones = {b: Shape(f"vhf_vhm_denver_CCBY/VHF_Right_Bone_{file}.vtp") for b, file in (foot | shank).items()}
    groups = (tuple(foot), tuple(shank))
    found.append(Subject("VHF", "VHF", "vhf_vhm_denver_CCBY", "ankle", "x y z", bones, groups))
    for name, file in (("UNIBAS_A", "femur_reference"), ("UNIBAS_B", "gingr_femur_target")):
        femur = {"femur": Shape(f"unibas_femur_Apache/{file}.stl")}
        found.append(Subject(name, name, "unibas_femur_Apache", "knee", "x -y -z", femur))
    totalseg = "totalseg_s0327_shoulder_CCBY/s0327_labels.nii.gz"
    for side, axes, labels in (("L", "x -y z", {"scapula": 1}), ("R", "-x -y z", {"scapula": 2, "humerus": 4})):
        bones = {
            bone: Shape(totalseg, label=label) for bone, label in labels.items()
        }  # the left humerus is cut in half
        source = "totalseg_s0327_shoulder_CCBY"
        found.append(
            Subject(f"S0327_{side}", "S0327", source, "shoulder", axes, bones, tuple((bone,) for bone in bones))
        )
    fma = {"femur": 24474, "tibia": 24477, "fibula": 24480, "patella": 24486}
    for joint, wanted in (("knee", fma), ("shoulder", {"humerus": 23130})):
        bones = {bone: Shape(f"bodyparts3d_severus/FMA{number}.stl") for bone, number in wanted.items()}
        found.append(Subject("BP3D", "BP3D", "bodyparts3d_severus", joint, "-x -y z", bones))
    if atlas:  # of the meshes the scapula alone: the others have 72 points
        scapula = {"scapula": Shape(str(atlas / "scapula_rv.vtp"))}
        found.append(Subject("OPENSIM", "OPENSIM", "opensim", "shoulder", "z x y", scapula, unit=1000.0))
        labels = {"femur": 5, "tibia": 6, "fibula": 8, "patella": 7}
        knee = {bone: Shape(str(atlas / "knee_adult_dess_labels.nrrd"), label=label) for bone, label in labels.items()}
        groups = (("femur",), ("tibia", "fibula"), ("patella",))
        found.append(Subject("PYMSKT", "PYMSKT", "pymskt", "knee", "-x -y z", knee, groups))
    return [one for one in found if all((shapes / shape.file).exists() for shape in one.bones.values())]


def is_unseen(subject: Subject, everybody: list[Subject]) -> bool:
    """Whether nobody's training may see this person."""
    if subject.source in UNSEEN_SOURCES or subject.person in UNSEEN_PEOPLE:
        return True
    if len({other.person for other in everybody if other.source == subject.source}) < FEWEST_TO_SPLIT:
        return False
    return int(hashlib.sha256(subject.person.encode()).hexdigest(), 16) % 3 == 0


# ---- from files to fields ----


def convert(subject: Subject, shapes: Path) -> tuple[dict[str, Field], dict[str, float]]:
    """Fields of the subject's bones in the model's local millimeters, and each bone's size against the model's."""
    torch.set_num_threads(1)
    meshes = {bone: _read(shapes, shape, subject) for bone, shape in subject.bones.items()}
    models = {bone.name: bone for bone in JOINTS[subject.joint].build(average_parameters(subject.joint)).bones}
    fields, scale = {}, None
    for group in subject.groups or (tuple(meshes),):
        scale, turn, shift = lay_onto({bone: meshes[bone][0] for bone in group}, models, subject.joint, scale)
        placed = {bone: scale * meshes[bone][0] @ turn.T + shift for bone in group}
        placed = _spaced(placed, fields, models)
        fields |= {bone: _field(points, *meshes[bone][1:], models[bone]) for bone, points in placed.items()}
    return fields, dict.fromkeys(fields, round(1 / scale, 4))


def _spaced(placed: dict[str, np.ndarray], before: dict[str, Field], models: dict[str, Bone]) -> dict[str, np.ndarray]:
    """A group of bones, moved until the space between it and a bone laid before is JOINT_SPACE wide."""
    pairs = [(first, second) for first, second in AWAY if first in before and second in placed]
    if not pairs:
        return placed
    first, second = pairs[0]
    way, field, model = np.array(AWAY[first, second], float), before[first], models[first]

    def space(move: float) -> float:
        p = torch.from_numpy(placed[second] + move * way).float().T[:, :, None, None]
        return float(field(model.frame.local(p)).min())

    move = next((move for move in np.arange(-12, 12.1, 0.25) if space(move) >= JOINT_SPACE), 0.0)
    return {bone: points + move * way for bone, points in placed.items()}


def _read(shapes: Path, shape: Shape, subject: Subject) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool]]:
    """Points (lateral, forward, up; mm), triangles, and whether the bone was cut off flat at its lower, upper end."""
    path = shapes / shape.file
    if shape.label is None:
        points, cells = read_mesh(path, shape.piece)
    else:
        points, cells = _surface(path, shape.label)
    points = points * subject.unit
    words = subject.axes.split()
    order = ["xyz".index(word[-1]) for word in words]
    signs = np.array([-1.0 if word.startswith("-") else 1.0 for word in words])
    points = points[:, order] * signs
    heights = points[:, 2]
    span = np.ptp(heights)
    ends = tuple(_is_flat(points, end, span) for end in (heights.min(), heights.max()))
    return points, cells, ends


def _is_flat(points: np.ndarray, end: float, span: float) -> bool:
    """A bone that was cut across has a whole ring of points at one height."""
    near = np.abs(points[:, 2] - end) < 0.6
    rest = points[np.abs(points[:, 2] - end) < 0.1 * span]
    return bool(near.sum() > 12 and (np.ptp(points[near][:, :2], axis=0) > 0.75 * np.ptp(rest[:, :2], axis=0)).all())


def _surface(path: Path, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The surface of a label's largest part, in the image's world (left, posterior, up)."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    mask = np.pad(sitk.GetArrayFromImage(image).T == label, 3)
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
    grid, contour = vtk.vtkImageData(), vtk.vtkFlyingEdges3D()
    grid.SetDimensions(mask.shape)
    grid.GetPointData().SetScalars(numpy_to_vtk(smooth.ravel(order="F"), deep=True))
    contour.SetInputData(grid)
    contour.SetValue(0, 0.5)
    contour.Update()
    mesh = contour.GetOutput()
    voxels = vtk_to_numpy(mesh.GetPoints().GetData()).astype(float) - 3
    cells = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    turn = np.array(image.GetDirection()).reshape(3, 3)
    return np.array(image.GetOrigin()) + (voxels * image.GetSpacing()) @ turn.T, cells


def lay_onto(
    points: dict[str, np.ndarray], models: dict[str, Bone], joint: str, scale: float | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """(scale, turn, shift) that lay a joint's bones onto the modeled adult's: model = scale · turn · point + shift.

    The scale is the bones' extents against the model's near the joint, the rest the least distance of the bones'
    surfaces to the model's. A given `scale` is kept.
    """
    given = scale
    anchor = next(bone for bone in (JOINTS[joint].ANCHOR[0], *points) if bone in points)
    low, high = _near_extent(models[anchor], joint, anchor)
    chosen = _joint_end(points[anchor], high[2] - low[2], joint, anchor)
    scale = given or _ratio(chosen, low, high)
    shift = (low + high) / 2 - scale * (chosen.min(0) + chosen.max(0)) / 2
    turn = np.eye(3)
    for _ in range(3):
        samples = []
        for bone, p in points.items():
            there = scale * p @ turn.T + shift
            near = np.abs(there - (low + high) / 2).max(axis=1) < NEAR
            step = max(1, int(near.sum()) // 500)
            if near.any():
                samples.append((models[bone], p[near][::step]))
        turn, shift = _least(samples, scale, turn, shift)
        turned = points[anchor] @ turn.T
        chosen = _joint_end(turned, (high[2] - low[2]) / scale, joint, anchor)
        again = given or _ratio(chosen, low, high)
        shift = shift + (scale - again) * (chosen.min(0) + chosen.max(0)) / 2
        scale = again
    return scale, turn, shift


def _near_extent(bone: Bone, joint: str, anchor: str) -> tuple[np.ndarray, np.ndarray]:
    """The modeled bone's box; of a long bone the 60 mm next to the joint."""
    low, high = modelled_extent(joint, anchor)
    if anchor in LONG:
        if bone.high[2] > -bone.low[2]:
            high = np.array([high[0], high[1], low[2] + 60.0])
        else:
            low = np.array([low[0], low[1], high[2] - 60.0])
    return low, high


def _joint_end(points: np.ndarray, height: float, joint: str, anchor: str) -> np.ndarray:
    if anchor not in LONG:
        return points
    if joint == "knee" and anchor == "femur" or joint == "ankle":
        return points[points[:, 2] < points[:, 2].min() + height]
    return points[points[:, 2] > points[:, 2].max() - height]


def _ratio(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    extent = np.ptp(points, axis=0)
    return float(np.exp(np.mean(np.log((high - low)[:2] / extent[:2]))))


def _least(samples, scale: float, turn: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn and shift of the least robust distance between surfaces, from where they are."""

    def misfit(x: np.ndarray) -> np.ndarray:
        now = rotation(*x[:3]) @ turn
        parts = []
        for model, p in samples:
            there = torch.from_numpy(scale * p @ now.T + shift + x[3:]).float().T
            parts.append(model.shape(model.frame.local(there[:, :, None, None])).surface.flatten().numpy())
        return np.concatenate(parts).clip(-15, 15)

    x = least_squares(misfit, np.zeros(6), loss="soft_l1", f_scale=2.0, diff_step=1e-2, x_scale=[5, 5, 5, 2, 2, 2]).x
    return rotation(*x[:3]) @ turn, shift + x[3:]


def _field(points: np.ndarray, cells: np.ndarray, flat: tuple[bool, bool], model: Bone) -> Field:
    """The bone in the model's frame, sampled at half of SPACING first."""
    local = (points - model.frame.origin) @ np.linalg.inv(model.frame.rotation * model.frame.scale).T
    low, high, cut = local.min(0), local.max(0), [False, False]
    if model.name in LONG:  # the far end of the shaft is not the joint's business
        down, up = -model.low[2] > model.high[2], model.high[2] > -model.low[2]
        if up and (high[2] > REACH or flat[1]):
            high[2], cut[1] = min(REACH, high[2] - 5), True
        if down and (low[2] < -REACH or flat[0]):
            low[2], cut[0] = max(-REACH, low[2] + 5), True
        within = local[(local[:, 2] > low[2] - 3) & (local[:, 2] < high[2] + 3)]
        low[:2], high[:2] = within.min(0)[:2], within.max(0)[:2]
    fine = SPACING / 2
    start, stop = low - 7 * np.array([1, 1, not cut[0]]), high + 7 * np.array([1, 1, not cut[1]])
    size = 2 * (np.ceil((stop - start) / SPACING).astype(int) + 1)
    field = Field.from_mask(_inside(local, cells, start, fine, size), start, (fine,) * 3, tuple(cut), smooth_mm=0.6)
    distance = torch.nn.functional.avg_pool3d(field.distance[None, None], 2)[0, 0]
    return Field(distance, start + fine / 2, np.full(3, SPACING), tuple(cut))


def _inside(points: np.ndarray, cells: np.ndarray, start: np.ndarray, step: float, size: np.ndarray) -> np.ndarray:
    """Voxels inside a closed mesh."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    mesh, where, faces = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    where.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    rows = np.concatenate([np.full((len(cells), 1), 3), cells], 1).astype(np.int64)
    faces.ImportLegacyFormat(numpy_to_vtkIdTypeArray(rows.ravel(), deep=True))
    mesh.SetPoints(where)
    mesh.SetPolys(faces)
    filled, stencil = vtk.vtkPolyDataToImageStencil(), vtk.vtkImageStencilToImage()
    filled.SetInputData(mesh)
    filled.SetOutputOrigin(*start)
    filled.SetOutputSpacing(step, step, step)
    filled.SetOutputWholeExtent(0, int(size[0]) - 1, 0, int(size[1]) - 1, 0, int(size[2]) - 1)
    stencil.SetInputConnection(filled.GetOutputPort())
    stencil.SetOutputScalarTypeToUnsignedChar()
    stencil.SetInsideValue(1)
    stencil.Update()
    return vtk_to_numpy(stencil.GetOutput().GetPointData().GetScalars()).reshape(tuple(size), order="F") > 0


# ---- the command ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--atlas", type=Path, help="a folder of meshes with a poses.json, and a knee's label map")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    everybody = subjects(args.shapes, args.atlas)
    if not everybody:
        raise BadInput(f"{args.shapes} holds none of the folders that can be converted", "see docs/synthesis.md")
    args.out.mkdir(parents=True, exist_ok=True)
    people: dict[str, list[Subject]] = defaultdict(list)
    for subject in everybody:
        if not (args.out / f"{subject.name}.npz").exists():  # what an interrupted run has made is kept
            people[subject.name].append(subject)
    with ProcessPoolExecutor(args.jobs) as pool:
        results = pool.map(partial(convert, shapes=args.shapes), [s for group in people.values() for s in group])
        for name, group in people.items():
            shapes, bones = {}, {}
            for subject in group:
                fields, sizes = next(results)
                shapes |= {f"{subject.joint}.{bone}": field for bone, field in fields.items()}
                bones |= {f"{subject.joint}.{bone}": {"size": size} for bone, size in sizes.items()}
            _write(
                args.out,
                name,
                group[0].person,
                [s.source for s in group],
                is_unseen(group[0], everybody),
                bones,
                shapes,
            )
    print(f"{sum(path.stat().st_size for path in args.out.glob('*.npz')) / 2**20:.1f} MiB")


def _write(out: Path, name: str, person: str, sources: list[str], unseen: bool, bones: dict, shapes: dict) -> None:
    about = {
        "person": person,
        "sources": sources,
        "licences": [LICENCES[source] for source in sources],
        "unseen": unseen,
        "age": None,
        "bones": bones,
    }
    write_person(out / f"{name}.npz", about, shapes)
    print(f"{name}: {', '.join(bones)}{' (unseen)' if unseen else ''}", flush=True)


if __name__ == "__main__":
    main()
