"""File names: which endings are read and written, and every refusal of an output that is known before work starts."""

import os
from pathlib import Path

from ..errors import BadInput

INPUT_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")
OUTPUT_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd")
MAP_SUFFIXES = tuple(suffix for suffix in OUTPUT_SUFFIXES if suffix != ".seg.nrrd")
OUTPUT_TAG = "_bones"  # what a default output's name has after the input's


def split_name(path: str | Path) -> tuple[str, str]:
    """("knee", ".nii.gz") for "/data/knee.nii.gz": the name without its format's ending, and that ending in lower
    case, which is empty where it is none of ours."""
    name = Path(path).name
    suffix = max((suffix for suffix in INPUT_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)], suffix


def check_output(
    path: str | Path,
    source: str | Path | None = None,
    overwrite: bool = False,
    suffixes: tuple[str, ...] = OUTPUT_SUFFIXES,
) -> None:
    """Raises BadInput where `path` cannot become the result made from `source`; nothing is created."""
    path = Path(path)
    if split_name(path)[1] not in suffixes:
        raise BadInput(f"{path}: the ending is none that can be written", "use one of " + ", ".join(suffixes))
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise BadInput(f"{path} is the input itself", "give the output another name")
    check_folder(path.parent)
    if path.is_dir():
        raise BadInput(f"{path} is a folder", "give the output another name")
    if path.exists() and not overwrite:
        raise BadInput(f"{path} exists already", "give another name, or --overwrite")


def check_folder(folder: Path) -> None:
    """Raises BadInput unless files can be created in this folder."""
    if not folder.exists():
        raise BadInput(f"{folder}: there is no such folder", "create it, or write elsewhere with -o")
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file, not a folder", "write elsewhere with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"{folder} is not writable", "change its rights, or write elsewhere with -o")
