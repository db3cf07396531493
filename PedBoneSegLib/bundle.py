"""A model on disk, in one safetensors file: tensors, and beside them one JSON document, the manifest.

Nothing in it can execute, there is nothing to unpack and no path to follow. The manifest is read with the standard
library alone (`read_manifest`), so that models and joints can be listed before torch or numpy is there. Nothing of a
model is used before all of it was checked (`Bundle.load`): the header's size and form, the schema, the file's
length, every tensor's name, type and shape, the SHA-256 over tensors and manifest, and that all numbers are finite.

Tensors: `network.*`, the network's state (convolution weights as the manifest's `storage` says, all else float32);
`signatures.<domain>` [references, channels] for the domains that have a signature.
"""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .anatomy import JointTable
from .errors import BadModel, PedBoneSegError
from .files import whole_file
from .network.config import NetworkConfig

if TYPE_CHECKING:  # torch and numpy are loaded where weights are, no earlier
    import numpy as np
    import torch

    from .network.fold import FoldedNetwork
    from .network.segmenter import Segmenter

SCHEMA = 1
KEY = "pedboneseg"
HEADER_LIMIT = 1 << 20  # bytes; the largest network's table takes a tenth of it, the model card much less
PRECISIONS = ("float32", "bfloat16", "float16")
STORAGES = {"float32": "F32", "float16": "F16"}
MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_BYTES = {"F32": 4, "F16": 2}
_DAMAGED = "copy or install the model again"


@dataclass(frozen=True)
class DomainCard:
    """What the model knows of one domain beside its weights.

    `settings`: those of the slices (see `slices`). `temperature`: what the logits are divided by. `signature`: None,
    or `layer` (the encoder's level), `threshold` (of the distance) and `references` (number of exams). `metrics`:
    whatever export measured.
    """

    name: str
    joint: str
    table: JointTable
    settings: dict
    temperature: float = 1.0
    signature: dict | None = None
    metrics: dict = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise BadModel(f"domain {self.name}: the temperature {self.temperature} is not above 0")
        if self.signature is not None:
            layer, threshold, references = (self.signature.get(key) for key in ("layer", "threshold", "references"))
            if type(layer) is not int or type(references) is not int or layer < 0 or references < 1:
                raise BadModel(f"domain {self.name}: the signature lacks its layer or its number of references")
            if not isinstance(threshold, int | float) or not 0 < threshold < math.inf:
                raise BadModel(f"domain {self.name}: the signature's threshold {threshold!r} is not above 0")

    def to_dict(self) -> dict:
        return {
            "name": self.name,
            "joint": self.joint,
            "table": self.table.to_csv(),
            "settings": self.settings,
            "temperature": float(self.temperature),
            "signature": self.signature,
            "metrics": self.metrics,
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, document: object) -> "DomainCard":
        kinds = {"name": str, "joint": str, "table": str, "settings": dict, "temperature": float}
        kinds |= {"signature": dict | None, "metrics": dict, "note": str}
        values = _typed(document, kinds, "a domain")
        return cls(**{**values, "table": JointTable.from_csv(values["table"], values["joint"])})


