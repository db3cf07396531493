"""The clean-up in 3-D, since the network sees single slices only: which pieces belong to a bone.

Voxels belong to one piece if they touch through faces. The largest piece of a bone is its main body. Every other piece

1. goes to another bone, if it touches that bone's main body most and over at least TOUCHING of its own surface;
2. is kept, if it has at least MIN_PIECE_ML and is within NEAR_MM of the main body: an unfused epiphysis is not noise;
3. is kept with the warning `two-sides`, if it is far away but has at least SIMILAR_SIZE times the main body's volume:
   the user has to decide which one is meant;
4. is dropped otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, spatial

from ..volume import Notice

MIN_PIECE_ML = 0.1  # a ball of 6 mm
NEAR_MM = 15.0
SIMILAR_SIZE = 0.4  # of the main body's volume
TOUCHING = 0.25  # share of a piece's surface
_CHUNK = 1 << 21  # voxels looked at together
_POINTS = 100_000  # of a main body that distances are measured to


@dataclass
class _LoosePieces:
    """All pieces of one bone but its main body, taken out of the label map."""

    label: int
    main_ml: float
    main_points_mm: np.ndarray  # [n, 3]: voxels spread over the main body
    voxels: np.ndarray  # flat indices of the pieces' voxels, ascending
    piece_of_voxel: np.ndarray  # for each voxel, which piece it belongs to (0, 1, …)
    piece_ml: np.ndarray  # volume of each piece


def clean(
    labels: np.ndarray, spacing: Sequence[float], names: Sequence[str], check: Callable[[], None] = lambda: None
) -> list[Notice]:
    """Cleans the uint8 label map [i, j, k] in place; `spacing` in mm along its axes, `names` of the labels 1, 2, ….

    The map must be contiguous in memory, in C or Fortran order. Work is done inside each bone's bounding box. `check`
    is called once a bone and may raise Cancelled. Returns what the user should know.
    """
    if not labels.flags.forc:
        raise ValueError("the label map is not contiguous")
    array = labels.T if labels.flags.f_contiguous else labels  # the same order as in memory, for speed
    mm = np.asarray(spacing[::-1] if labels.flags.f_contiguous else spacing, float)
    notices, taken = [], []
    boxes = ndimage.find_objects(array, max_label=len(names))
    for label, (name, box) in enumerate(zip(names, boxes, strict=True), start=1):
        check()
        if box is None:
            notices.append(Notice("missing", f"no {name} was found"))
        elif pieces := _take_pieces(array, label, box, mm):
            taken.append(pieces)
    surfaces = [_contacts(array, pieces, mm, len(names)) for pieces in taken]  # against main bodies alone
    for pieces, (contacts, surface) in zip(taken, surfaces, strict=True):
        check()
        kept, notice = _labels_of_pieces(array.shape, pieces, contacts, surface, mm, names)
        array.reshape(-1)[pieces.voxels] = kept[pieces.piece_of_voxel]
        notices += notice
    return notices


def _take_pieces(array: np.ndarray, label: int, box: tuple[slice, ...], mm: np.ndarray) -> _LoosePieces | None:
    """Removes from `array` all pieces but the largest (of equals, the first); None where there is only one."""
    view = array[box]
    mask = view == label
    parts, count = ndimage.label(mask)
    if count == 1:
        return None
    own = np.flatnonzero(mask)  # from here on only the bone's voxels, a small part of the box
    numbers = parts.reshape(-1)[own] - 1
    places = np.stack(np.unravel_index(own, mask.shape), axis=1)
    sizes = np.bincount(numbers)
    main = int(sizes.argmax())
    loose = numbers != main
    view[tuple(places[loose].T)] = 0
    places += [along.start for along in box]
    step = max(1, int(np.ceil((sizes[main] / _POINTS) ** (1 / 3))))
    body = places[~loose]
    spread = body[(body % step == 0).all(axis=1)]
    ml = sizes * np.prod(mm) / 1000
    return _LoosePieces(
        label, ml[main],
        (spread if len(spread) else body) * mm,  # no voxel is left where the bone is thinner than a step
        np.ravel_multi_index(tuple(places[loose].T), array.shape), numbers[loose] - (numbers[loose] > main),
        np.delete(ml, main),
    )  # fmt: skip


def _contacts(array: np.ndarray, pieces: _LoosePieces, mm: np.ndarray, bones: int) -> tuple[np.ndarray, np.ndarray]:
    """For each piece: the area in mm² over which it touches each label of `array` ([pieces, 1 + bones]), and its whole
    surface. Faces between two voxels of the same bone are inside a piece and are not counted."""
    count = len(pieces.piece_ml)
    contacts, surface = np.zeros(count * (bones + 1)), np.zeros(count)
    flat = array.reshape(-1)
    for start in range(0, len(pieces.voxels), _CHUNK):
        voxels, piece = pieces.voxels[start : start + _CHUNK], pieces.piece_of_voxel[start : start + _CHUNK]
        places = np.unravel_index(voxels, array.shape)
        for axis, size in enumerate(array.shape):
            area, stride = np.prod(mm) / mm[axis], int(np.prod(array.shape[axis + 1 :]))
            for sense, edge in ((-1, 0), (1, size - 1)):
                within = places[axis] != edge
                beside = voxels[within] + sense * stride
                at = np.searchsorted(pieces.voxels, beside)
                outer = pieces.voxels[np.minimum(at, len(pieces.voxels) - 1)] != beside
                keys = piece[within][outer] * (bones + 1) + flat[beside[outer]]
                contacts += np.bincount(keys, minlength=len(contacts)) * area
                surface += np.bincount(piece[within][outer], minlength=count) * area
                surface += np.bincount(piece[~within], minlength=count) * area
    return contacts.reshape(count, bones + 1), surface


def _labels_of_pieces(
    shape: tuple[int, ...],
    pieces: _LoosePieces,
    contacts: np.ndarray,
    surface: np.ndarray,
    mm: np.ndarray,
    names: Sequence[str],
) -> tuple[np.ndarray, list[Notice]]:
    """The label that each piece ends with (0: dropped), uint8, and the notices."""
    contacts[:, 0] = 0
    other = contacts.argmax(axis=1)
    kept = np.where(contacts.max(axis=1) >= TOUCHING * surface, other, 0).astype(np.uint8)
    far, notices = list[float](), list[Notice]()
    large = np.flatnonzero((kept == 0) & (pieces.piece_ml >= MIN_PIECE_ML))
    if not len(large):
        return kept, notices
    tree = spatial.cKDTree(pieces.main_points_mm, balanced_tree=False, compact_nodes=False)
    for number in large:
        voxels = pieces.voxels[pieces.piece_of_voxel == number]
        step = max(1, len(voxels) // 20_000)
        points = np.stack(np.unravel_index(voxels[::step], shape), axis=1) * mm
        distance = tree.query(points, distance_upper_bound=NEAR_MM)[0].min()
        if np.isfinite(distance):
            kept[number] = pieces.label
        elif pieces.piece_ml[number] >= SIMILAR_SIZE * pieces.main_ml:
            kept[number] = pieces.label
            far.append(pieces.piece_ml[number])
    if far:
        sizes = f"{pieces.main_ml:.1f} and {max(far):.1f} ml"
        message = f"two bodies of the {names[pieces.label - 1]} of similar size ({sizes}) lie far apart: "
        notices = [Notice("two-sides", message + "are both sides in view?")]
    return kept, notices
