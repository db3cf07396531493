"""A study as one TOML file, read into frozen dataclasses.

Every section below is a table of the file, every field a key. A key that is unknown, of the wrong kind or
senseless beside another one is an error before any data are read. `--set section.key=value` overrides; values are TOML
too, a bare word counts as a string.

All of it is the study's identity, which a resumed run must share, except `[run]` (where and how often things are
written), the paths of the data (their content has a fingerprint of its own) and `training.steps` of a finished run.
"""

import difflib
import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from PedBoneSegLib.errors import BadInput, BadModel
from PedBoneSegLib.inference.slices import SliceSettings

from .data.augmentation import Augmentation
from .losses.adversarial import Adversarial
from .losses.contrastive import Contrastive
from .losses.segmentation import Segmentation
from .losses.shape_prior import ShapePrior

Scheme = Literal["individual", "transfer", "shared", "multi-domain", "domain-heads-only", "dsbn-only"]


@dataclass(frozen=True)
class Domain:
    """`[domains.NAME]`, one a domain; by default a domain is called like its joint."""

    joint: str = ""  # default: the domain's name
    datasets: tuple[str, ...] = ()  # nnU-Net v2 raw folders, several if need be
    table: str = ""  # a CSV of bones, for a joint that the software does not know
    synthetic: float = 0.0  # share of the samples that is drawn on the fly; 1 needs no data set
    shapes: tuple[str, ...] = ()  # folders of meshes, label maps: further anatomies for what is drawn on the fly
    hold_out: tuple[str, ...] = ()  # cases that this run never sees (the test share of a cross-validation)


@dataclass(frozen=True)
class Network:
    architecture: str = "efficientnet-b0"  # unet, attention-unet, efficientnet-b0 … b4, -lite0 … lite2
    decoder: str = "slim"
    width: int = 32  # of the plain U-Nets
    natural_images: str = ""  # safetensors file of published EfficientNet weights to start from


@dataclass(frozen=True)
class Data:
    patch: tuple[int, int] = (256, 256)  # rows and columns that a step sees, multiples of 32
    foreground: float = 0.7  # share of samples from slices with bone; the others come from any slice of the body
    validation: float = 0.1  # share of a domain's exams that are only looked at
    selection: float = 0.0  # share that chooses among the steps' models; 0: the final step's model is the result
    reserved: float = 0.1  # share kept for temperature, signatures and thresholds, where a data set lists none
    fold: int = 0  # of the data set's splits.json, where there is one; it then decides instead of `validation`


@dataclass(frozen=True)
class Loss:
    """One table a term. A further term is one more file in `losses/` and one more line here."""

    segmentation: Segmentation = field(default_factory=Segmentation)
    contrastive: Contrastive = field(default_factory=Contrastive)
    prior: ShapePrior = field(default_factory=ShapePrior)
    adversarial: Adversarial = field(default_factory=Adversarial)


@dataclass(frozen=True)
class Training:
    steps: int = 10000
    pretraining_steps: int = 0  # scheme transfer: steps on the other joints; 0: as many as `steps`
    prior_steps: int = 0  # steps of the mask auto-encoder, where the prior is on
    batch: int = 8  # images of each domain in a micro-batch
    micro_batches: int = 1  # a step's, all ranks together: the result does not depend on the number of devices
    learning_rate: float = 1e-3
    warmup: int = 100  # steps
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    weight_decay: float = 1e-2  # not of normalization and biases
    clip: float = 1.0  # norm of the gradient; 0: off
    average: float = 0.0  # decay of the weights' moving average, which is then the result (0.999); 0: off
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    validate_every: int = 0  # steps; 0: at the end only


@dataclass(frozen=True)
class Run:
    """What a run may change on its way."""

    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints
    workers: int = 0  # processes that make synthetic exams while the network trains; the result is the same
    log_every: int = 10
    picture_every: int = 500  # 0: none
    export: bool = True  # writes the models when the run ends; off: `pedboneseg export RUN` does it later
    synthetic_reserve: int = 0  # then: exams drawn for the self-knowledge of a domain without data sets; below 8: none
    compile: bool = False  # torch.compile: Linux with a GPU; resuming is then no longer bit for bit