@dataclass(frozen=True)
class Manifest:
    """All of a model but its weights.

    `precisions`: those in which export found the labels unchanged, "float32" always among them. `storage`: how the
    convolution weights are stored, "float32" or "float16". `review`: the calibration of the review, or None.
    `card`: the model card, Markdown. `sha256`: of the whole model; known once it is written.
    """

    name: str
    version: str
    licence: str
    provenance: dict
    network: NetworkConfig
    domains: tuple[DomainCard, ...]
    precisions: tuple[str, ...] = ("float32",)
    storage: str = "float32"
    review: dict | None = None
    card: str = ""
    sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.name):
            raise BadModel(
                f"{self.name!r} is no name for a model", "take small letters, digits and . _ - within, 64 at most"
            )
        if not set(self.precisions) <= set(PRECISIONS) or "float32" not in self.precisions:
            raise BadModel(f"model {self.name}: unknown precisions {list(self.precisions)}")
        if self.storage not in STORAGES:
            raise BadModel(f"model {self.name}: unknown storage {self.storage!r}")
        cards = [(card.name, card.joint, card.table.names) for card in self.domains]
        if cards != [(spec.name, spec.joint, spec.bones) for spec in self.network.domains]:
            raise BadModel(f"model {self.name}: its domains or bones are not those of its network")

    def domain(self, name: str) -> DomainCard:
        """The domain of that name."""
        for card in self.domains:
            if card.name == name:
                return card
        raise BadModel(f"model {self.name} has no domain {name!r}", f"it has {self._choice()}")

    def domains_of(self, joint: str) -> tuple[DomainCard, ...]:
        """What `--joint` names: all domains of a joint, else the one domain of that name."""
        of_joint = tuple(card for card in self.domains if card.joint == joint)
        of_name = tuple(card for card in self.domains if card.name == joint)
        if not of_joint + of_name:
            raise BadModel(f"model {self.name} does not know the joint {joint!r}", f"it knows {self._choice()}")
        return of_joint or of_name

    def to_dict(self) -> dict:
        """The manifest's JSON document, without the hash."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "licence": self.licence,
            "provenance": self.provenance,
            "network": self.network.to_dict(),
            "domains": [card.to_dict() for card in self.domains],
            "precisions": list(self.precisions),
            "storage": self.storage,
            "review": self.review,
            "card": self.card,
        }

    @classmethod
    def from_dict(cls, document: object) -> "Manifest":
        """The reverse of `to_dict`, the hash included. BadModel for anything else."""
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA or type(schema) is not int:
            raise BadModel(f"its schema is {schema!r}, this version of PedBoneSeg reads {SCHEMA}", "update PedBoneSeg")
        kinds = {"schema": int, "name": str, "version": str, "licence": str, "provenance": dict, "network": dict}
        kinds |= {"domains": list, "precisions": list, "storage": str, "review": dict | None, "card": str}
        values = _typed(document, {**kinds, "sha256": str}, "the manifest")
        del values["schema"]
        try:
            values["network"] = NetworkConfig.from_dict(values["network"])
        except ValueError as fault:
            raise BadModel(str(fault)) from None
        values["domains"] = tuple(DomainCard.from_dict(card) for card in values["domains"])
        if not all(isinstance(precision, str) for precision in values["precisions"]):
            raise BadModel("its precisions are not a list of names")
        return cls(**{**values, "precisions": tuple(values["precisions"])})

    def _choice(self) -> str:
        return ", ".join(dict.fromkeys(name for card in self.domains for name in (card.joint, card.name)))


def read_manifest(path: str | os.PathLike) -> Manifest:
    """The manifest alone: header, schema and the file's length are checked, the tensors are not looked at."""
    path = Path(path)
    with _named(path), _opened(path) as stream:
        return _read_header(stream).manifest


