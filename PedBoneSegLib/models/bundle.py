"""A model on disk, in one safetensors file: tensors, and its manifest under the key `pedboneseg` of the metadata.

Nothing in it can be executed, there is nothing to unpack and no path to follow. `read_manifest` needs the standard
library alone, so that models and joints can be listed before torch or numpy is installed. Nothing of a model is used
before all of it was checked (`Bundle.load`): the header's size and form, the schema, the file's length, every
tensor's name, type and shape, the SHA-256 over tensors and manifest, and that all numbers are finite. Whatever is
wrong with a file raises BadModel with the file's name.

Tensors: `network.*`, the network's state (convolution weights as the manifest's `storage` says, all else float32);
`signatures.<domain>` [references, channels] for the domains that have a signature, `pooled.<domain>` [references,
2 × channels] and maybe `others.<domain>` for those whose signature has `pooled`.
"""

import csv
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadModel, PedBoneSegError
from ..files import whole_file
from ..network.config import NetworkConfig
from .manifest import Manifest, canonical, parse, typed

if TYPE_CHECKING:  # torch and numpy are loaded where weights are, no earlier
    import numpy as np
    from numpy.typing import NDArray

    from ..network.fold import FoldedNetwork
    from ..network.segmenter import Segmenter

    Array = NDArray[np.floating]

KEY = "pedboneseg"
HEADER_LIMIT = 1 << 20  # bytes; the largest network's table takes a tenth of it, the manifest less
FILE_LIMIT = 1 << 30  # bytes
MOST_AXES = 8  # of a tensor
TYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2)}  # safetensors' name: numpy's, bytes
Row = tuple[str, str, tuple[int, ...], Any]  # a tensor's name, type, shape and bytes
REMEDY = "copy or install the model again"


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest alone: the header, all of the manifest and the file's length are checked, the tensors are not."""
    with _opened(path) as stream:
        return _read_header(stream).manifest


@dataclass(frozen=True)
class Bundle:
    """A whole model in memory, all of it checked. The file is not needed anymore."""

    path: Path
    manifest: Manifest
    tensors: dict[str, "Array"] = field(repr=False)  # by their names in the file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bundle":
        with _opened(path) as stream:
            header = _read_header(stream)
            _check_table(header, _expected_tensors(header.manifest))
            return cls(Path(path), header.manifest, _read_arrays(stream, header))

    def network(self) -> "Segmenter":
        """A new network, in float32 and evaluation mode, on the CPU."""
        import torch

        network = _skeleton(self.manifest.network)
        state = {
            name.removeprefix("network."): torch.from_numpy(array).to(torch.float32, copy=True)
            for name, array in self.tensors.items()
            if name.startswith("network.")
        }
        network.load_state_dict(state, assign=True)
        return network.eval()

    def folded(self, domain: str) -> "FoldedNetwork":
        """The plain network of one domain, its temperature included."""
        from ..network.fold import fold

        return fold(self.network(), domain, self.manifest.domain(domain).temperature)


def verify(path: str | os.PathLike[str]) -> Manifest:
    """All checks of `Bundle.load` except the comparison with the network that the manifest describes; no torch."""
    with _opened(path) as stream:
        header = _read_header(stream)
        _read_arrays(stream, header)
        return header.manifest


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, tensors: Mapping[str, Any]) -> Manifest:
    """Writes a model, whole or not at all, over whatever is at `path`; returns the manifest with its hash.

    `tensors`: `network.<name>` for every entry of the network's `state_dict`, and the signatures; of torch or numpy.
    Their types are chosen here. What could not be loaded again is not written (BadModel).
    """
    import numpy as np
    from safetensors.numpy import save_file

    document, arrays, table = manifest.to_dict(), {}, []
    for name, tensor in tensors.items():
        array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().numpy()
        kind = _type(name, array.shape, manifest.storage)
        with np.errstate(over="ignore"):  # a weight too large for float16 becomes infinite, and is refused as such
            arrays[name] = np.ascontiguousarray(array, TYPES[kind][0])
        table.append((name, kind, array.shape, arrays[name]))
    text = canonical({**document, "sha256": _digest(document, table)})
    with whole_file(path) as temporary:
        save_file(arrays, temporary, metadata={KEY: text})
        return Bundle.load(temporary).manifest


# ------------------------------------------------------------------------------------------------ the file's form


class _Entry(NamedTuple):
    type: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header(NamedTuple):
    manifest: Manifest
    document: dict[str, Any]
    entries: dict[str, _Entry]
    length: int  # bytes before the tensors


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """The file to read. Whatever goes wrong in the block is the fault of this model, and named as such."""
    try:
        if Path(path).exists() and not Path(path).is_file():  # a folder, or a pipe that would never end
            raise BadModel("it is not a file", "name a .safetensors file")
        with open(path, "rb") as stream:
            yield stream
    except PedBoneSegError as fault:
        raise BadModel(f"model {path}: {fault.message}", fault.hint or REMEDY) from None
    except OSError as fault:
        raise BadModel(f"model {path} cannot be read: {fault.strerror or fault}", "check the path") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, csv.Error) as fault:
        # Nothing is known that comes here; but one file must not stop the listing of all the others.
        raise BadModel(f"model {path} cannot be understood: {type(fault).__name__}: {fault}", REMEDY) from fault


