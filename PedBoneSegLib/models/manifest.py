"""What a model says about itself: one JSON document in the header of its file (see `bundle`). Standard library only.

Everything in it is checked before anything is believed: types, ranges, and that all numbers are finite.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..anatomy import JointTable
from ..errors import BadInput, BadModel
from ..network.config import NetworkConfig
from .slice_settings import SliceSettings

SCHEMA = 1
FEWEST_REFERENCES = 8  # reference exams of a domain; with fewer there is no verdict
MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
PRECISIONS = ("float32", "bfloat16", "float16")
STORAGES = ("float32", "float16")
TEMPERATURES = (0.01, 100.0)  # export looks for one between 0.2 and 10
DEEPEST = 16  # levels of lists and objects within each other
REVIEW_CURVE = 255  # numbers in each curve of the review's calibration, see `inference.review`


@dataclass(frozen=True)
class DomainCard:
    """What the model knows about one domain besides its weights.

    `settings`: those of the slices (see `SliceSettings`). `temperature`: what the logits are divided by. `signature`:
    None, or `layer` (the encoder's level), `threshold` (of the distance), `references` (number of exams) and maybe
    `pooled` (`layer`, `threshold`, and with a number of `others` the threshold `apart`; see `inference.signature`).
    `exam_statistics`: the share, 0 to 1, of an exam's own statistics in the normalization (see `network.exam`).
    `metrics`: whatever export measured.
    """

    name: str
    joint: str
    table: JointTable
    settings: dict[str, Any]
    temperature: float = 1.0
    signature: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    exam_statistics: float = 0.0

    def __post_init__(self) -> None:
        try:
            SliceSettings.from_dict(self.settings)
        except BadModel as fault:
            raise BadModel(f"domain {self.name}: {fault.message}", fault.hint) from None
        if not TEMPERATURES[0] <= self.temperature <= TEMPERATURES[1]:
            raise BadModel(f"domain {self.name}: the temperature {self.temperature} is not from 0.01 to 100")
        if not 0 <= self.exam_statistics <= 1:
            raise BadModel(f"domain {self.name}: the share of the exam's statistics is not from 0 to 1")
        if self.signature is not None:
            self._check_signature(self.signature)

    def _check_signature(self, signature: Mapping[str, Any]) -> None:
        what = f"domain {self.name}: the signature"
        layer, threshold, references = (signature.get(key) for key in ("layer", "threshold", "references"))
        if type(layer) is not int or type(references) is not int or layer < 0 or references < 1:
            raise BadModel(f"{what} lacks its layer or its number of references")
        if not isinstance(threshold, float) or not 0 < threshold < math.inf:
            raise BadModel(f"{what}'s threshold {str(threshold)[:40]} is not above 0")
        if signature.get("pooled") is not None:
            kinds: dict[str, type] = {"layer": int, "threshold": float, "others": int, "apart": float}
            pooled = typed(signature["pooled"], kinds, f"{what}'s pooled")
            limits = pooled["threshold"], pooled["apart"]
            if min(pooled["layer"], pooled["others"]) < 0 or not all(0 < limit < math.inf for limit in limits):
                raise BadModel(f"{what}'s pooled has numbers that make no sense")

    def to_dict(self) -> dict[str, Any]:
        """`exam_statistics` is left out where it is 0, so that older versions can read such models."""
        document = {**vars(self), "table": self.table.to_csv(), "temperature": float(self.temperature)}
        if not self.exam_statistics:
            del document["exam_statistics"]
        return document

    @classmethod
    def from_dict(cls, document: object) -> "DomainCard":
        if isinstance(document, dict):
            document = {"exam_statistics": 0.0, **document}
        values = typed(document, _kinds(cls, table=str, settings=dict), "a domain")
        if not isinstance(values["signature"], (dict, type(None))) or not isinstance(values["metrics"], dict):
            raise BadModel("a domain's signature or metrics are not an object")
        try:
            table = JointTable.from_csv(values["table"], values["joint"])
        except BadInput as fault:
            raise BadModel(fault.message, "export the model again") from None
        return cls(**{**values, "table": table})


@dataclass(frozen=True)
class Manifest:
    """All of a model except its tensors.

    `precisions`: those in which export found the labels unchanged, "float32" always among them. `storage`: how the
    convolution weights are stored, "float32" or "float16". `review`: the calibration of the review, or None.
    `card`: the model card, Markdown. `sha256`: of the whole model; known once it is written.
    """

    name: str
    version: str
    licence: str
    provenance: dict[str, Any]
    network: NetworkConfig
    domains: tuple[DomainCard, ...]
    precisions: tuple[str, ...] = ("float32",)
    storage: str = "float32"
    review: dict[str, Any] | None = None
    card: str = ""
    sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not MODEL_NAME.fullmatch(self.name):
            raise BadModel(f"{self.name!r} is no name for a model", "use small letters, digits and . _ -, 64 at most")
        if not set(self.precisions) <= set(PRECISIONS) or "float32" not in self.precisions:
            raise BadModel(f"model {self.name}: its precisions {self.precisions} are not float32 and others known")
        if self.storage not in STORAGES:
            raise BadModel(f"model {self.name}: unknown storage {self.storage!r}")
        cards = [(card.name, card.joint, card.table.names) for card in self.domains]
        if cards != [(spec.name, spec.joint, spec.bones) for spec in self.network.domains]:
            raise BadModel(f"model {self.name}: its domains or bones are not those of its network")
        for card in self.domains:
            channels = SliceSettings.from_dict(card.settings).channels
            if channels != self.network.in_channels:
                fault = f"domain {card.name}: slices of {channels} channels for a network of {self.network.in_channels}"
                raise BadModel(f"model {self.name}, {fault}")
        for domain, calibration in (self.review or {}).items():
            _check_review(calibration, f"model {self.name}, domain {domain}: the calibration of the review")

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

    def to_dict(self) -> dict[str, Any]:
        """The JSON document without the hash, which is taken over it."""
        document = {**vars(self), "schema": SCHEMA, "network": asdict(self.network)}
        document["domains"] = [card.to_dict() for card in self.domains]
        del document["sha256"]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Manifest":
        """The reverse of `to_dict`, the hash included. BadModel for anything else."""
        schema = document.get("schema")
        if schema != SCHEMA or type(schema) is not int:
            fault = f"its schema is {str(schema)[:40]}, this PedBoneSeg reads schema {SCHEMA}"
            raise BadModel(fault, "update PedBoneSeg")
        kinds = _kinds(cls, schema=int, network=dict, domains=list, precisions=list, provenance=dict)
        values = typed(document, kinds, "the manifest")
        del values["schema"]
        if not isinstance(values["review"], (dict, type(None))):
            raise BadModel("its calibration of the review is not an object")
        if not all(isinstance(precision, str) for precision in values["precisions"]):
            raise BadModel("its precisions are not a list of names")
        try:
            values["network"] = NetworkConfig.from_dict(values["network"])
        except ValueError as fault:
            raise BadModel(str(fault)) from None
        values["domains"] = tuple(DomainCard.from_dict(card) for card in values["domains"])
        return cls(**{**values, "precisions": tuple(values["precisions"])})

    def _choice(self) -> str:
        return ", ".join(dict.fromkeys(name for card in self.domains for name in (card.joint, card.name)))


def _check_review(calibration: object, what: str) -> None:
    """Probabilities: a curve for bone, one for background, and a number for what post-processing changed."""
    values = typed(calibration, {"bone": list, "background": list, "changed": float, "exams": int}, what)
    numbers = [*values["bone"], *values["background"], values["changed"]]
    right = len(values["bone"]) == len(values["background"]) == REVIEW_CURVE and values["exams"] >= 0
    if not right or not all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers):
        raise BadModel(f"{what} holds no probabilities", "export the model again")


def _kinds(record: type, **others: type) -> dict[str, Any]:
    """The types of a record's entries in JSON: those of its fields, except for `others` and what may hold anything."""
    found: dict[str, Any] = {entry.name: entry.type for entry in fields(record)}
    return {name: kind if isinstance(kind, type) else object for name, kind in (found | others).items()}


def typed(document: object, kinds: Mapping[str, type], what: str) -> dict[str, Any]:
    """A copy of `document`, which must be an object of exactly these keys, with values of these types."""
    if not isinstance(document, dict):
        raise BadModel(f"{what} is not an object")
    for key in sorted(kinds.keys() ^ document.keys()):
        fault = "lacks" if key in kinds else "has the unknown key"
        raise BadModel(f"{what} {fault} {key[:40]!r}", "update PedBoneSeg, or install the model again")
    for key, kind in kinds.items():
        if not isinstance(document[key], kind) or isinstance(document[key], bool):
            raise BadModel(f"{what} has no proper {key!r}")
    return dict(document)


def parse(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object, read strictly: no key twice, no NaN, no number beyond what a float can hold."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number} is not finite")
        return float(number)

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
        _check_depth(document, DEEPEST)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadModel(f"its {what} is not readable")
    return document


def _check_depth(value: object, levels: int) -> None:
    if levels == 0:
        raise ValueError("nested too deep")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _check_depth(child, levels - 1)


def canonical(document: Mapping[str, Any]) -> str:
    """The one form of a document: sorted, without spaces, ASCII. ValueError for NaN and infinity."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
