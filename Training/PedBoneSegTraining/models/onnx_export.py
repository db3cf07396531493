"""Writes a model's networks as ONNX, to be run without PyTorch. `export --onnx FOLDER` does it after the model itself.

    FOLDER/<domain>/model.onnx     images [slices, channels, rows, columns] → logits [slices, 1 + bones, rows, columns]
                                   in float32; any number of slices, rows and columns multiples of 32
    FOLDER/<domain>/metadata.json  what goes in and comes out, in the form of a MONAI bundle's metadata.json, and under
                                   "pedboneseg" how the slices are made

The network is folded and its temperature included, so the softmax of the logits is calibrated. It uses the domain's own
normalization statistics: an ONNX file cannot take those of an exam, which the metadata says where the model wants them.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib import __version__
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file, write_text
from PedBoneSegLib.inference.resampling import SHAPE_MULTIPLE
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest

OPSET = 17


def check_onnx_folder(folder: Path) -> None:
    """Before the work: BadInput if the folder holds something, or if the package onnx is not installed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder", "name a new folder for --onnx")
    try:
        import onnx  # noqa: F401  torch writes with it
    except ImportError:
        raise BadInput("--onnx needs the package onnx, which is not installed", "pip install onnx") from None


def write_onnx(bundle: Bundle, folder: Path) -> list[Path]:
    """Writes every domain; returns the .onnx files."""
    written = []
    for card in bundle.manifest.domains:
        path = folder / card.name / "model.onnx"
        path.parent.mkdir(parents=True)
        images = torch.zeros(1, bundle.manifest.network.in_channels, 4 * SHAPE_MULTIPLE, 4 * SHAPE_MULTIPLE)
        axes = {0: "slices", 2: "rows", 3: "columns"}
        with whole_file(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this exporter is the older one; the newer needs a further package
            torch.onnx.export(
                bundle.folded(card.name),
                (images,),
                str(temporary),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": axes, "logits": axes},
            )
        write_text(path.with_name("metadata.json"), json.dumps(metadata(bundle.manifest, card), indent=2) + "\n")
        written.append(path)
    return written


def metadata(manifest: Manifest, card: DomainCard) -> dict:
    """The content of metadata.json."""
    multiple = f"{SHAPE_MULTIPLE}*n"
    bones = {str(value): name for name, value in card.table.labels.items()}
    entry = {"type": "image", "format": "magnitude", "modality": "MR", "spatial_shape": [multiple, multiple],
             "dtype": "float32", "is_patch_data": False}  # fmt: skip
    channels = {str(channel): f"slice {channel - manifest.network.in_channels // 2:+d}"
                for channel in range(manifest.network.in_channels)}  # fmt: skip
    logits = {"0": "background"} | {str(i): name for i, name in enumerate(card.table.names, start=1)}
    statistics = "the domain's normalization statistics"
    if card.exam_statistics:
        statistics += f"; PedBoneSeg itself mixes in {card.exam_statistics:g} of the exam's own, so its labels differ"
    return {
        "version": manifest.version,
        "changelog": {},
        "monai_version": "1.4.0",
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": f"{manifest.name}, {card.name}",
        "task": f"segmentation of the bones of the {card.joint}",
        "description": "Segments bones in MR images of children, slice by slice. Research software: not a medical "
        "device, not for clinical decisions.",
        "authors": "see the model card",
        "copyright": manifest.licence,
        "data_type": "MR volumes, as normalized slices",
        "network_data_format": {
            "inputs": {"image": {**entry, "num_channels": manifest.network.in_channels, "value_range": [],
                                 "channel_def": channels}},
            "outputs": {"pred": {**entry, "format": "logits", "num_channels": len(logits), "value_range": [],
                                 "channel_def": logits}},
        },
        "pedboneseg": {
            "software": __version__,
            "model": manifest.name,
            "domain": card.name,
            "joint": card.joint,
            "labels": bones,
            "slices": card.settings,
            "intensities": "clipped to robust percentiles, then the body's mean and standard deviation become 0 and 1 "
            "(PedBoneSegLib.inference.slices.SliceStack makes the slices)",
            "temperature": "included",
            "normalization": statistics,
        },
    }  # fmt: skip