@dataclass(frozen=True)
class Configuration:
    name: str
    domains: dict[str, Domain]
    seed: int = 0
    scheme: Scheme = "multi-domain"
    slices: SliceSettings = field(default_factory=lambda: SliceSettings(pixel_mm=0.7))
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
    training: Training = field(default_factory=Training)
    run: Run = field(default_factory=Run)

    def to_dict(self) -> dict:
        return json.loads(json.dumps(asdict(self)))

    def identity(self) -> dict[str, Any]:
        """Flat {"section.key": value} of everything that makes the result what it is."""
        entries = flat(self.to_dict())
        return {
            key: value for key, value in entries.items() if not key.startswith("run.") and not key.endswith(".datasets")
        }

    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


def load(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Configuration:
    """Reads a file and its overrides; paths of data in it are relative to the current folder."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"the configuration {path} cannot be read: {error.strerror}", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"the configuration {path} is not TOML: {error}", "mend that line") from None
    table.setdefault("name", path.stem)
    for override in overrides:
        _override(table, override)
    return from_dict(table, str(path))


def from_dict(table: dict, where: str = "the configuration") -> Configuration:
    return _checked(_build(Configuration, table, where, ()))


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    entries = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            entries |= flat(value, f"{prefix}{key}.")
        else:
            entries[f"{prefix}{key}"] = value
    return entries


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Two identities' differences, a line each."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys]


def _override(table: dict, override: str) -> None:
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


def _build(kind: type, table: Any, where: str, path: tuple[str, ...]):
    """The dataclass `kind` from a table; every complaint names the full key."""
    if not isinstance(table, dict):
        raise BadInput(f"{where}: {'.'.join(path)} must be a section", f"write [{'.'.join(path)}]")
    known = {each.name for each in fields(kind)}
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: unknown key {'.'.join((*path, key))}", _nearest(key, known, path))
    hints = get_type_hints(kind)
    entries = {key: _value(hints[key], value, where, (*path, key)) for key, value in table.items()}
    try:
        return kind(**entries)
    except TypeError as error:
        raise BadInput(f"{where}: {'.'.join(path) or 'the file'} is not complete: {error}", "add it") from None
    except BadModel as error:  # the slice settings travel in models, and complain as such
        raise BadInput(f"{where}: {error.message}", error.hint) from None


def _nearest(key: str, known: set[str], path: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"did you mean {'.'.join((*path, close[0]))}?"


def _value(kind: Any, value: Any, where: str, path: tuple[str, ...]) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _build(kind, value, where, path)
    if origin is dict:
        if not isinstance(value, dict) or not value:
            raise BadInput(f"{where}: there is no [{'.'.join(path)}.NAME]", "add a section for each of them")
        return {key: _value(get_args(kind)[1], each, where, (*path, key)) for key, each in value.items()}
    if origin is Literal:
        if value not in get_args(kind):
            hint = _nearest(str(value), set(get_args(kind)), ()) + " (" + ", ".join(get_args(kind)) + ")"
            raise BadInput(f"{where}: {'.'.join(path)} = {value!r} is not known", hint)
        return value
    if origin in (Union, UnionType):
        return _value(next(each for each in get_args(kind) if each is not type(None)), value, where, path)
    if origin is tuple:
        of, *rest = get_args(kind)
        length = None if rest == [Ellipsis] else 1 + len(rest)
        if isinstance(value, list | tuple) and length in (None, len(value)):
            return tuple(_value(of, each, where, path) for each in value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    raise BadInput(f"{where}: {'.'.join(path)} = {value!r} is of the wrong kind", f"it takes a {_plain(kind)}")


def _plain(kind: Any) -> str:
    if get_origin(kind) is tuple:
        of, *rest = get_args(kind)
        return f"list of {_plain(of)}s" if rest == [Ellipsis] else f"list of {1 + len(rest)} {_plain(of)}s"
    return {int: "whole number", float: "number", str: "string", bool: "true or false"}[kind]


def _checked(config: Configuration) -> Configuration:
    """Completes what one key says for another, and refuses what makes no sense."""
    domains = {name: replace(each, joint=each.joint or name) for name, each in config.domains.items()}
    config = replace(config, domains=domains)
    training, data, loss = config.training, config.data, config.loss

    def refuse(fault: str, remedy: str):
        raise BadInput(f"{config.name}: {fault}", remedy)

    for name, domain in domains.items():
        if not 0 <= domain.synthetic <= 1:
            refuse(f"domains.{name}.synthetic = {domain.synthetic:g} is not a share", "give 0 to 1")
        if domain.shapes and not domain.synthetic:
            refuse(f"domains.{name}.shapes are for synthetic exams, and none is drawn", f"set domains.{name}.synthetic")
        if domain.synthetic < 1 and not domain.datasets:
            refuse(f"domain {name} has no data", f"give domains.{name}.datasets, or domains.{name}.synthetic = 1")
    several = len(domains) > 1
    if config.scheme == "transfer" and not several:
        refuse("transfer has no other joint to transfer from", "add a domain, or take the scheme individual")
    if loss.contrastive.weight:
        if not several or config.scheme in ("individual", "transfer"):
            of = f"a network of the scheme {config.scheme}" if several else "the study"
            refuse(
                f"the contrastive term needs two domains in a step, and {of} has one: without negatives the embedding "
                "collapses",
                "set loss.contrastive.weight = 0, or take the scheme multi-domain",
            )
        if training.batch < 2:
            refuse("the contrastive term needs two images of each domain", "set training.batch to 2 or more")
    if loss.prior.weight and not training.prior_steps:
        refuse("the shape prior has no model", "set training.prior_steps, the steps of its auto-encoder")
    if training.prior_steps and not loss.prior.weight:
        refuse("training.prior_steps trains a prior that no loss uses", "set loss.prior.weight, or prior_steps = 0")
    if training.pretraining_steps and config.scheme != "transfer":
        refuse(f"the scheme {config.scheme} has no pre-training", "set training.pretraining_steps = 0")
    if not any(getattr(loss, each.name).weight for each in fields(loss)):
        refuse("every term of the loss has weight 0", "give loss.segmentation a weight")
    if config.network.natural_images and not config.network.architecture.startswith("efficientnet"):
        refuse("weights of natural images fit EfficientNets only", 'choose network.architecture = "efficientnet-b0"')
    if any(side < 32 or side % 32 for side in data.patch):
        refuse(f"data.patch = {list(data.patch)}", "rows and columns are multiples of 32")
    for key in ("validation", "selection", "reserved", "foreground"):
        if not 0 <= getattr(data, key) <= 1:
            refuse(f"data.{key} = {getattr(data, key):g} is not a share", "give 0 to 1")
    if data.validation + data.selection + data.reserved >= 1:
        refuse("data.validation, selection and reserved leave nothing to train on", "make them smaller")
    if data.selection and not training.validate_every:
        refuse("data.selection chooses among steps, but nothing is validated on the way", "set training.validate_every")
    for key in ("steps", "batch", "micro_batches"):
        if getattr(training, key) < 1:
            refuse(f"training.{key} = {getattr(training, key)}", "it is at least 1")
    if training.batch == 1 and min(data.patch) == 32:
        refuse("batch normalization cannot work on one value", "set training.batch to 2 or more")
    if not 0 <= training.average < 1 or not training.learning_rate > 0:
        refuse("training.average lies in [0, 1), training.learning_rate above 0", "correct them")
    for key in ("checkpoint_every", "keep", "log_every"):
        if getattr(config.run, key) < 1:
            refuse(f"run.{key} = {getattr(config.run, key)}", "it is at least 1")
    for key in ("synthetic_reserve", "workers"):
        if getattr(config.run, key) < 0:
            refuse(f"run.{key} = {getattr(config.run, key)}", "it is at least 0")
    return config
