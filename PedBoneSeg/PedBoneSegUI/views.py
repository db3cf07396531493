"""What the slice views show: a volume with its own result alone, a place in it, and the doubt over it."""

import numpy as np
import slicer

from . import segmentations, volumes

PARALLEL = 0.999  # cosine of the angle between a view's normal and an axis of the volume


def showVolume(volume) -> None:
    """Makes it the background of every slice view that shows another volume, and fits the views to it."""
    shown = [node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")]
    if any(name != volume.GetID() for name in shown):
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def showResultAlone(segmentation) -> None:
    """Shows this result and hides all other results of the software, and their doubt; drawn segmentations stay."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node is segmentation or segmentations.tableOf(node) is not None:
            node.SetDisplayVisibility(node is segmentation)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        foreground = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        isDoubt = foreground is not None and foreground.GetAttribute(volumes.DOUBT)
        if isDoubt and foreground is not segmentations.doubtOf(segmentation):
            composite.SetForegroundVolumeID(None)


# ---- a place


def doubtfulPlace(segmentation, axis: int, index: int) -> tuple[float, float, float] | None:
    """The voxel position (i, j, k) in a slice where the doubt, summed over 9 × 9 voxels, is greatest; or None."""
    doubt = segmentations.doubtOf(segmentation)
    if doubt is None:
        return None
    plane = np.moveaxis(slicer.util.arrayFromVolume(doubt), 2 - axis, 0)[index].astype(np.float64)
    plane[plane == 255] = 0  # not looked at
    if not plane.any():
        return None
    row, column = np.unravel_index(np.argmax(_blurred(_blurred(plane.T).T)), plane.shape)
    kji = [float(row), float(column)]
    kji.insert(2 - axis, float(index))
    return tuple(kji[::-1])


def _blurred(plane: np.ndarray, radius: int = 4) -> np.ndarray:
    """The sum over a window along the last axis."""
    padded = np.pad(plane, ((0, 0), (radius + 1, radius)))
    total = np.cumsum(padded, axis=1)
    return total[:, 2 * radius + 1 :] - total[:, : -2 * radius - 1]


def sliceCenter(volume, axis: int, index: int) -> tuple[float, float, float]:
    """The voxel position (i, j, k) in the middle of a slice of the volume's own grid."""
    center = [(size - 1) / 2 for size in volumes.gridOf(volume).size]
    center[axis] = float(index)
    return tuple(center)


def showPlace(volume, place: tuple[float, float, float], turn: bool) -> None:
    """All slice views jump to a voxel position. `turn` first turns them into the planes of the acquisition, oblique
    ones too, so that one of them shows exactly the slice."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if turn:
            node.RotateToVolumePlane(volume)
        node.JumpSliceByOffsetting(*volumes.worldPoint(volume, place))


def viewOfSlice(volume, axis: int, index: int) -> str:
    """ "Red 12.0 mm": the view whose planes are the volume's slices, and where it shows this one, as Slicer's slider
    has it; empty if no view has these planes."""
    points = [sliceCenter(volume, axis, number) for number in (index, index + 1)]
    here, there = (np.array(volumes.worldPoint(volume, point)) for point in points)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        normal = matrix[:3, 2]
        if abs(normal @ (there - here)) > PARALLEL * np.linalg.norm(there - here):
            return f"{node.GetLayoutName()} {normal @ here:.1f} mm"
    return ""


# ---- doubt


def showDoubt(segmentation, visible: bool) -> bool:
    """Lays the doubt over the image, or takes it away; False if the result has none."""
    doubt = segmentations.doubtOf(segmentation)
    if doubt is None:
        return False
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if visible:
            composite.SetForegroundVolumeID(doubt.GetID())
            composite.SetForegroundOpacity(0.5)
        elif composite.GetForegroundVolumeID() == doubt.GetID():
            composite.SetForegroundVolumeID(None)
    if visible:
        _color(doubt)
    return True


def _color(doubt) -> None:
    """Shades of red from 5 % on; below that, and where nobody looked (255), transparent by the colors themselves.

    A threshold of the display node would do the same, but Slicer resets it.
    """
    if doubt.GetDisplayNode() is None:
        doubt.CreateDefaultDisplayNodes()
    display = doubt.GetDisplayNode()
    display.SetAndObserveColorNodeID(_doubtColors().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 255)
    display.InterpolateOff()


def _doubtColors():
    """A color for each of the 256 values; one table for all doubt maps of a scene."""
    tag = "PedBoneSegDoubtColors"
    node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is None:
        node = slicer.vtkMRMLColorTableNode()
        node.SetName("PedBoneSeg doubt")
        node.SetSingletonTag(tag)
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.SetTypeToUser()
        node.SetNumberOfColors(256)
        for value in range(256):
            shown = 13 <= value < 255
            node.SetColor(value, str(value), 0.4 + 0.6 * value / 254 if shown else 0.0, 0.0, 0.0, float(shown))
        node = slicer.mrmlScene.AddNode(node)
    return node
