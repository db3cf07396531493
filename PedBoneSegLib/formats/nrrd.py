"""NRRD headers, attached (.nrrd) and detached (.nhdr)."""

from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Grid
from .header import Header, padded_grid, refuse_channels, refuse_color, refuse_type, text_lines

_CODECS = {"raw": "raw", "gzip": "deflate", "gz": "deflate", "bzip2": "bzip2", "bz2": "bzip2"}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_SIGNS = {  # what brings x and y to LPS
    "left-posterior-superior": (1, 1),
    "lps": (1, 1),
    "right-anterior-superior": (-1, -1),
    "ras": (-1, -1),
    "left-anterior-superior": (1, -1),
    "las": (1, -1),
}
_FRAME_KINDS = {"list", "time", "stub", "none", "???"}


def parse(path: Path) -> Header:
    lines, start = text_lines(path, b"NRRD000")
    pairs, keys = {}, {}
    for line in lines[1:]:
        if line.startswith("#"):
            continue
        key, _, value = line.partition(":")
        if value.startswith("="):
            keys[key] = value[1:]
        else:
            pairs[key.strip().lower().replace(" ", "")] = value.strip()
    sizes = [int(size) for size in pairs["sizes"].split()]
    kinds = pairs.get("kinds", "").lower().split() or [""] * len(sizes)
    vectors = _vectors(pairs, len(sizes), kinds)
    if not len(sizes) == len(kinds) == len(vectors) == int(pairs["dimension"]):
        raise ValueError("its fields differ in the number of axes")
    spatial = [axis for axis, vector in enumerate(vectors) if vector is not None]
    others = [axis for axis in range(len(sizes)) if axis not in spatial[:3]]
    for axis in others:
        if "color" in kinds[axis]:
            refuse_color(path)
        if axis not in spatial and sizes[axis] != 1 and kinds[axis] not in _FRAME_KINDS | {""}:
            refuse_channels(path, sizes[axis])
    frame_axes = [axis for axis in others if sizes[axis] != 1] or others[:1]
    if len(frame_axes) > 1 or len(spatial) < 2 or 0 < (frame_axes or [0])[0] < len(sizes) - 1:
        raise BadInput(f"{path.name} has axes of the kinds {kinds}, which is no volume", "export one plain 3-D volume")
    dtype = next((code for code, names in _TYPES.items() if pairs["type"].lower() in names), None)
    if dtype is None:
        refuse_type(path, f"NRRD type {pairs['type']!r}")
    codec = _CODECS.get(pairs["encoding"].lower())
    data = pairs.get("datafile")
    if start is None and not data:
        raise ValueError("it does not end")
    if codec is None or (data and data.startswith("LIST")) or (data and "%" in data) or int(pairs.get("lineskip", 0)):
        raise BadInput(f"{path.name} stores its voxels in an unusual way", "save it again as one NRRD file")
    skip = int(pairs.get("byteskip", 0))
    axes = spatial[:3]
    return Header(
        padded_grid([sizes[axis] for axis in axes], [vectors[axis] for axis in axes], *_space(pairs)),
        np.dtype((">" if pairs.get("endian", "little").lower() == "big" else "<") + dtype),
        path.parent / data if data else path,
        (0 if data else start) + (skip if codec == "raw" and skip > 0 else 0) if skip >= 0 else -1,
        codec,
        skip if codec != "raw" and skip > 0 else 0,
        sizes[frame_axes[0]] if frame_axes else 1,
        frame_axes == [0],
        fields=keys,
    )


def _vectors(pairs: dict[str, str], count: int, kinds: list[str]) -> list[list[float] | None]:
    """Each axis's step in the file's own space; None for an axis that is not in space."""
    if "spacedirections" in pairs:
        steps = pairs["spacedirections"].replace(" ", "").replace("none", "(none)").strip("()").split(")(")
        return [None if step == "none" else [float(part) for part in step.split(",")] for step in steps]
    spacings = [float(value) for value in pairs.get("spacings", " ".join(["1"] * count)).split()]
    vectors: list[list[float] | None] = []
    for kind, spacing in zip(kinds, spacings, strict=False):
        in_space = kind in ("domain", "space") or (not kind and sum(step is not None for step in vectors) < 3)
        place = sum(step is not None for step in vectors)
        step = [spacing if place == row else 0.0 for row in range(3)]
        vectors.append(step if in_space and place < 3 else None)
    return vectors


def _space(pairs: dict[str, str]) -> tuple[list[float], tuple[int, int]]:
    """The origin, and the signs that bring x and y to LPS; an unnamed space counts as LPS, as in ITK."""
    origin = pairs.get("spaceorigin", "(0,0,0)").replace(" ", "").strip("()").split(",")
    space = pairs.get("space", "lps").lower().removesuffix("-time")
    return [float(value) for value in origin], _SIGNS.get(space, (1, 1))


def encode(grid: Grid, components: int, keys: dict[str, str]) -> bytes:
    """A header for gzipped 8-bit voxels, components fastest, as ITK and Slicer write it."""
    many = components > 1
    steps = ["none"] * many + [_vector(step) for step in grid.affine[:3, :3].T]
    lines = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {3 + many}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, [components] * many + list(grid.size))),
        "space directions: " + " ".join(steps),
        "kinds: " + " ".join(["vector"] * many + ["domain"] * 3),
        "encoding: gzip",
        "space origin: " + _vector(grid.origin),
        *(f"{key}:={' '.join(value.splitlines())}" for key, value in keys.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _vector(numbers: np.ndarray | tuple[float, ...]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"
