"""The models that are at hand: those built in, and those in the user's own folder. Works before torch is there.

One folder per user: `models/` holds one file per model, called after it; `logs/` lies beside it.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, BadModel
from ..files import sweep_partials, whole_file
from .bundle import read_manifest, verify
from .manifest import MODEL_NAME, Manifest

SUFFIX = ".safetensors"
BUILT_IN = Path(__file__).parents[1] / "bundled"

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # files that Windows does not let one have


@dataclass(frozen=True)
class StoredModel:
    """A model at hand. `manifest` is None where the file is damaged, and `fault` says how."""

    name: str
    path: Path
    built_in: bool
    manifest: Manifest | None
    fault: str = ""


def home() -> Path:
    """The user's folder: PEDBONESEG_HOME, else where the system keeps such data. It need not exist."""
    if chosen := os.environ.get("PEDBONESEG_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "PedBoneSeg"


def models_folder() -> Path:
    return home() / "models"


def log_folder() -> Path:
    """Made if need be."""
    return _made(home() / "logs")


def list_models() -> list[StoredModel]:
    """All models, those built in first, each by name; damaged ones too."""
    return [
        _stored(path)
        for folder in (BUILT_IN, models_folder())
        for path in sorted(folder.glob(f"*{SUFFIX}"))
        if _is_sane(path.stem)
    ]


def resolve(model: str | None = None) -> Path:
    """The file of a model: of a path if it looks like one (a separator or .safetensors in it), else of a name.

    Without either the default: the built-in model, else the only one installed.
    """
    if model is None:
        models = [stored for stored in list_models() if stored.built_in] or list_models()
        if len(models) == 1:
            return models[0].path
        if not models:
            raise BadModel("there is no model", "install one: pedboneseg models install FILE")
        raise BadModel("several models are installed", f"name one: --model {'|'.join(m.name for m in models)}")
    if model.endswith(SUFFIX) or "/" in model or os.sep in model:
        path = Path(model).expanduser()
        if not path.exists():
            raise BadModel(f"there is no model file {model}", "check the path")
        return path
    return _installed(model).path


def show(model: str | None = None) -> StoredModel:
    """A model by name or path, without either the default one."""
    return _stored(resolve(model))


def install(source: str | os.PathLike, name: str | None = None, overwrite: bool = False) -> StoredModel:
    """Copies a model into the store, whole or not at all, after checking it; under its own name unless another is
    given. A model that is there is replaced only if asked, a built-in one never.
    """
    name = name or read_manifest(source).name
    if not _is_sane(name):
        raise BadInput(f"{name!r} is no name for a model", "use small letters, digits and . _ -, 64 at most")
    if (BUILT_IN / f"{name}{SUFFIX}").exists():
        raise BadInput(f"a built-in model is called {name!r}", "install it under another name: --name")
    target = models_folder() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        raise BadInput(f"a model {name!r} is installed already", "add --overwrite, or --name for another name")
    verify(source)
    sweep_partials(_made(models_folder()))
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
        verify(temporary)  # the copy is what will be used
    return _stored(target)


def remove(name: str) -> StoredModel:
    """Deletes an installed model; returns what it was. A program that has it loaded goes on with it."""
    stored = _installed(name)
    if stored.built_in:
        raise BadInput(f"the model {name!r} is built in", "it cannot be removed")
    try:
        stored.path.unlink()
    except OSError as fault:  # Windows, for one, keeps a file that is open
        remedy = "close the programs that use it, and see that its folder is yours"
        raise BadInput(f"the model {name!r} cannot be removed: {fault.strerror or fault}", remedy) from None
    return stored


def _installed(name: str) -> StoredModel:
    known = {stored.name: stored for stored in list_models()}  # the user's own, should one built in have its name
    if name in known:
        return known[name]
    names = ", ".join(known) or "none"
    raise BadModel(f"there is no model {name!r}", f"those at hand: {names}; a file is named with {SUFFIX}")


def _stored(path: Path) -> StoredModel:
    try:
        manifest, fault = read_manifest(path), ""
    except BadModel as error:
        manifest, fault = None, str(error)
    return StoredModel(path.stem, path, path.parent == BUILT_IN, manifest, fault)


def _is_sane(name: str) -> bool:
    return bool(MODEL_NAME.fullmatch(name)) and not _DEVICES.fullmatch(name)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        fault = f"the folder {folder} cannot be made: {fault.strerror or fault}"
        raise BadInput(fault, "set PEDBONESEG_HOME to another") from None
    return folder
