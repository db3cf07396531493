"""The verb `measure`: volume, surface, extents and axes of each bone of a segmentation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..files import as_private_as
from .fields import check_fields

if TYPE_CHECKING:
    from ..results.documents import Document


def measure(request: Mapping[str, Any]) -> "Document":
    """The `measure` object. The folder `surfaces` for the meshes is created if it is not there."""
    from .. import api
    from ..results.documents import measure_document

    fields = check_fields(request, ["input", "joint", "surfaces", "model", "max_voxels"], ["input"])
    options = {name: fields.get(name) for name in ("joint", "model", "surfaces", "max_voxels")}
    with as_private_as(fields["input"]):
        return measure_document(api.measure(fields["input"], **options))
