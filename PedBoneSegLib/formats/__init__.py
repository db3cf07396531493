"""Images and segmentations on disk: NIfTI, NRRD, MetaImage and DICOM series in; NIfTI and NRRD out."""

from .names import INPUT_SUFFIXES, OUTPUT_SUFFIXES, OUTPUT_TAG, check_folder, check_output, split_name
from .reading import find_inputs, is_dicom_series, read_volume
from .segments import read_segmentation, terminology
from .writing import MAP_SUFFIXES, disk_array, write_labels, write_map

__all__ = [
    "INPUT_SUFFIXES", "MAP_SUFFIXES", "OUTPUT_SUFFIXES", "OUTPUT_TAG", "check_folder", "check_output", "disk_array",
    "find_inputs", "is_dicom_series", "read_segmentation", "read_volume", "split_name", "terminology", "write_labels",
    "write_map",
]  # fmt: skip