@dataclass(frozen=True)
class Bundle:
    """A whole model in memory, all of it checked. The file is not needed any more."""

    path: Path
    manifest: Manifest
    _arrays: dict[str, "np.ndarray"] = field(repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Bundle":
        path = Path(path)
        with _named(path):
            with _opened(path) as stream:
                header = _read_header(stream)
                _check_table(header, _expected_tensors(header.manifest))
                arrays = _read_arrays(stream, header)
            return cls(path, header.manifest, arrays)

    def domain(self, name: str) -> DomainCard:
        return self.manifest.domain(name)

    def domains_of(self, joint: str) -> tuple[DomainCard, ...]:
        return self.manifest.domains_of(joint)

    def tensor(self, name: str) -> "np.ndarray":
        """A tensor by its name in the file; KeyError where there is none."""
        return self._arrays[name]

    def network(self) -> "Segmenter":
        """A new network of its own, in float32 and evaluation mode, on the CPU."""
        import torch

        network = _skeleton(self.manifest.network)
        state = {
            name.removeprefix("network."): torch.from_numpy(array).to(torch.float32, copy=True)
            for name, array in self._arrays.items()
            if name.startswith("network.")
        }
        network.load_state_dict(state, assign=True)
        return network.eval()

    def folded(self, domain: str) -> "FoldedNetwork":
        """The plain network of one domain, its temperature included."""
        from .network.fold import fold

        return fold(self.network(), domain, self.domain(domain).temperature)


def verify(path: str | os.PathLike) -> Manifest:
    """All checks of `Bundle.load` but the comparison with the network that the manifest describes: without torch."""
    path = Path(path)
    with _named(path), _opened(path) as stream:
        header = _read_header(stream)
        _read_arrays(stream, header)
        return header.manifest


def write_bundle(
    path: str | os.PathLike, manifest: Manifest, tensors: Mapping[str, "torch.Tensor | np.ndarray"]
) -> Manifest:
    """Writes a model, whole or not at all, over whatever is at `path`; returns the manifest with its hash.

    `tensors`: `network.<name>` for every entry of the network's `state_dict`, and `signatures.<domain>`. Their types
    are chosen here. What could not be loaded again is not written (BadModel).
    """
    import numpy as np
    from safetensors.numpy import save_file

    def stored(name: str, tensor: "torch.Tensor | np.ndarray") -> "np.ndarray":
        array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().numpy()
        with np.errstate(over="ignore"):  # a weight too large for float16 becomes infinite, and is refused as such
            return np.ascontiguousarray(array, dtype=_NUMPY[_dtype(name, array.shape, manifest.storage)])

    arrays = {name: stored(name, tensor) for name, tensor in tensors.items()}
    document = manifest.to_dict()
    table = ((name, _dtype(name, array.shape, manifest.storage), array.shape, array) for name, array in arrays.items())
    text = _canonical({**document, "sha256": _digest(document, table)})
    with whole_file(path) as temporary:
        save_file(arrays, temporary, metadata={KEY: text})
        return Bundle.load(temporary).manifest


# ---------------------------------------------------------------------------------------------- the file's form

_NUMPY = {"F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class _Header:
    manifest: Manifest
    document: dict
    entries: dict[str, _Entry]
    length: int  # bytes before the tensors


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the model's path before whatever is refused within."""
    try:
        yield
    except PedBoneSegError as fault:
        raise BadModel(f"model {path}: {fault.message}", fault.hint) from None
    except OSError as fault:
        raise BadModel(f"model {path} cannot be read: {fault.strerror or fault}", "check the path") from None


def _opened(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # a folder, or a pipe that would never end
        raise BadModel("it is not a file", "name a .safetensors file")
    return open(path, "rb")


def _read_header(stream: BinaryIO) -> _Header:
    start = stream.read(8)
    size = os.fstat(stream.fileno()).st_size
    (length,) = struct.unpack("<Q", start.ljust(8, b"\0"))
    if len(start) < 8 or length > size - 8:
        raise BadModel("it is no safetensors file, or cut off", _DAMAGED)
    if length > HEADER_LIMIT:
        raise BadModel(f"its header has {length} bytes, more than the {HEADER_LIMIT} allowed", _DAMAGED)
    header = _parse(stream.read(length), "header")
    metadata = header.pop("__metadata__", None)
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or len(metadata) != 1:
        raise BadModel("it is not a model of PedBoneSeg: the manifest is missing", "name another file")
    document = _parse(text.encode(), "manifest")
    if _canonical(document) != text:
        raise BadModel("its manifest is not in the form in which it was written", _DAMAGED)
    manifest = Manifest.from_dict(document)
    entries = {name: _entry(name, value) for name, value in header.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end or entry.end - end != math.prod(entry.shape) * _BYTES[entry.dtype]:
            raise BadModel(f"tensor {name} does not lie where it should", _DAMAGED)
        end = entry.end
    if size != 8 + length + end:
        raise BadModel(f"the file has {size} bytes, its header promises {8 + length + end}", _DAMAGED)
    return _Header(manifest, document, entries, 8 + length)


def _parse(text: bytes, what: str) -> dict:
    def unique(pairs: list[tuple[str, object]]) -> dict:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadModel(f"its {what} is not readable", _DAMAGED)
    return document


def _entry(name: str, value: object) -> _Entry:
    entry = _typed(value, {"dtype": str, "shape": list, "data_offsets": list}, f"tensor {name}")
    numbers = entry["shape"] + entry["data_offsets"]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) or len(entry["data_offsets"]) != 2:
        raise BadModel(f"tensor {name} has no proper shape or place", _DAMAGED)
    if entry["dtype"] not in _BYTES:
        raise BadModel(f"tensor {name} is of type {entry['dtype']}, which no model has", _DAMAGED)
    return _Entry(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])


def _typed(document: object, kinds: dict, what: str) -> dict:
    """A copy of `document`, which must have exactly these keys, with values of these types."""
    if not isinstance(document, dict):
        raise BadModel(f"{what} is not an object", _DAMAGED)
    for key in kinds.keys() ^ document.keys():
        fault = "lacks" if key in kinds else "has the unknown key"
        raise BadModel(f"{what} {fault} {key!r}", "update PedBoneSeg, or install the model again")
    for key, kind in kinds.items():
        if not isinstance(document[key], kind) or isinstance(document[key], bool):
            raise BadModel(f"{what} has no proper {key!r}", _DAMAGED)
    return dict(document)


# ------------------------------------------------------------------------------------------------- the contents


def _dtype(name: str, shape: tuple[int, ...], storage: str) -> str:
    """Convolution weights have four axes; everything else needs float32's range and precision."""
    return STORAGES[storage] if name.startswith("network.") and len(shape) == 4 else "F32"


def _skeleton(config: NetworkConfig) -> "Segmenter":
    """The network without memory for its weights, so that a forged configuration costs nothing."""
    import torch

    from .network.segmenter import build_network

    with torch.device("meta"):
        return build_network(config)


def _expected_tensors(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    network = _skeleton(manifest.network)
    shapes = {f"network.{name}": tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for card in manifest.domains:
        if card.signature is not None:
            if card.signature["layer"] >= len(network.encoder.channels):
                raise BadModel(f"domain {card.name}: the signature's layer is none of the encoder's", _DAMAGED)
            channels = network.encoder.channels[card.signature["layer"]]
            shapes[f"signatures.{card.name}"] = (card.signature["references"], channels)
    return {name: (_dtype(name, shape, manifest.storage), shape) for name, shape in shapes.items()}


def _check_table(header: _Header, expected: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    for name in sorted(expected.keys() ^ header.entries.keys()):
        fault = "is missing" if name in expected else "does not belong to this network"
        raise BadModel(f"tensor {name} {fault}", _DAMAGED)
    for name, (dtype, shape) in expected.items():
        entry = header.entries[name]
        if (entry.dtype, entry.shape) != (dtype, shape):
            found = f"{entry.dtype}{list(entry.shape)}"
            raise BadModel(f"tensor {name} is {found}, the network needs {dtype}{list(shape)}", _DAMAGED)


def _read_arrays(stream: BinaryIO, header: _Header) -> dict[str, "np.ndarray"]:
    """The tensors behind the header, hashed and looked at."""
    import numpy as np

    stream.seek(header.length)
    data = bytearray(max((entry.end for entry in header.entries.values()), default=0))
    if stream.readinto(data) != len(data):
        raise BadModel("it is cut off", _DAMAGED)
    view = memoryview(data)
    document = {key: value for key, value in header.document.items() if key != "sha256"}
    table = ((name, e.dtype, e.shape, view[e.begin : e.end]) for name, e in header.entries.items())
    if _digest(document, table) != header.manifest.sha256:
        raise BadModel("its contents do not have the SHA-256 that it states", _DAMAGED)
    arrays = {}
    for name, entry in header.entries.items():
        array = np.frombuffer(view[entry.begin : entry.end], _NUMPY[entry.dtype]).reshape(entry.shape)
        if not np.isfinite(array).all() or (name.endswith(".running_var") and (array < 0).any()):
            raise BadModel(f"tensor {name} holds numbers that no trained model has (not finite, or below 0)")
        arrays[name] = array
    return arrays


def _digest(document: dict, table: Iterable[tuple[str, str, tuple[int, ...], object]]) -> str:
    """SHA-256 over the tensors by name, each as a line of JSON (name, type, shape) and its bytes, then the document."""
    digest = hashlib.sha256()
    for name, dtype, shape, data in sorted(table, key=lambda row: row[0]):
        digest.update(json.dumps([name, dtype, list(shape)]).encode() + b"\n")
        digest.update(data)
    digest.update(_canonical(document).encode())
    return digest.hexdigest()


def _canonical(document: dict) -> str:
    """The one form of a document: sorted, without spaces, ASCII. ValueError for NaN and infinity."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
