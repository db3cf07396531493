"""Ring 2: what the slice views show, on real MRML: the volume with its own result, a place, the doubt."""

import numpy as np
import pytest
import slicer
import vtk
from module.bones import KNEE, blocks, fill, oblique, record
from PedBoneSegUI import segmentations, views, volumes
from vtk.util import numpy_support

from PedBoneSegLib.volume import Volume


def result_on(volume, name: str):
    segmentation = segmentations.createSegmentation(volume, name)
    fill(segmentation, volume, blocks(), KNEE, None)
    record(segmentation, volume, [])
    return segmentation


def doubt_on(segmentation, volume, values: np.ndarray):
    """`values` [k, j, i] as the segmentation's doubt map."""
    grid = volumes.gridOf(volume)
    node, voxels = volumes.newDoubtMap(Volume(values.T, grid), "doubt", volume)
    voxels[:] = values
    segmentation.SetNodeReferenceID(segmentations.DOUBT_ROLE, node.GetID())
    return node


def composites() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def test_aVolumeWithItsOwnResultAlone(makeVolume):
    knee, ankle = makeVolume(name="knee"), makeVolume(name="ankle")
    first, second, again = result_on(knee, "knee"), result_on(ankle, "ankle"), result_on(knee, "again")
    drawn = segmentations.createSegmentation(knee, "drawn by hand")
    doubt = doubt_on(first, knee, np.full((8, 20, 24), 99, np.uint8))
    views.showVolume(knee)
    views.showDoubt(first, True)
    views.showVolume(ankle)
    views.showResultAlone(second)
    assert {node.GetBackgroundVolumeID() for node in composites()} == {ankle.GetID()}
    assert not any(node.GetForegroundVolumeID() == doubt.GetID() for node in composites())
    shown = [node.GetName() for node in (first, second, again, drawn) if node.GetDisplayVisibility()]
    assert shown == ["ankle", "drawn by hand"]


@pytest.mark.parametrize("matrix", [None, oblique()])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_aSliceIsNamedAsTheViewNamesIt(makeVolume, matrix, axis):
    volume = makeVolume(matrix=matrix)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.RotateToVolumePlane(volume)
    views.showPlace(volume, views.sliceCenter(volume, axis, 5), turn=False)
    name, offset, unit = views.viewOfSlice(volume, axis, 5).split()
    assert unit == "mm"
    node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
    assert float(offset) == pytest.approx(node.GetSliceOffset(), abs=0.06)
    there = np.array(volumes.worldPoint(volume, views.sliceCenter(volume, axis, 6)))
    here = np.array(volumes.worldPoint(volume, views.sliceCenter(volume, axis, 5)))
    normal = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2]
    assert abs(normal @ (there - here)) == pytest.approx(np.linalg.norm(there - here))


def test_withoutAViewOfItsPlaneASliceHasNoName(makeVolume):
    assert views.viewOfSlice(makeVolume(matrix=oblique()), 2, 5) == ""


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_theViewsGoToTheDoubtfulPlace(makeVolume, axis):
    """A broad doubt at (i, j, k) = (20, 3, 6) wins over a single brighter voxel and over what nobody looked at."""
    volume = makeVolume(matrix=oblique())
    segmentation = result_on(volume, "bones")
    values = np.zeros((8, 20, 24), np.uint8)
    values[5:8, 2:5, 19:22] = 100
    values[6, 15, 2] = values[1, 3, 2] = values[1, 15, 20] = 200
    values[0] = 255
    doubt_on(segmentation, volume, values)
    index = (20, 3, 6)[axis]
    place = views.doubtfulPlace(segmentation, axis, index)
    assert place[axis] == index and np.abs(np.subtract(place, (20, 3, 6))).max() <= 4
    views.showPlace(volume, place, turn=True)
    point = np.array(volumes.worldPoint(volume, place))
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        assert abs(matrix[:3, 2] @ (point - matrix[:3, 3])) < 1e-6, "every view shows the place"


def test_aSliceWithoutDoubtHasNoDoubtfulPlace(makeVolume):
    volume = makeVolume()
    segmentation = result_on(volume, "bones")
    assert views.doubtfulPlace(segmentation, 2, 3) is None
    doubt_on(segmentation, volume, np.where(np.arange(8)[:, None, None] == 3, 255, 0).astype(np.uint8) * np.ones(
        (8, 20, 24), np.uint8))  # fmt: skip
    assert views.doubtfulPlace(segmentation, 2, 3) is None


def test_onlyDoubtIsColored(makeVolume):
    """What Slicer draws: transparent below 5 % and where nobody looked, also after its threshold was reset."""
    volume = makeVolume()
    segmentation = result_on(volume, "bones")
    values = np.zeros((8, 20, 24), np.uint8)
    values[0, 0, :6] = 0, 12, 13, 100, 254, 255
    doubt = doubt_on(segmentation, volume, values)
    views.showDoubt(segmentation, True)
    assert drawn(doubt)[:, 3].astype(bool).tolist() == [False, False, True, True, True, False]
    reds = drawn(doubt)[:, 0]
    assert reds[2] < reds[3] < reds[4]
    doubt.GetDisplayNode().SetThreshold(0, 255)
    doubt.GetDisplayNode().SetAutoThreshold(1)
    assert drawn(doubt)[:, 3].astype(bool).tolist() == [False, False, True, True, True, False]


def drawn(doubt) -> np.ndarray:
    """The colors (red, green, blue, alpha) of the first six voxels, out of Slicer's own display pipeline."""
    display = doubt.GetDisplayNode()
    display.SetInputImageDataConnection(doubt.GetImageDataConnection())
    pipeline = display.GetOutputImageDataConnection()
    producer = pipeline.GetProducer()
    display.UpdateImageDataPipeline()
    producer.Update()
    image = vtk.vtkImageData.SafeDownCast(producer.GetOutputDataObject(0))
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:6].astype(int)
