"""The results as the contracts' documents: the JSON objects of the command line and the worker, and the CSV table.

This is the only place that gives results their form for other programs. Keys may be added, never changed.
"""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ..inference.result import Detection, SegmentationResult
    from ..models.manifest import Manifest
    from .columns import Measurements

Document: TypeAlias = dict[str, Any]


def segment_document(result: "SegmentationResult", output: str | os.PathLike[str] | None) -> Document:
    """The object of `segment`; `output` is the file with the labels. `review` is absent where there is none."""
    detection, volumes = result.detection, result.volumes_ml
    document: Document = {
        "output": None if output is None else str(output), "joint": result.joint, "domain": result.domain,
        "side": result.side, "device": result.device, "precision": result.precision,
        "seconds": round(result.seconds, 3),
        "bones": {name: {"label": label, "volume_ml": round(volumes[name], 4)}
                  for name, label in result.table.labels.items()},
        "detected_joint": detection.joint if detection else None,
        "verdict": detection.verdict if detection else None,
        "in_distribution": detection.in_distribution if detection else None,
        "score": detection.scores.get(result.domain) if detection else None,
        "scores": dict(detection.scores) if detection else {},
        "warnings": [asdict(notice) for notice in result.warnings],
        "exam_statistics": result.exam_statistics,
    }  # fmt: skip
    if result.review is not None:
        document["review"] = {"axis": result.review.axis, "slices": [vars(entry) for entry in result.review.slices]}
    return document


def detect_document(detection: "Detection") -> Document:
    """The object of `detect`: nulls where the model has no signatures."""
    return {
        "joint": detection.joint, "verdict": detection.verdict, "in_distribution": detection.in_distribution,
        "score": detection.score, "scores": dict(detection.scores),
    }  # fmt: skip


def measure_document(measurements: "Measurements") -> Document:
    """The object of `measure`; `surfaces` are there only if meshes were written."""
    bones = {name: {"label": bone.label, **bone} for name, bone in measurements.items()}
    document: Document = {"joint": measurements.joint, "side": measurements.side, "bones": bones}
    if measurements.surfaces is not None:
        document["surfaces"] = {bone: str(path) for bone, path in measurements.surfaces.items()}
    return document


def measure_csv(bones: Mapping[str, Mapping[str, Any]]) -> str:
    """The `bones` of a `measure` object as a table with a row for each bone. A list takes a column for each entry:
    `extent_mm_1`, `extent_mm_2`, …; a bone that is not there has empty cells."""
    rows = [{"bone": name, **_cells(values)} for name, values in bones.items()]
    columns = list(max(rows, key=len, default={"bone": ""}))  # a bone that is not there has fewer
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def model_document(manifest: "Manifest") -> Document:
    """The object of `models show`."""
    joints = {
        card.name: {
            "joint": card.joint, "labels": dict(card.table.labels), "table": card.table.to_csv(),
            "signatures": (card.signature or {}).get("references", 0), "metrics": card.metrics,
        }
        for card in manifest.domains
    }  # fmt: skip
    return {
        "name": manifest.name, "version": manifest.version, "licence": manifest.licence, "card": manifest.card,
        "joints": joints, "precisions": list(manifest.precisions), "sha256": manifest.sha256,
    }  # fmt: skip


def _cells(values: Mapping[str, Any]) -> Document:
    cells: Document = {}
    for key, value in values.items():
        if isinstance(value, list):
            cells |= _cells({f"{key}_{number}": entry for number, entry in enumerate(value, start=1)})
        elif value is not None:
            cells[key] = value
    return cells
