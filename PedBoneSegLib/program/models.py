"""The verb `models`: list, show, verify, install and remove models. Works before torch is installed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, BadModel
from ..models import store
from ..models.bundle import verify
from ..results.documents import model_document
from .fields import check_fields

if TYPE_CHECKING:
    from ..results.documents import Document


def models(request: Mapping[str, Any]) -> "Document":
    """`action` is list, show, verify, install or remove; `name` is a model's name or path."""
    fields = check_fields(request, ["action", "name", "as", "overwrite"])
    action, name = fields.get("action", "list"), fields.get("name")
    if action == "list":
        return {"models": [_summary(stored) for stored in store.list_models()]}
    if action == "show":
        stored = store.show(name)
        if stored.manifest is None:
            raise BadModel(stored.fault, "install it again")
        return model_document(stored.manifest)
    if name is None:
        raise BadInput(f"models {action} needs a model", "give its name or its path")
    if action == "verify":
        manifest = verify(store.resolve(name))
        return {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256, "verified": True}
    if action == "install":
        return _summary(store.install(name, fields.get("as"), bool(fields.get("overwrite"))))
    if action == "remove":
        return {"removed": store.remove(name).name}
    raise BadInput(f"there is no models {str(action)[:80]!r}", "use list, show, verify, install or remove")


def _summary(stored: store.StoredModel) -> "Document":
    entry: Document = {"name": stored.name, "built_in": stored.built_in, "path": str(stored.path)}
    if stored.manifest is None:
        return {**entry, "fault": stored.fault}
    joints = list(dict.fromkeys(card.joint for card in stored.manifest.domains))
    return {**entry, "version": stored.manifest.version, "licence": stored.manifest.licence, "joints": joints}
