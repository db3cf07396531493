"""The encoders that a network can have, and how to add one.

To add an encoder, put one file into this folder; nothing else has to change. The file states the names of its
architectures and builds them:

    ARCHITECTURES = ("tiny",)  # a literal: it is read without importing the file, since torch may not be there

    class TinyEncoder(nn.Module):  # see `Encoder`
        ...

    def build_encoder(architecture: str, rows: int, in_channels: int, width: int) -> TinyEncoder:
        return TinyEncoder(rows, in_channels, width)

Code outside this package calls `register("tiny", build_encoder)` before it reads or builds a configuration. A model
that is given away needs the file in this folder: whoever loads the model must know its architecture.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a model's header is read without torch
    from torch import Tensor, nn

    from .dsbn import Runs


class Encoder(Protocol):
    """What the network needs of an encoder, which is a `torch.nn.Module`.

    Every convolution must be a `dsbn.ConvNorm` (convolution → normalization → activation), so that each domain has its
    own normalization and can be folded, or have no normalization at all.

    `channels` and `strides` describe the levels of features, fine to coarse; the strides are powers of two, each twice
    the one before. `decoder_width` scales the decoder's channels; 32 gives the published ones. With `attention`, the
    decoder filters each skip connection through an attention gate.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    decoder_width: int
    attention: bool

    def __call__(self, x: "Tensor", runs: "Runs", level: int = ...) -> "list[Tensor]":
        """Features [n, channels, rows, columns] of `x`, fine to coarse, up to and including `level`; the deeper
        levels are not computed. Without `level`, all of them."""
        ...

    def modules(self) -> "Iterator[nn.Module]": ...
    def named_children(self) -> "Iterator[tuple[str, nn.Module]]": ...


# Called with the architecture's name, the number of sets of normalization (rows), the image's channels, and the width
# from the configuration, which an encoder of fixed widths ignores.
BuildEncoder = Callable[[str, int, int, int], Encoder]

_registered: dict[str, BuildEncoder] = {}


def register(architecture: str, build: BuildEncoder) -> None:
    """Adds an architecture from outside this package. ValueError if the name is taken."""
    if architecture in architectures():
        raise ValueError(f"there is already an architecture {architecture!r}")
    _registered[architecture] = build


def architectures() -> tuple[str, ...]:
    """The names of all architectures."""
    return (*_modules(), *_registered)


def build_encoder(architecture: str, rows: int, in_channels: int, width: int) -> Encoder:
    """A new encoder with weights from torch's global generator. `architecture` is one of `architectures()`."""
    build: BuildEncoder
    if architecture in _registered:
        build = _registered[architecture]
    else:
        build = import_module(f".{_modules()[architecture]}", __package__).build_encoder
    return build(architecture, rows, in_channels, width)


@cache
def _modules() -> dict[str, str]:
    """For each architecture of a file in this folder, the name of its module."""
    modules: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "ARCHITECTURES":
                modules |= dict.fromkeys(ast.literal_eval(statement.value), path.stem)
    return modules
