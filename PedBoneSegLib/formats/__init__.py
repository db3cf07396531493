"""Images and segmentations on disk: NIfTI, NRRD, MetaImage and DICOM series in; NIfTI and NRRD out.

`names` needs the standard library alone, so that what is wrong with a file's name is said before anything is loaded.
`reading`, `segments` and `writing` do the work; the other rooms are a format each, `header` what they share.
"""
