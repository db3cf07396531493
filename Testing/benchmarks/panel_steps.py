"""How long the panel keeps the application busy at a stretch, at clinical sizes:

    python Testing/benchmarks/panel_steps.py [--sizes 30x512x512,160x320x320,200x512x512] [--rounds 3]

The steps of handing a volume over, of a result that goes into a new segmentation and into one that is there, and of
measuring are run in the tests' stand-in for Slicer (its own MRML, no views): each is one turn of the event loop. For
each the longest step is printed in ms of the thread's processor time, the median of the rounds; the aim is 50. What
Slicer's views then do with the result is not in it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "PedBoneSeg"), str(ROOT / "Testing"), str(ROOT)]

from module.host import install  # noqa: E402

install()

import numpy as np  # noqa: E402
import slicer  # noqa: E402
from module.bones import KNEE  # noqa: E402
from PedBoneSegUI import segmenting, trainingset, volumes, workfolder  # noqa: E402

from PedBoneSegLib.formats.writing import write_labels, write_map  # noqa: E402


def longest(steps: Generator, answer: dict | None = None) -> tuple[float, object]:
    """The longest step of a generator in ms, and its value; a request to the worker is answered with `answer`."""
    worst, given = 0.0, None
    while True:
        before = time.thread_time()
        try:
            request = steps.send(given)
        except StopIteration as end:
            return max(worst, 1000 * (time.thread_time() - before)), end.value
        worst = max(worst, 1000 * (time.thread_time() - before))
        given = answer if request is not None else None


def knee_like(shape: tuple[int, int, int]) -> np.ndarray:
    """Labels [k, j, i] of a knee that fills the image as a real one does: four ellipsoids."""
    labels = np.zeros(shape, np.uint8)
    where = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    for label, (center, radii) in enumerate(
        [((0, -0.5, 0), (0.7, 0.45, 0.5)), ((0, 0.5, 0), (0.7, 0.45, 0.5)),
         ((0.5, 0.6, 0.5), (0.2, 0.35, 0.15)), ((0, -0.4, -0.7), (0.3, 0.2, 0.15))], start=1,
    ):  # fmt: skip
        labels[sum(((x - c) / r) ** 2 for x, c, r in zip(where, center, radii, strict=True)) < 1] = label
    return labels


def measure(shape: tuple[int, int, int], folder: workfolder.WorkFolder) -> dict[str, float]:
    """The longest step of each, in ms."""
    slicer.mrmlScene.Clear(False)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Knee MR")
    slicer.util.updateVolumeFromArray(volume, np.random.default_rng(0).integers(0, 900, shape).astype(np.int16))
    spacing = np.diag([0.3, 0.3, 200 / shape[0] * 0.5, 1.0])
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(spacing))
    grid, labels = volumes.gridOf(volume), knee_like(shape)
    answer = {"joint": "knee", "side": "right", "review": {"axis": 2, "slices": []}}
    results = {}
    with folder.files(".nrrd", ".nii", ".nii") as (image, result, doubt):
        write_labels(result, labels.T, grid, KNEE)
        write_map(doubt, (labels * 20).T[None], grid, ("uncertainty",))
        results["handing over"], _none = longest(volumes.writingVolume(volume, image))
        choice = segmenting.Choice(volume)
        results["new result"], segmentation = longest(
            segmenting.inserting(choice, answer, grid, result, doubt, "bones")
        )
        choice = segmenting.Choice(volume, segmentation=segmentation)
        results["looking for handwork"], _found = longest(segmenting.findingHandwork(choice))
        write_labels(result, np.roll(labels, 3, axis=1).T, grid, KNEE)
        results["into one that is there"], segmentation = longest(
            segmenting.inserting(choice, answer, grid, result, doubt, "bones")
        )
        results["measuring"], _answer = longest(segmenting.measuring(segmentation, folder), {"bones": {}})
        case = trainingset.addingCase(folder.path / "set", volume, segmentation, KNEE, [])
        results["adding to a training set"], _case = longest(case)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="30x512x512,160x320x320,200x512x512", help="k x j x i, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = workfolder.WorkFolder(tempfile.mkdtemp())
    for size in options.sizes.split(","):
        shape = tuple(int(number) for number in size.split("x"))
        rounds = [measure(shape, folder) for _round in range(options.rounds)]
        for name in rounds[0]:
            print(f"{size:12} {name:24} {statistics.median(one[name] for one in rounds):8.1f} ms", flush=True)
    folder.remove()


if __name__ == "__main__":
    main()
