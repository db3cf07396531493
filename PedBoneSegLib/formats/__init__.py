"""Images and segmentations on disk: NIfTI, NRRD, MetaImage and DICOM series in; NIfTI, NRRD and MetaImage out."""

from .names import INPUT_SUFFIXES, OUTPUT_SUFFIXES, OUTPUT_TAG, check_folder, check_output, split_name
from .reading import find_inputs, is_dicom_series, read_volume

__all__ = [
    "INPUT_SUFFIXES",
    "OUTPUT_SUFFIXES",
    "OUTPUT_TAG",
    "check_folder",
    "check_output",
    "find_inputs",
    "is_dicom_series",
    "read_volume",
    "split_name",
]
