"""The user's choices, kept with the scene. A field's name stands in the .ui as `SlicerParameterName`."""

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper


@parameterNodeWrapper
class PedBoneSegParameterNode:
    """`joint` is "auto" or a joint's name, `side` empty, "left" or "right"; `segmentation` None means a new one.

    Folders are not here: a scene that is passed on must not tell where its maker's files lie.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    joint: str = "auto"
    side: str = ""
    showDoubt: bool = False
