"""Ring 2: the bones' voxels, read and written a few slices at a time, on real MRML; compared with whole arrays."""

import tracemalloc

import numpy as np
import pytest
import slicer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module.bones import KNEE, blocks, edits, fill, oblique, record, refill
from PedBoneSegUI import bonewriting, labelmaps, segmentations, segmenting, volumes, workfolder
from PedBoneSegUI.tasks import runToEnd

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.writing import write_labels

BONES = KNEE.names
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def random_labels(rng, shape) -> np.ndarray:
    """Label values in a random box, nothing around it."""
    labels = np.zeros(shape, np.uint8)
    box = tuple(slice(*sorted(rng.integers(0, size + 1, 2))) for size in shape)
    labels[box] = rng.integers(0, 5, labels[box].shape)
    return labels


@pytest.fixture
def knee(makeVolume):
    """knee(labels) makes a volume and a segmentation that holds them."""

    def make(labels: np.ndarray):
        volume = makeVolume(np.zeros(labels.shape, np.int16), oblique())
        segmentation = segmentations.createSegmentation(volume, "bones")
        fill(segmentation, volume, labels, KNEE, None)
        return volume, segmentation

    return make


def mask_of(segmentation, bone: str, volume) -> np.ndarray:
    """By Slicer's own means."""
    segment = segmentations.segmentOfBone(segmentation, KNEE.bone(bone))
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume) > 0


