"""Forged models: parts of a model's file are changed, the manifest is rightly signed again, a good one lies beside."""

import hashlib
import json
import random
import struct
from pathlib import Path

from campaign import Attack, Outcome
from program import HERE, stage
from reader import Reader

VALUES = (
    None, True, False, 0, 1, -1, 2, 255, 10**9, 2**63, 10**400, 0.0, -1.0, 1e-300, 1e308, 0.01, 1e6, "", "x", "knee",
    "../x", "x" * 300, "x" * 140_000, "\x1b[2J", "\ud800", "=1+1", [], {}, [1], [[]], {"a": 1}, "axial", "unet",
)  # fmt: skip


def write(rng: random.Random, folder: Path) -> None:
    data = (stage() / "other.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.randrange(10)
        if kind < 6:
            document = json.loads(header["__metadata__"]["pedboneseg"])
            _change(rng, document)
            header["__metadata__"]["pedboneseg"] = _signed(document, header, body)
        elif kind < 8:
            entry = header[rng.choice(sorted(header.keys() - {"__metadata__"}))]
            key = rng.choice(sorted(entry))
            entry[key] = rng.choice(
                (rng.choice(VALUES), [0, 2**47, 2**47], [0], [1] * 50, [rng.randrange(9), 4], "F64")
            )
        elif kind == 8:
            at = 4 * rng.randrange(len(body) // 4)
            body = (
                body[:at]
                + struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e38, -1e38, 0.0)))
                + body[at + 4 :]
            )
            document = json.loads(header["__metadata__"]["pedboneseg"])
            try:
                header["__metadata__"]["pedboneseg"] = _signed(document, header, body)
            except (TypeError, ValueError, KeyError):
                pass
        else:
            header[rng.choice(("network.more", "signatures.knee", "x", "__metadata__"))] = rng.choice(VALUES)
            break
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + body
    if rng.random() < 0.15:
        changed = bytearray(data)
        changed[rng.randrange(min(len(data), 9 + len(text)))] ^= 1 << rng.randrange(8)
        data = bytes(changed[: rng.randrange(len(data)) if rng.random() < 0.5 else None])
    (folder / "forged.safetensors").write_bytes(data)


def _change(rng: random.Random, here) -> None:
    """One value anywhere in the document becomes another one, goes, or is added."""
    while True:
        key = rng.choice(sorted(here) if isinstance(here, dict) else range(len(here)))
        if not here[key] or not isinstance(here[key], (dict, list)) or rng.random() < 0.3:
            break
        here = here[key]
    if isinstance(here, dict) and rng.random() < 0.1:
        here["more"] = rng.choice(VALUES)
    elif isinstance(here, dict) and rng.random() < 0.1:
        del here[key]
    else:
        here[key] = rng.choice(VALUES)


def _signed(document: dict, header: dict, body: bytes) -> str:
    """The manifest's text with the hash that the file would have to have."""
    document.pop("sha256", None)
    digest = hashlib.sha256()
    for name in sorted(header.keys() - {"__metadata__"}):
        entry = header[name]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode() + b"\n")
        try:
            digest.update(body[slice(*entry["data_offsets"])])
        except TypeError:
            pass
    digest.update(_canonical(document).encode())
    text = _canonical({**document, "sha256": digest.hexdigest()})
    return text.replace(":1e+308", ":1e999") if digest.digest()[0] < 16 else text


def _canonical(document: dict) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


examiner = Reader(HERE / "examiner.py", seconds=60)


def run(folder: Path) -> Outcome:
    answer = examiner(folder / "forged.safetensors")
    return Outcome(answer["label"], answer["fault"])


ATTACKS = [Attack("model", write, run)]
