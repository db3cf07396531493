"""Pictures of held-out exams for the report: every slice, with the reference's outline and the prediction's."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from matplotlib.image import imsave

from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.volume import Volume

REFERENCE, PREDICTION, BOTH = (0, 114, 178), (230, 159, 0), (255, 255, 255)  # colors of the outlines, RGB
MOST_SLICES = 40  # a page of a whole study stays below some tens of megabytes
PIXEL_MM = 0.8
JPEG_QUALITY = 80


@dataclass(frozen=True)
class ExamPictures:
    """`slices`: data URLs, in the order of the stack."""

    title: str
    slices: tuple[str, ...]


def picture_exam(title: str, volume: Volume, reference: np.ndarray, prediction: np.ndarray) -> ExamPictures:
    """The slices that hold some bone in either of the two, evenly thinned out to at most MOST_SLICES. Blue: the
    reference's outline; orange: the prediction's; white: where both run."""
    stack = SliceStack(volume, SliceSettings(pixel_mm=PIXEL_MM))
    shown, wanted, given = (stack.oriented(array) for array in (volume.array, reference, prediction))
    with_bone = np.flatnonzero((wanted > 0).any(axis=(1, 2)) | (given > 0).any(axis=(1, 2)))
    if len(with_bone) > MOST_SLICES:
        with_bone = with_bone[np.linspace(0, len(with_bone) - 1, MOST_SLICES).round().astype(int)]
    rows, columns = (
        (np.arange(max(1, int(size * mm / PIXEL_MM))) * PIXEL_MM / mm).astype(int)
        for size, mm in zip(shown.shape[1:], stack.in_plane, strict=True)
    )
    norm, pictures = stack.normalization, []
    for index in with_bone:
        values, reference_slice, prediction_slice = (
            array[index][np.ix_(rows, columns)] for array in (shown, wanted, given)
        )
        gray = np.clip((values.astype(float) - norm.low) / max(norm.high - norm.low, 1e-30), 0, 1) * 255
        pixels = np.repeat(gray[..., None], 3, axis=2)
        edges = outline(reference_slice), outline(prediction_slice)
        for where, color in ((edges[0], REFERENCE), (edges[1], PREDICTION), (edges[0] & edges[1], BOTH)):
            pixels[where] = color
        pictures.append(_data_url(pixels.astype(np.uint8)))
    return ExamPictures(title, tuple(pictures))


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels of a label that have another one above, below, left or right of them."""
    padded = np.pad(labels, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.any([labels != other for other in beside], axis=0) & (labels > 0)


def _data_url(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    imsave(stream, pixels, format="jpeg", pil_kwargs={"quality": JPEG_QUALITY})
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
