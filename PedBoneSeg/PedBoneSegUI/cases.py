"""Add to training set: an image and its corrected labels become a case of an nnU-Net v2 raw folder.

No name, date or path of the patient goes in: the case gets a pseudonym, and the files hold voxels and geometry alone.
"""

import json
import secrets
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file

from . import segmentations
from .images import Geometry

ENDING = ".nii.gz"


def addCase(
    folder: str | Path, volume, segmentation, table: JointTable, side: str | None, unlabelled: list[str], review: dict
) -> str:
    """Writes the case and enters it in dataset.json and reviews.json; returns its pseudonym.

    `unlabelled` names bones that are in view but not labelled; they are left out of the loss. Raises BadInput if the
    folder belongs to another joint or lists other bones.
    """
    folder = Path(folder)
    labels = segmentations.mergedLabels(segmentation, table, volume)
    if not labels.any():
        raise BadInput(_("the segmentation holds none of the bones of the {joint}").format(joint=table.joint))
    dataset = readDataset(folder, table)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    case = newCase(folder)
    geometry = Geometry.ofVolume(volume)
    writeNifti(folder / "imagesTr" / f"{case}_0000{ENDING}", slicer.util.arrayFromVolume(volume), geometry)
    try:
        # A volume of the user's own file list may carry values per bone in another order: labels go by name.
        values = np.zeros(256, np.uint8)
        for bone in table.bones:
            values[bone.label] = dataset["labels"][bone.name]
        writeNifti(folder / "labelsTr" / f"{case}{ENDING}", values[labels], geometry)
        enterCase(folder, dataset, case, side, unlabelled, review)
    except BaseException:
        (folder / "imagesTr" / f"{case}_0000{ENDING}").unlink(missing_ok=True)
        (folder / "labelsTr" / f"{case}{ENDING}").unlink(missing_ok=True)
        raise
    return case


def newCase(folder: Path) -> str:
    while True:
        case = f"case_{secrets.token_hex(4)}"
        if not (folder / "labelsTr" / f"{case}{ENDING}").exists():
            return case


def readDataset(folder: Path, table: JointTable) -> dict:
    """The folder's dataset.json, or a new one for this joint; BadInput if cases of this joint do not belong there."""
    path = folder / "dataset.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise BadInput(
                _("{folder} is not empty and holds no dataset.json").format(folder=folder.name),
                _("choose an empty folder or a data set"),
            )
        return {
            "channel_names": {"0": "MR"}, "labels": {"background": 0, **table.labels}, "numTraining": 0,
            "file_ending": ENDING, "pedboneseg": {"joint": table.joint, "sides": {}, "unlabelled": {}},
        }  # fmt: skip
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
        labels, ending = dict(dataset["labels"]), dataset["file_ending"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(_("{path} cannot be read").format(path=path.name), _("choose another folder")) from None
    joint = (dataset.get("pedboneseg") or {}).get("joint", table.joint)
    missing = [bone for bone in table.names if bone not in labels]
    if joint != table.joint or missing:
        raise BadInput(
            _("this data set is for the {theirs}, the case shows the {ours}").format(theirs=joint, ours=table.joint)
            if joint != table.joint
            else _("this data set has no label for {bones}").format(bones=", ".join(missing)),
            _("choose a folder of its own for every joint"),
        )
    if ending != ENDING or len(dataset.get("channel_names", {"0": ""})) != 1:
        raise BadInput(_("this data set is not of one channel in .nii.gz files"), _("choose another folder"))
    return dataset


def enterCase(folder: Path, dataset: dict, case: str, side: str | None, unlabelled: list[str], review: dict) -> None:
    ours = dataset.setdefault("pedboneseg", {})
    if side:
        ours.setdefault("sides", {})[case] = side
    if unlabelled:
        ours.setdefault("unlabelled", {})[case] = unlabelled
    reviews = folder / "reviews.json"
    notes = json.loads(reviews.read_text(encoding="utf-8")) if reviews.exists() else {}
    writeJson(reviews, {**notes, case: review})
    dataset["numTraining"] = len(list((folder / "labelsTr").glob(f"*{ENDING}")))
    writeJson(folder / "dataset.json", dataset)


def writeJson(path: Path, content: dict) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def writeNifti(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Voxels [k, j, i] and geometry, nothing else. SimpleITK is a part of Slicer."""
    import SimpleITK

    lps = np.diag([-1.0, -1.0, 1.0]) @ np.array(geometry.matrix)[:3]
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in geometry.spacing])
    image.SetOrigin([float(value) for value in lps[:, 3]])
    image.SetDirection([float(value) for value in (lps[:, :3] / geometry.spacing).ravel()])
    with whole_file(path) as temporary:
        SimpleITK.WriteImage(image, str(temporary), useCompression=True)


def trainingArguments(folder: Path, table: JointTable, known: bool, model: str) -> list[str]:
    """The arguments of `pedboneseg` that make a model of one's own out of the folder: a new domain of a known model."""
    name = table.joint if not known else f"{table.joint}-own"
    output = Path(folder) / f"{name}.safetensors"
    model = ["--model", model] if model else []
    return ["adapt", *model, "--joint", name, "--data", str(folder), "-o", str(output)]
