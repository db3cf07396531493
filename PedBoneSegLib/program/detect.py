"""The verb `detect`: which joint an image shows, and whether it is like the images that the model was made for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress, no_progress
from .fields import check_fields
from .session import Session

if TYPE_CHECKING:
    from ..results.documents import Document


def detect(session: Session, request: Mapping[str, Any], progress: Progress = no_progress) -> "Document":
    """The `detect` object of an image. A model without signatures has no verdict."""
    from ..formats.reading import read_volume
    from ..results.documents import detect_document

    fields = check_fields(request, ["input", "model", "device", "series", "frame", "max_voxels"], ["input"])
    progress(0.0, "reading")
    volume = read_volume(Path(fields["input"]), fields.get("series"), fields.get("frame"), fields.get("max_voxels"))
    model = session.model(fields.get("model"), fields.get("device", "auto"))
    return detect_document(model.detect(volume, progress=progress))
