"""DICOM series: `elements` reads a file's elements, `series` puts the slices in order, `pixels` reads their pixels,
and `decoder` has compressed ones decoded in a process of their own."""

from .elements import is_dicom
from .series import read_series

__all__ = ["is_dicom", "read_series"]