def _read_header(stream: BufferedReader) -> _Header:
    size = os.fstat(stream.fileno()).st_size
    (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))
    if size > FILE_LIMIT:
        raise BadModel(f"it has {size} bytes, more than the {FILE_LIMIT} allowed")
    if length > size - 8:
        raise BadModel("it is not a safetensors file, or cut off")
    if length > HEADER_LIMIT:
        raise BadModel(f"its header has {length} bytes, more than the {HEADER_LIMIT} allowed")
    table = parse(stream.read(length), "header")
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.keys() != {KEY} or not isinstance(metadata[KEY], str):
        raise BadModel("it is not a model of PedBoneSeg: it has no manifest", "name another file")
    document = parse(metadata[KEY].encode("utf-8", "replace"), "manifest")
    if canonical(document) != metadata[KEY]:
        raise BadModel("its manifest is not in the form in which it was written")
    manifest = Manifest.from_dict(document)
    entries = {name: _entry(name, value) for name, value in table.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end or entry.end - end != math.prod(entry.shape) * TYPES[entry.type][1]:
            raise BadModel(f"tensor {name} does not lie where it should")
        end = entry.end
    if size != 8 + length + end:
        raise BadModel(f"the file has {size} bytes, its header promises {8 + length + end}")
    return _Header(manifest, document, entries, 8 + length)


def _entry(name: str, value: object) -> _Entry:
    entry = typed(value, {"dtype": str, "shape": list, "data_offsets": list}, f"tensor {name}")
    shape, place = entry["shape"], entry["data_offsets"]
    if len(place) != 2 or not all(type(number) is int and 0 <= number <= FILE_LIMIT for number in place):
        raise BadModel(f"tensor {name} has no proper place")
    if len(shape) > MOST_AXES or not all(type(number) is int and 1 <= number <= FILE_LIMIT for number in shape):
        raise BadModel(f"tensor {name} has no proper shape")
    if entry["dtype"] not in TYPES:
        raise BadModel(f"tensor {name} is of type {entry['dtype']}, which no model has")
    return _Entry(entry["dtype"], tuple(shape), place[0], place[1])


# --------------------------------------------------------------------------------------------------- the contents


def _type(name: str, shape: tuple[int, ...], storage: str) -> str:
    """Convolution weights have four axes; everything else needs float32's range and precision."""
    return "F16" if storage == "float16" and name.startswith("network.") and len(shape) == 4 else "F32"


def _skeleton(config: NetworkConfig) -> "Segmenter":
    """The network without memory for its weights, so that a forged configuration costs nothing."""
    import torch

    from ..network.segmenter import build_network

    with torch.device("meta"):
        return build_network(config)


def _expected_tensors(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor that this model must have."""
    network = _skeleton(manifest.network)
    shapes = {f"network.{name}": tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for card in manifest.domains:
        if card.signature is not None:
            pooled = card.signature.get("pooled") or {"layer": 0, "others": 0}
            channels, exams = network.encoder.channels, card.signature["references"]
            if max(card.signature["layer"], pooled["layer"]) >= len(channels):
                raise BadModel(f"domain {card.name}: the signature's layer is none of the encoder's")
            shapes[f"signatures.{card.name}"] = (exams, channels[card.signature["layer"]])
            if "threshold" in pooled:
                shapes[f"pooled.{card.name}"] = (exams, 2 * channels[pooled["layer"]])
            if pooled["others"]:
                shapes[f"others.{card.name}"] = (pooled["others"], 2 * channels[pooled["layer"]])
    return {name: (_type(name, shape, manifest.storage), shape) for name, shape in shapes.items()}


def _check_table(header: _Header, expected: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    for name in sorted(expected.keys() ^ header.entries.keys()):
        raise BadModel(f"tensor {name} " + ("is missing" if name in expected else "does not belong to this network"))
    for name, (kind, shape) in expected.items():
        entry = header.entries[name]
        if (entry.type, entry.shape) != (kind, shape):
            raise BadModel(f"tensor {name} is {entry.type} {list(entry.shape)}, it must be {kind} {list(shape)}")


def _read_arrays(stream: BufferedReader, header: _Header) -> dict[str, "Array"]:
    """The tensors behind the header, all of them hashed, and checked number by number."""
    import numpy as np

    stream.seek(header.length)
    data = bytearray(max((entry.end for entry in header.entries.values()), default=0))
    stream.readinto(data)  # a file cut off since its header was read has another hash
    view = memoryview(data)
    document = {key: value for key, value in header.document.items() if key != "sha256"}
    table = ((name, e.type, e.shape, view[e.begin : e.end]) for name, e in header.entries.items())
    if _digest(document, table) != header.manifest.sha256:
        raise BadModel("its contents do not have the SHA-256 that it states")
    arrays = {}
    for name, entry in header.entries.items():
        array = np.frombuffer(view[entry.begin : entry.end], TYPES[entry.type][0]).reshape(entry.shape)
        if not np.isfinite(array).all() or (name.endswith(".running_var") and (array < 0).any()):
            raise BadModel(f"tensor {name} holds numbers that no trained network has (not finite, or below 0)")
        arrays[name] = array
    return arrays


def _digest(document: Mapping[str, Any], table: Iterable[Row]) -> str:
    """SHA-256 over the tensors by name, each as a line of JSON (name, type, shape) and its bytes, then the document."""
    digest = hashlib.sha256()
    for name, kind, shape, data in sorted(table, key=lambda row: row[0]):
        digest.update(json.dumps([name, kind, list(shape)]).encode() + b"\n")
        digest.update(data)
    digest.update(canonical(document).encode())
    return digest.hexdigest()
