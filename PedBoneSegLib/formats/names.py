"""File names: which endings are read and written, and every refusal of an output that is known before work starts.

Importing this loads the standard library alone; the formats are loaded when a name is looked at.
"""

import os
from pathlib import Path

from ..errors import BadInput
from . import registry
from .opening import reason

SEGMENTATION_SUFFIX = ".seg.nrrd"  # the one ending whose files name their segments
OUTPUT_TAG = "_bones"  # what a default output's name has after the input's


def map_suffixes() -> tuple[str, ...]:
    """Endings of the files that can hold an 8-bit map."""
    return tuple(suffix for suffix in registry.written_suffixes() if suffix != SEGMENTATION_SUFFIX)


def split_name(path: str | Path) -> tuple[str, str]:
    """("knee", ".nii.gz") for "/data/knee.nii.gz": the name without its format's ending, and that ending in lower
    case, which is empty where it is none of ours."""
    name = Path(path).name
    endings = (suffix for suffix in registry.read_suffixes() if name.lower().endswith(suffix))
    suffix = max(endings, key=len, default="")
    return name[: len(name) - len(suffix)], suffix


def check_output(
    path: str | Path,
    source: str | Path | None = None,
    overwrite: bool = False,
    suffixes: tuple[str, ...] | None = None,
) -> None:
    """Raises BadInput where `path` cannot become the result made from `source`; nothing is created.

    `suffixes` are the endings that it may have, by default all that can be written.
    """
    path, suffixes = Path(path), suffixes or registry.written_suffixes()
    if split_name(path)[1] not in suffixes:
        raise BadInput(f"{path}: the ending is none that can be written", "use one of " + ", ".join(suffixes))
    try:
        if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
            raise BadInput(f"{path} is the input itself", "give the output another name")
        check_folder(path.parent)
        if path.is_dir():
            raise BadInput(f"{path} is a folder", "give the output another name")
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise BadInput(f"{path} exists already", "give another name, or --overwrite")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a regular file", "give the output another name")
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, links in a circle, a NUL
        raise BadInput(f"{path} cannot be written: {reason(error)}", "give the output another name") from error


def check_folder(folder: Path) -> None:
    """Raises BadInput unless files can be created in this folder."""
    if not folder.exists():
        raise BadInput(f"{folder}: there is no such folder", "create it, or write elsewhere with -o")
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file, not a folder", "write elsewhere with -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"{folder} is not writable", "change its rights, or write elsewhere with -o")


def ensure_folder(folder: Path) -> Path:
    """The folder, which is created if only its last part is missing. BadInput if files cannot be written into it."""
    if not folder.exists():
        check_folder(folder.absolute().parent)
        folder.mkdir(exist_ok=True)
    check_folder(folder)
    return folder
