"""What each verb does with one input, for the command line, the batch and the worker alike: options in, the verb's
`--json` object out. What takes time to load (numpy, torch) is loaded by the verbs that need it, when they are called:
`pedboneseg models list` must not wait for it."""

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput, BadModel
from ..files import sweep_partials
from ..formats.names import OUTPUT_TAG, check_folder, check_output, map_suffixes, split_name
from ..models import store
from ..progress import Progress, no_progress

if TYPE_CHECKING:
    import numpy as np

    from ..inference.predictor import Predictor
    from ..models.manifest import Manifest

SIDES = ("left", "right")


@dataclass(frozen=True)
class SegmentOptions:
    """The options of `segment`, by the command line's names."""

    input: str
    output: str | None = None
    joint: str = "auto"
    model: str | None = None
    side: str | None = None
    device: str = "auto"
    series: str | None = None
    frame: int | None = None
    probabilities: str | None = None
    uncertainty: str | None = None
    overwrite: bool = False
    max_voxels: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):
                kind = getattr(field.type, "__name__", str(field.type))
                raise BadInput(f"{field.name} is {value!r}", f"it must be of the type {kind}")
        if self.side not in (None, *SIDES):
            raise BadInput(f"side is {self.side!r}", "it must be left or right")

    @classmethod
    def of(cls, entries: dict) -> "SegmentOptions":
        """From a request's fields; an unknown or a missing one raises BadInput."""
        return cls(**known(entries, {field.name for field in fields(cls)}, {"input"}))

    @property
    def source(self) -> Path:
        return Path(self.input)

    @property
    def target(self) -> Path:
        """Where the labels go: by default NAME_bones.nii.gz beside the input."""
        return Path(self.output) if self.output else self.source.parent / f"{case_name(self.source)}{OUTPUT_TAG}.nii.gz"

    @property
    def maps(self) -> dict[str, Path]:
        """The 8-bit maps that are wanted."""
        return {name: Path(path) for name in ("probabilities", "uncertainty") if (path := getattr(self, name))}

    def identity(self) -> dict:
        """What decides the result beside the input and the model."""
        others = ("input", "output", "overwrite", "model", "max_voxels")
        return {key: value for key, value in asdict(self).items() if key not in others}


def known(entries: dict, allowed: set[str], needed: set[str] = frozenset()) -> dict:
    """The entries, if all of them are allowed and none that is needed is missing; null is as good as absent."""
    entries = {key: value for key, value in entries.items() if value is not None}
    for key in entries.keys() - allowed:
        raise BadInput(f"there is no field {key[:80]!r}", f"the fields are {', '.join(sorted(allowed))}")
    for key in needed - entries.keys():
        raise BadInput(f"the field {key!r} is missing", "add it")
    return entries


def made_folder(folder: Path) -> Path:
    """The folder, made if only its last part is missing."""
    if not folder.exists():
        check_folder(folder.absolute().parent)
        folder.mkdir(exist_ok=True)
    check_folder(folder)
    return folder


def case_name(source: Path) -> str:
    """An input's name without its format's ending; a DICOM folder's is the folder's."""
    place = Path(os.path.realpath(source))
    stem, suffix = split_name(place)
    return stem if suffix else place.stem


