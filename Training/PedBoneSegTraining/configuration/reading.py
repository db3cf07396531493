"""From a TOML file and its overrides to a checked Configuration."""

import difflib
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from PedBoneSegLib.errors import BadInput, BadModel
from PedBoneSegLib.files import read_text

from .checks import complete
from .extensions import AUGMENTATIONS, LOSS_TERMS, PRETRAININGS, Augmentation, LossTerm, Pretraining, Registry
from .sections import Configuration

REGISTRIES: dict[type, Registry] = {
    LossTerm: LOSS_TERMS,
    Augmentation: AUGMENTATIONS,
    Pretraining: PRETRAININGS,
}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """Reads a file and its overrides; paths of data in it are relative to the current folder."""
    path = Path(path)
    try:
        table = tomllib.loads(read_text(path))
    except OSError as error:
        raise BadInput(f"the configuration {path} cannot be read: {error.strerror}", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the configuration {path} is not TOML: {error}", "correct that line") from None
    table.setdefault("name", path.stem)
    for override in overrides:
        _override(table, override)
    return from_dict(table, str(path))


def from_dict(table: dict[str, Any], where: str = "the configuration") -> Configuration:
    """A configuration from its table; keys that are left out have their defaults."""
    return complete(_section(Configuration, table, where, ()))


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {override!r} is not KEY=VALUE", "for example --set training.steps=2000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise BadInput(f"--set {override!r}: {section} is not a section", "check the key")
    table[last] = value


def _section(kind: type, table: Any, where: str, path: tuple[str, ...]) -> Any:
    """The dataclass `kind` from a table; every message names the full key."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}
    _check_keys(table, {field.name for field in fields(kind)}, where, path)
    entries = {key: _value(hints[key], value, where, (*path, key)) for key, value in table.items()}
    try:
        return kind(**entries)
    except TypeError as error:
        raise BadInput(f"{where}: {'.'.join(path) or 'the file'} is not complete: {error}", "add it") from None
    except BadModel as error:  # the slice settings travel in models, and complain as such
        raise BadInput(f"{where}: {error.message}", error.hint) from None


def _check_keys(table: Any, known: Collection[str], where: str, path: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise BadInput(f"{where}: {'.'.join(path)} must be a section", f"write [{'.'.join(path)}]")
    for key in table:
        if key not in known:
            hint = _nearest(key, known, path) if known else "there is nothing of this kind"
            raise BadInput(f"{where}: unknown key {'.'.join((*path, key))}", hint)


def _nearest(key: str, known: Collection[str], path: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"did you mean {'.'.join((*path, close[0]))}?"


def _value(kind: Any, value: Any, where: str, path: tuple[str, ...]) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _section(kind, value, where, path)
    if origin is dict:
        return _named_sections(get_args(kind)[1], value, where, path)
    if origin is Literal:
        if value not in get_args(kind):
            hint = _nearest(str(value), get_args(kind), ()) + " (" + ", ".join(get_args(kind)) + ")"
            raise BadInput(f"{where}: {'.'.join(path)} = {value!r} is not known", hint)
        return value
    if origin in (Union, UnionType):
        return _value(next(part for part in get_args(kind) if part is not type(None)), value, where, path)
    if origin is tuple:
        item, *rest = get_args(kind)
        length = None if rest == [Ellipsis] else 1 + len(rest)
        if isinstance(value, list | tuple) and length in (None, len(value)):
            return tuple(_value(item, part, where, path) for part in value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    raise BadInput(f"{where}: {'.'.join(path)} = {value!r} is of the wrong kind", f"it takes a {_in_words(kind)}")


def _named_sections(kind: type, table: Any, where: str, path: tuple[str, ...]) -> dict[str, Any]:
    """[SECTION.NAME] tables: the domains, which a file names itself, or what is registered, with defaults."""
    registry = REGISTRIES.get(kind)
    if registry is None:
        if not isinstance(table, dict) or not table:
            raise BadInput(f"{where}: there is no [{'.'.join(path)}.NAME]", "add a section for each of them")
        return {name: _section(kind, part, where, (*path, name)) for name, part in table.items()}
    classes = registry.classes()
    _check_keys(table, classes, where, path)
    return {name: _section(known, table.get(name, {}), where, (*path, name)) for name, known in classes.items()}


def _in_words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        item, *rest = get_args(kind)
        return f"list of {_in_words(item)}s" if rest == [Ellipsis] else f"list of {1 + len(rest)} {_in_words(item)}s"
    return {int: "whole number", float: "number", str: "string", bool: "true or false"}[kind]