@quick
@given(seed=st.integers(0, 2**31), step=st.integers(1, 200), axis=st.integers(0, 2))
def test_slabsCoverAnArrayOnceWithWholeSlices(seed, step, axis):
    shape = tuple(np.random.default_rng(seed).integers(1, 9, 3))
    counts = np.zeros(shape, int)
    before, labelmaps.STEP_VOXELS = labelmaps.STEP_VOXELS, step
    try:
        for slab in labelmaps.slabs(shape, axis):
            counts[slab] += 1
            assert counts[slab].size <= max(step, counts.size // shape[2 - axis])
    finally:
        labelmaps.STEP_VOXELS = before
    assert (counts == 1).all()


@pytest.mark.parametrize("step", [1, 7, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_labelsComeBackAsTheyWentIn(knee, monkeypatch, seed, step):
    monkeypatch.setattr(labelmaps, "STEP_VOXELS", step)
    labels = random_labels(np.random.default_rng(seed), (3, 5, 4))
    volume, segmentation = knee(labels)
    assert np.array_equal(labelmaps.mergedLabels(segmentation, KNEE, volume), labels)
    for bone in KNEE.bones:
        assert np.array_equal(mask_of(segmentation, bone.name, volume), labels == bone.label)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_exactlyTheEditedSlicesAreFound(knee, monkeypatch, seed, axis):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(labelmaps, "STEP_VOXELS", int(rng.integers(1, 60)))
    volume, segmentation = knee(rng.integers(0, 5, (4, 4, 4)).astype(np.uint8))
    fingerprints = runToEnd(labelmaps.fingerprinting(segmentation, KNEE, volume, axis))
    segmentations.recordWritten(segmentation, KNEE, axis, fingerprints, [])
    assert edits(segmentation, KNEE, volume, axis) == []
    mask, touched = mask_of(segmentation, "tibia", volume), sorted({int(n) for n in rng.integers(0, 4, 2)})
    for index in touched:
        np.moveaxis(mask, 2 - axis, 0)[index][tuple(rng.integers(0, 4, 2))] ^= True
    segment = segmentations.segmentOfBone(segmentation, KNEE.bone("tibia"))
    bonewriting.writeMask(segmentation, segment, mask, volume)
    assert set(touched) <= set(edits(segmentation, KNEE, volume, axis))
    other = [index for index in range(4) if index not in touched]
    # A stroke may take voxels from a neighbor in the same label map, but only in the slices that it touches.
    assert not set(other) & set(edits(segmentation, KNEE, volume, axis))


def test_aMoveFromOneBoneToAnotherIsAnEdit(knee):
    volume, segmentation = knee(np.full((1, 2, 2), 1, np.uint8))
    record(segmentation, volume, [])
    _volume, other = knee(np.full((1, 2, 2), 2, np.uint8))
    other.SetAttribute(segmentations.MEMORY, segmentation.GetAttribute(segmentations.MEMORY))
    assert edits(other, KNEE, _volume, 2) == [0]


def test_handMadeWorkCountsAsEditedEverywhere():
    assert labelmaps.touchedSlices([], [0, 5, 0, 9]) == [1, 3]
    assert labelmaps.touchedSlices([5, 9], [0, 5, 0, 9]) == [1, 3], "a record of another grid says nothing"


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_keptSlicesKeepWhatWasDrawnEvenWhereBonesOverlap(knee, monkeypatch, seed, axis):
    """Drawn bones may overlap; a bone that another owner drew shares their label map and stays as it is."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(labelmaps, "STEP_VOXELS", int(rng.integers(1, 80)))
    old, new = random_labels(rng, (4, 5, 6)), random_labels(rng, (4, 5, 6))
    volume, segmentation = knee(old)
    core = segmentation.GetSegmentation()
    femur = segmentations.segmentOfBone(segmentation, KNEE.bone("femur"))
    drawn = rng.random(old.shape) > 0.5  # over the other bones, which stay
    core.SeparateSegmentLabelmap(femur)
    bonewriting.writeMask(segmentation, femur, drawn, volume)
    cyst = slicer.vtkSegment()
    cyst.SetName("cyst")
    tibia = core.GetSegment(segmentations.segmentOfBone(segmentation, KNEE.bone("tibia")))
    cyst.AddRepresentation(segmentations.LABELMAP, tibia.GetRepresentation(segmentations.LABELMAP))
    cyst.SetLabelValue(tibia.GetLabelValue())
    core.AddSegment(cyst, "cyst")  # the same voxels of the same label map as the tibia's
    before = {bone: mask_of(segmentation, bone, volume) for bone in BONES}
    kept = sorted({int(n) for n in rng.integers(0, old.shape[2 - axis], 2)})
    refill(segmentation, volume, new, KNEE, None, kept, axis)
    for bone in KNEE.bones:
        expected = new == bone.label
        np.moveaxis(expected, 2 - axis, 0)[kept] = np.moveaxis(before[bone.name], 2 - axis, 0)[kept]
        assert np.array_equal(mask_of(segmentation, bone.name, volume), expected), bone.name
    now = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "cyst", volume) > 0
    assert np.array_equal(now, before["tibia"])
    layer = labelmaps.voxelsOf(core.GetSegment("cyst").GetRepresentation(segmentations.LABELMAP))
    assert set(np.unique(layer)) <= {0, core.GetSegment("cyst").GetLabelValue()}, "no ghost of a bone stays there"


def test_surfacesFollowTheNewVoxels(knee):
    volume, segmentation = knee(blocks())
    segmentation.CreateClosedSurfaceRepresentation()
    before = surface_box(segmentation)
    refill(segmentation, volume, np.roll(blocks(), 3, axis=2), KNEE, None, [], 2)
    assert surface_box(segmentation) != pytest.approx(before, abs=0.5)


def surface_box(segmentation) -> tuple[float, ...]:
    segment = segmentation.GetSegmentation().GetSegment(segmentations.segmentOfBone(segmentation, KNEE.bone("femur")))
    return segment.GetRepresentation(bonewriting.SURFACE).GetBounds()


def test_anEditDuringTheStepsIsNotedAndNothingIsWritten(knee, monkeypatch):
    monkeypatch.setattr(labelmaps, "STEP_VOXELS", 1)
    volume, segmentation = knee(blocks())
    femur = segmentations.segmentOfBone(segmentation, KNEE.bone("femur"))
    drawn = mask_of(segmentation, "femur", volume)
    drawn[5] = False
    for steps in (
        bonewriting.replacing(segmentation, volume, np.roll(blocks(), 3, axis=2), KNEE, None, [], 2),
        labelmaps.fingerprinting(segmentation, KNEE, volume, 2),
        labelmaps.merging(segmentation, KNEE, volume),
    ):
        next(steps)
        drawn[4] ^= True
        bonewriting.writeMask(segmentation, femur, drawn, volume)
        with pytest.raises(BadInput, match="changed meanwhile"):
            runToEnd(steps)
        assert np.array_equal(mask_of(segmentation, "femur", volume), drawn)


# ---- how much a step does


def bytes_of_steps(steps, answer: dict | None = None) -> tuple[list[int], object]:
    """The most bytes that Python and numpy hold within each step, largest first, and the generator's value.

    Images are VTK's and are not counted: what is counted are the arrays that are computed from them.
    """
    peaks, given = [], None
    tracemalloc.start()
    try:
        while True:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                request = steps.send(given)
            except StopIteration as end:
                return sorted(peaks, reverse=True), end.value
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            given = answer if request is not None else None
    finally:
        tracemalloc.stop()


def test_noStepComputesWithTheWholeVolume(makeVolume, tmp_path, monkeypatch):
    """A volume of 128 steps: none of them computes an array of the volume's size.

    Left out are the reading of a result's two files, which the disk decides, and the array that measuring fills.
    """
    shape, step = (128, 128, 128), 128 * 128
    monkeypatch.setattr(labelmaps, "STEP_VOXELS", step)
    monkeypatch.setattr(volumes, "CHUNK", step)
    volume = makeVolume(np.zeros(shape, np.int16))
    grid, labels = volumes.gridOf(volume), np.zeros(shape, np.uint8)
    labels[2:120, 3:110, 5:120] = np.random.default_rng(0).integers(0, 5, (118, 107, 115))
    path, again = tmp_path / "labels.nii", tmp_path / "again.nii"
    write_labels(path, labels.T, grid, KNEE)
    write_labels(again, np.roll(labels, 1, axis=2).T, grid, KNEE)
    volumes.read_volume(path)  # what it imports is not counted
    answer = {"joint": "knee", "review": {"axis": 2}}

    def check(steps, whole: int = 0, answer: dict | None = None):
        """`whole` steps may hold an array of the volume's size."""
        peaks, value = bytes_of_steps(steps, answer)
        assert len(peaks) >= 100 and peaks[whole] < 0.6 * labels.size, peaks[:5]
        return value

    check(volumes.writingVolume(volume, tmp_path / "image.nrrd"))
    choice = segmenting.Choice(volume)
    segmentation = check(segmenting.inserting(choice, answer, grid, path, path, "bones"), 2)
    choice = segmenting.Choice(volume, segmentation=segmentation)
    assert check(segmenting.findingHandwork(choice)) == (False,)
    check(segmenting.inserting(choice, answer, grid, again, again, "bones"), 2)
    assert np.array_equal(labelmaps.mergedLabels(segmentation, KNEE, volume), np.roll(labels, 1, axis=2))
    folder = workfolder.WorkFolder(tmp_path)
    check(segmenting.measuring(segmentation, folder), 1, {"bones": {}})
    folder.remove()
