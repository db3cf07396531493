"""What a bug report needs: versions, devices, models. It contains no name of a user and no name of the user's files."""

import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import PedBoneSegError
from ..models import store
from ..models.bundle import verify

PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "vtk", "nibabel")


def examine() -> dict[str, Any]:
    """The `doctor` object. What does not work is reported in it and does not raise an error."""
    return {
        "version": __version__, "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}", "cores": os.cpu_count(),
        "in_slicer": "PythonSlicer" in Path(sys.executable).name,
        "packages": {name: _version(name) for name in PACKAGES},
        "training": find_spec("PedBoneSegTraining") is not None, "devices": _devices(),
        "home": redacted(store.home()), "models": [_model(stored) for stored in store.list_models()],
    }  # fmt: skip


def redacted(path: Path) -> str:
    """A path without the user's name."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return f"…/{path.name}"


def to_text(document: dict[str, Any]) -> str:
    lines = []
    for key, value in document.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {entry}" for name, entry in value.items())
        if isinstance(value, list):
            entries = [", ".join(str(part) for part in entry.values()) for entry in value]
            value = ("\n" + " " * 12).join(entries) or "none"
        lines.append(f"{key:<11} {value}")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, str]]:
    try:
        import torch

        from ..inference.devices import available_devices, choose_device, faster_precisions
    except ImportError as error:
        return [{"device": "none", "note": f"torch cannot be loaded: {error}"}]
    return [
        {"device": str(device), "formats": " ".join(("float32", *faster_precisions(device))),
         "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device)}
        for device in map(choose_device, available_devices())
    ]  # fmt: skip


def _model(stored: store.StoredModel) -> dict[str, str]:
    entry = {"name": stored.name, "built_in": "built in" if stored.built_in else "installed"}
    try:
        manifest = verify(stored.path)
    except PedBoneSegError:
        return {**entry, "state": "damaged"}
    return {**entry, "version": manifest.version, "sha256": manifest.sha256[:12], "state": "whole"}