class Session:
    """Keeps the model of the last request warm, on its device."""

    def __init__(self) -> None:
        self._warm: tuple[tuple, Predictor] | None = None

    def predictor(self, model: str | None, device: str) -> "Predictor":
        """The model, loaded anew when its file, or the device, is another than last time."""
        from ..inference.devices import use_most_cores
        from ..inference.predictor import Predictor
        from ..models.bundle import Bundle

        use_most_cores()
        path = store.resolve(model)
        stat = path.stat()
        key = (path.resolve(), stat.st_mtime_ns, stat.st_size, stat.st_ino, device)
        if self._warm is None or self._warm[0] != key:
            self.release()  # before the next one is loaded: there may not be room for two
            self._warm = (key, Predictor(Bundle.load(path), device))
        return self._warm[1]

    def release(self) -> dict:
        """Lets go of the model and of the device's memory."""
        self._warm = None
        if torch := sys.modules.get("torch"):  # never loaded: nothing to free
            torch.cuda.empty_cache()
        return {}

    def segment(
        self,
        options: SegmentOptions,
        progress: Progress = no_progress,
        detected: Callable[[dict], None] = lambda found: None,
    ) -> dict:
        """One input to one file; `detected` hears the `detect` object before the segmenting begins.

        Everything that can be refused before the work is refused before it.
        """
        from ..formats.reading import read_volume
        from ..formats.writing import disk_array, write_labels, write_map

        target, maps = options.target, options.maps
        check_output(target, options.source, options.overwrite)
        for path in maps.values():
            check_output(path, options.source, options.overwrite, map_suffixes())
        if len({path.absolute() for path in (target, *maps.values())}) <= len(maps):
            raise BadInput("two outputs have the same name", "give each its own")
        for folder in {path.parent for path in (target, *maps.values())}:
            sweep_partials(folder)
        progress(0.0, "reading")
        volume = read_volume(options.source, options.series, options.frame, options.max_voxels)
        progress(0.04, "loading the model")
        predictor = self.predictor(options.model, options.device)
        made: dict[str, np.ndarray] = {}

        def make(name: str, components: int) -> "np.ndarray":
            made[name] = disk_array(maps[name].parent, (components, *volume.grid.size))
            return made[name]

        result = predictor.segment(
            volume, options.joint, options.side, detected=detected,
            progress=lambda fraction, stage: progress(0.08 + 0.84 * fraction, stage),
            probabilities=(lambda bones: make("probabilities", bones)) if "probabilities" in maps else None,
            uncertainty=make("uncertainty", 1)[0] if "uncertainty" in maps else None,
        )  # fmt: skip
        progress(0.93, "writing")
        names = {"probabilities": result.table.names, "uncertainty": ("uncertainty",)}
        for name, array in made.items():
            write_map(maps[name], array, result.grid, names[name])
        write_labels(target, result.labels, result.grid, result.table, result.side)
        progress(1.0, "done")
        return result.to_json(target)

    def detect(self, entries: dict, progress: Progress = no_progress) -> dict:
        """Which joint an image shows. A model without signatures has no verdict."""
        from ..formats.reading import read_volume

        entries = known(entries, {"input", "model", "device", "series", "frame", "max_voxels"}, {"input"})
        progress(0.0, "reading")
        volume = read_volume(entries["input"], entries.get("series"), entries.get("frame"), entries.get("max_voxels"))
        predictor = self.predictor(entries.get("model"), entries.get("device", "auto"))
        return predictor.detect(volume, check=partial(progress, 0.5, "looking"))

    def measure(self, entries: dict) -> dict:
        """Volume, surface, extents and axes of each bone of a segmentation; surface meshes into the folder `surfaces`,
        which is made if it is not there."""
        from ..anatomy import joint_table, known_joints
        from ..formats.segments import read_segmentation
        from ..results.measure import measure

        entries = known(entries, {"input", "joint", "surfaces", "model", "max_voxels"}, {"input"})
        joint, model = entries.get("joint"), entries.get("model")
        if joint in known_joints() and model is None:
            joint = joint_table(joint)
        elif joint:
            joint = _whole(store.show(model)).domains_of(joint)[0].table
        labels, grid, table, side = read_segmentation(entries["input"], joint, entries.get("max_voxels"))
        document = {"joint": table.joint, "side": side, "bones": measure(labels, grid, table)}
        if folder := entries.get("surfaces"):
            from ..results.surfaces import write_surfaces

            files = write_surfaces(made_folder(Path(folder)), labels, grid, table, side)
            document["surfaces"] = {bone: str(path) for bone, path in files.items()}
        return document

    def models(self, entries: dict) -> dict:
        """`action` list, show, verify, install or remove; `name` a model's name or path."""
        entries = known(entries, {"action", "name", "as", "overwrite"})
        action, name = entries.get("action", "list"), entries.get("name")
        if action == "list":
            return {"models": [_summary(stored) for stored in store.list_models()]}
        if action == "show":
            return describe(_whole(store.show(name)))
        if name is None:
            raise BadInput(f"models {action} needs a model", "give its name or its path")
        if action == "verify":
            manifest = store.verify(store.resolve(name))
            return {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256, "verified": True}
        if action == "install":
            return _summary(store.install(name, entries.get("as"), bool(entries.get("overwrite"))))
        if action == "remove":
            return {"removed": store.remove(name).name}
        raise BadInput(f"there is no models {str(action)[:80]!r}", "use list, show, verify, install or remove")


def describe(manifest: "Manifest") -> dict:
    """The `models show` object."""
    joints = {
        card.name: {
            "joint": card.joint, "labels": dict(card.table.labels), "table": card.table.to_csv(),
            "signatures": (card.signature or {}).get("references", 0), "metrics": card.metrics,
        }
        for card in manifest.domains
    }  # fmt: skip
    shown = {name: getattr(manifest, name) for name in ("name", "version", "licence", "card")}
    return {**shown, "joints": joints, "precisions": list(manifest.precisions), "sha256": manifest.sha256}


def input_identity(source: Path) -> str:
    """Changes when the input does: names, sizes and times of its files, hashed, so that no name is written down."""
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _whole(stored: store.StoredModel) -> "Manifest":
    if stored.manifest is None:
        raise BadModel(stored.fault, "install it again")
    return stored.manifest


def _summary(stored: store.StoredModel) -> dict:
    entry = {"name": stored.name, "built_in": stored.built_in, "path": str(stored.path)}
    if stored.manifest is None:
        return {**entry, "fault": stored.fault}
    joints = list(dict.fromkeys(card.joint for card in stored.manifest.domains))
    return {**entry, "version": stored.manifest.version, "licence": stored.manifest.licence, "joints": joints}
