"""The models that can be used: those built in, and those in the user's own folder. Needs no torch.

One folder per user: `models/` holds one file per model, named after it; `logs/` lies beside it. A file that is not a
good model is listed with its fault; it can be removed, and it does not stand in the way of the others.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, BadModel
from ..files import sweep_partials, whole_file
from .bundle import read_manifest as read_manifest
from .bundle import verify as verify
from .manifest import MODEL_NAME, Manifest

SUFFIX = ".safetensors"
BUILT_IN = Path(__file__).parents[1] / "bundled"

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # files that Windows does not let one have
_OTHER_HOME = "set PEDBONESEG_HOME to another folder"


@dataclass(frozen=True)
class StoredModel:
    """A model in the store. `manifest` is None where the file is bad, and `fault` says why."""

    name: str
    path: Path
    built_in: bool
    manifest: Manifest | None
    fault: str = ""


def home() -> Path:
    """The user's folder: PEDBONESEG_HOME, else where the system keeps such data. It need not exist."""
    if chosen := os.environ.get("PEDBONESEG_HOME"):
        return _expanded(chosen, "PEDBONESEG_HOME").absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _expanded("~") / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _expanded("~") / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or _expanded("~") / ".local" / "share"
    return Path(base) / "PedBoneSeg"


def models_folder() -> Path:
    return home() / "models"


def log_folder() -> Path:
    """Created if need be."""
    return _create(home() / "logs")


def list_models() -> list[StoredModel]:
    """All models, those built in first, each group by name; bad ones too."""
    return [_stored(path) for path in _files()]


def resolve(model: str | None = None) -> Path:
    """The file of a model: of a path if it looks like one (a separator or .safetensors in it), else of a name.

    Without a name the default: the built-in model, else the only good one installed.
    """
    if model is None:
        return _default()
    if model.endswith(SUFFIX) or "/" in model or os.sep in model:
        path = _expanded(model)
        if not path.exists():
            raise BadModel(f"there is no model file {model}", "check the path")
        return path
    return _find(model)


def show(model: str | None = None) -> StoredModel:
    """A model by name or path; without either the default one."""
    return _stored(resolve(model))


def install(source: str | os.PathLike[str], name: str | None = None, overwrite: bool = False) -> StoredModel:
    """Copies a model into the store, whole or not at all, after checking it; under its own name unless another is
    given. An installed model is replaced only if asked, a built-in one never.
    """
    name = name or read_manifest(source).name
    if not _is_good_name(name):
        raise BadInput(f"{name!r} is no name for a model", "use small letters, digits and . _ -, 64 at most")
    if (BUILT_IN / f"{name}{SUFFIX}").exists():
        raise BadInput(f"a built-in model is called {name!r}", "install it under another name: --name")
    target = models_folder() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        raise BadInput(f"a model {name!r} is installed already", "add --overwrite, or --name for another name")
    verify(source)
    sweep_partials(_create(models_folder()))
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
        verify(temporary)  # the copy is what will be used
    return _stored(target)


def remove(name: str) -> StoredModel:
    """Deletes an installed model, good or bad; returns what it was. A program that has it loaded keeps it."""
    stored = _stored(_find(name))
    if stored.built_in:
        raise BadInput(f"the model {name!r} is built in", "it cannot be removed")
    try:
        stored.path.unlink()
    except OSError as error:  # Windows, for one, keeps a file that is open
        remedy = "close the programs that use it, and check that it is a file in a folder of yours"
        raise BadInput(f"the model {name!r} cannot be removed: {error.strerror or error}", remedy) from None
    return stored


def _files() -> list[Path]:
    """Of the models, those built in first; nothing is opened."""
    folders = (sorted(folder.glob(f"*{SUFFIX}")) for folder in (BUILT_IN, models_folder()))
    return [path for folder in folders for path in folder if _is_good_name(path.stem)]


def _default() -> Path:
    everything = list_models()
    models = [stored for stored in everything if stored.built_in] or everything
    good = [stored for stored in models if stored.manifest is not None]
    if len(good) == 1:
        return good[0].path
    if good:
        raise BadModel("several models are installed", f"name one: --model {'|'.join(m.name for m in good)}")
    if models:
        raise BadModel(models[0].fault, "install it again")
    raise BadModel("there is no model", "install one: pedboneseg models install FILE")


def _find(name: str) -> Path:
    files = {path.stem: path for path in _files()}  # the user's own, should one built in have its name
    if name in files:
        return files[name]
    names = ", ".join(files) or "none"
    raise BadModel(f"there is no model {name!r}", f"those at hand: {names}; a file is named with {SUFFIX}")


def _stored(path: Path) -> StoredModel:
    try:
        manifest, fault = read_manifest(path), ""
    except BadModel as error:
        manifest, fault = None, str(error)
    return StoredModel(path.stem, path, path.parent == BUILT_IN, manifest, fault)


def _is_good_name(name: str) -> bool:
    return bool(MODEL_NAME.fullmatch(name)) and not _DEVICES.fullmatch(name)


def _expanded(path: str, variable: str = "") -> Path:
    """The path with a leading ~ or ~user replaced."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        place = f"{variable}={path}" if variable else path
        raise BadInput(f"{place}: that user's home folder is not known", "write the whole path") from None


def _create(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be made: {error.strerror or error}", _OTHER_HOME) from None
    return folder
