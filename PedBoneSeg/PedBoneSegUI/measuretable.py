"""The worker's measurements as a table of the scene and of the panel."""

import slicer

from . import segmentations


def rowsOf(answer: dict) -> tuple[list[str], list[list]]:
    """Columns and rows out of the answer of `measure`: a row a bone, a list becomes a column an entry.

    Units are in the columns' names, as the worker gives them (`volume_ml`, `surface_cm2`, `extent_mm 1` …).
    """
    columns: list[str] = []
    bones = answer.get("bones") or {}
    flat = {name: dict(_flatten(values)) for name, values in bones.items()}
    for values in flat.values():
        columns += [column for column in values if column not in columns]
    rows = [[name, *(values.get(column, "") for column in columns)] for name, values in flat.items()]
    return ["bone", *columns], rows


def _flatten(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key} ")
        elif isinstance(value, list):
            yield from _flatten({f"{key} {number}": entry for number, entry in enumerate(value, start=1)}, prefix)
        elif value is not None and not isinstance(value, bool):
            yield f"{prefix}{key}", value


def cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tabText(columns: list[str], rows: list[list], separator: str = "\t") -> str:
    """Text for a spreadsheet; numbers in full, with a point."""
    lines = [columns, *([str(value) for value in row] for row in rows)]
    quoted = [[f'"{text}"' if separator in text else text for text in line] for line in lines]
    return "\n".join(separator.join(line) for line in quoted) + "\n"


def toNode(segmentation, columns: list[str], rows: list[list]):
    """The table node that belongs to the segmentation, filled anew."""
    import vtk

    role = "PedBoneSeg.Measures"
    node = segmentation.GetNodeReference(role)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{segmentation.GetName()} measures")
        segmentation.SetNodeReferenceID(role, node.GetID())
    table = vtk.vtkTable()
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows)
        column = vtk.vtkDoubleArray() if numeric else vtk.vtkStringArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(float(row[index]) if numeric else str(row[index]))
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    return node


def unknownSegments(segmentation, table) -> list[str]:
    """Names of segments that are no bones of the table: they are not measured, and the panel says so."""
    ours = {segmentations.segmentOfBone(segmentation, bone) for bone in table.bones}
    core = segmentation.GetSegmentation()
    return [core.GetSegment(one).GetName() for one in segmentations.segmentIds(segmentation) if one not in ours]
