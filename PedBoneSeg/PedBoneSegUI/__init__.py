"""The panel's own package. Each file has one subject; what it needs is passed in.

    panel.py         puts the sections together
    sections/        one file per section of the panel: its widgets and what a click does
    logic.py         what the module offers without widgets: the worker, the temporary folder, the log
    tasks.py         longer work in small steps between which the application stays alive
    segmenting.py    the steps of a segmentation and of a measurement
    workerclient.py  the conversation with the worker process
    volumes.py, segmentations.py, labelmaps.py, bonewriting.py, views.py    what is read from and written to the scene

Nothing here imports torch, and nothing waits: what takes time happens in the worker process.
"""

from .paths import makeImportable

makeImportable()
