"""A training's state on disk: one safetensors file a checkpoint, its facts as JSON in the header, no pickle.

A checkpoint appears whole or not at all, and carries a SHA-256 over everything in it. What a disk or a copy damaged is
passed over for the one before, aloud.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from PedBoneSegLib.files import sweep_partials, whole_file

KEY = "pedboneseg-checkpoint"
_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass
class Checkpoint:
    """`tensors` lie on the CPU; `facts` is JSON: step, finished, hashes of configuration and data, and more."""

    path: Path
    tensors: dict[str, torch.Tensor]
    facts: dict

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors below `prefix.`, named without it."""
        return {name[len(prefix) + 1 :]: each for name, each in self.tensors.items() if name.startswith(prefix + ".")}


class DamagedCheckpoint(Exception):
    """Why a file is not used."""


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor], facts: dict, keep: int) -> Path:
    """Writes the checkpoint of `step` and drops all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep_partials(folder)
    tensors = {name: each.detach().to("cpu", copy=True).contiguous() for name, each in tensors.items()}
    text = json.dumps({"facts": facts, "sha256": _digest(tensors, facts)})
    path = folder / f"step-{step:08d}.safetensors"
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: text})
    for old in checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name)), reverse=True)


def load(path: Path) -> Checkpoint:
    """DamagedCheckpoint where the file is not exactly what was written."""
    try:
        with safe_open(path, "pt") as file:
            stated = json.loads((file.metadata() or {})[KEY])
            # Copies: tensors that lie in the mapped file would keep it from being replaced or removed on some systems.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        facts, sha256 = stated["facts"], stated["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{path.name} cannot be read ({type(error).__name__}: {error})") from None
    if _digest(tensors, facts) != sha256:
        raise DamagedCheckpoint(f"{path.name} does not have the SHA-256 that it states")
    return Checkpoint(path, tensors, facts)


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; `say` hears of those that are not."""
    for path in checkpoints(folder):
        try:
            return load(path)
        except DamagedCheckpoint as reason:
            say(f"checkpoint passed over: {reason}")
    return None


def _digest(tensors: dict[str, torch.Tensor], facts: dict) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
