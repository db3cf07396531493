"""Images and segmentations on disk: NIfTI, NRRD, MetaImage and DICOM series in; NIfTI and NRRD out.

`reading`, `segments` and `writing` are what the rest of the program calls. A file in `kinds` is a file format, found
by itself: `registry` says what it has to bring. `dicom` reads series, where a volume is many files.

No library but numpy and zlib sees a file from outside: every header is read here, in full and within bounds, before
any voxel is. The one exception are compressed DICOM pixels, see `dicom.decoder`.
"""
