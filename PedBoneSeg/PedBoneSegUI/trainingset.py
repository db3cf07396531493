"""A training set: an image and its corrected labels become a case of an nnU-Net v2 raw folder.

No name, date or path of the patient goes in: the case gets a pseudonym, and the files hold voxels and geometry alone.
"""

import json
import secrets
from collections.abc import Generator
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import write_text

from . import labelmaps, segmentations
from .volumes import gridOf, writingNifti

ENDING = ".nii.gz"


def addingCase(folder: Path, volume, segmentation, table: JointTable, unlabelled: list[str]) -> Generator:
    """The steps that write the case and enter it in dataset.json and reviews.json, to (pseudonym,).

    `unlabelled` names bones that are in view but not labeled; the loss leaves them out. Raises BadInput if they are
    not in the table, or if the folder belongs to another joint or lists other bones.
    """
    grid = gridOf(volume)
    labels = yield from labelmaps.merging(segmentation, table, volume)
    if not (labels.max() if labels.size else 0):
        raise BadInput(_("the segmentation holds none of the bones of the {joint}").format(joint=table.joint))
    if strangers := [name for name in unlabelled if name not in table.names]:
        raise BadInput(_("{names}: no bone of the {joint}").format(names=", ".join(strangers), joint=table.joint),
                       _("its bones are {names}").format(names=", ".join(table.names)))  # fmt: skip
    dataset = readDataset(folder, table)
    case = f"case_{secrets.token_hex(6)}"
    image, truth = folder / "imagesTr" / f"{case}_0000{ENDING}", folder / "labelsTr" / f"{case}{ENDING}"
    for path in (image, truth):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield from writingNifti(slicer.util.arrayFromVolume(volume), grid, image)
        # The data set may give the bones other values: labels go by name.
        values = np.array([0, *(dataset["labels"][bone.name] for bone in table.bones)], np.uint8)
        for slab in labelmaps.slabs(labels.shape, 2):
            labels[slab] = values[labels[slab]]
            yield
        yield from writingNifti(labels, grid, truth)
        note = yield from noting(segmentation, table, volume)
        enterCase(folder, dataset, case, segmentations.memoryOf(segmentation).get("side"), unlabelled, note)
    except BaseException:
        image.unlink(missing_ok=True)
        truth.unlink(missing_ok=True)
        raise
    return (case,)


def noting(segmentation, table: JointTable, volume) -> Generator:
    """What a person did to the labels: which slices were seen and corrected, counted from 0 across `axis`."""
    memory, axis = segmentations.memoryOf(segmentation), segmentations.axisOf(segmentation, volume)
    corrected = yield from labelmaps.findingEdits(segmentation, table, volume, axis)
    return {
        "made_with": memory.get("model") or "default", "axis": axis, "reviewed": bool(memory.get("reviewed")),
        "slices_seen": [memory["slices"][position]["index"] for position in memory.get("seen", [])],
        "slices_corrected": corrected,
    }  # fmt: skip


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
        labels, ending, channels = dict(dataset["labels"]), dataset["file_ending"], dataset.get("channel_names", "0")
        joint = (dataset.get("pedboneseg") or {}).get("joint", table.joint)
    except (ValueError, KeyError, TypeError):
        raise BadInput(_("{path} cannot be read").format(path=path.name), _("choose another folder")) from None
    if joint != table.joint:
        fault = _("this data set is for the {theirs}, the case shows the {ours}")
        raise BadInput(fault.format(theirs=joint, ours=table.joint), _("choose a folder of its own for every joint"))
    if missing := [bone for bone in table.names if bone not in labels]:
        fault = _("this data set has no label for {bones}").format(bones=", ".join(missing))
        raise BadInput(fault, _("choose a folder of its own for every joint"))
    if ending != ENDING or len(channels) != 1:
        raise BadInput(_("this data set is not of one channel in .nii.gz files"), _("choose another folder"))
    return dataset


def enterCase(folder: Path, dataset: dict, case: str, side: str | None, unlabelled: list[str], note: dict) -> None:
    ours = dataset.setdefault("pedboneseg", {})
    if side:
        ours.setdefault("sides", {})[case] = side
    if unlabelled:
        ours.setdefault("unlabelled", {})[case] = unlabelled
    reviews = folder / "reviews.json"
    notes = json.loads(reviews.read_text(encoding="utf-8")) if reviews.exists() else {}
    write_text(reviews, asJson({**notes, case: note}))
    dataset["numTraining"] = len(list((folder / "labelsTr").glob(f"*{ENDING}")))
    write_text(folder / "dataset.json", asJson(dataset))


def asJson(content: dict) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def trainingArguments(folder: Path, joint: str, model: str, known: list[str]) -> list[str]:
    """The arguments of `pedboneseg` that train a model of one's own on the folder: one more domain of `model`.

    `known` are the joints and domains that the model has; the new one gets a name that is not among them.
    """
    names = [joint, f"{joint}-own", *(f"{joint}-own{number}" for number in range(2, len(known) + 2))]
    name = next(name for name in names if name not in known)
    output = str(folder / f"{name}.safetensors")
    return ["adapt", "--model", model, "--joint", name, "--data", str(folder), "-o", output]
