"""What a model says of itself: one JSON document in the header of its file (see `bundle`). Standard library only."""

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields

from ..anatomy import JointTable
from ..errors import BadModel
from ..network.config import NetworkConfig

SCHEMA = 1
MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
PRECISIONS = ("float32", "bfloat16", "float16")
STORAGES = ("float32", "float16")


@dataclass(frozen=True)
class DomainCard:
    """What the model knows of one domain beside its weights.

    `settings`: those of the slices (see `slices`). `temperature`: what the logits are divided by. `signature`: None,
    or `layer` (the encoder's level), `threshold` (of the distance), `references` (number of exams) and maybe `pooled`
    (`layer`, `threshold`, and with a number of `others` the threshold `apart`; see the room `signature`). `metrics`:
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
            if not isinstance(threshold, float) or not 0 < threshold < math.inf:
                raise BadModel(f"domain {self.name}: the signature's threshold {threshold!r} is not above 0")
            if (more := self.signature.get("pooled")) is not None:
                kinds = {"layer": int, "threshold": float, "others": int, "apart": float}
                more = typed(more, kinds, f"domain {self.name}: the signature's pooled")
                limits = more["threshold"], more["apart"]
                if min(more["layer"], more["others"]) < 0 or not all(0 < limit < math.inf for limit in limits):
                    raise BadModel(f"domain {self.name}: the signature's pooled {more} makes no sense")

    def to_dict(self) -> dict:
        return {**vars(self), "table": self.table.to_csv(), "temperature": float(self.temperature)}

    @classmethod
    def from_dict(cls, document: object) -> "DomainCard":
        values = typed(document, _kinds(cls, table=str), "a domain")
        return cls(**{**values, "table": JointTable.from_csv(values["table"], values["joint"])})


@dataclass(frozen=True)
class Manifest:
    """All of a model but its tensors.

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
            raise BadModel(f"{self.name!r} is no name for a model", "use small letters, digits and . _ -, 64 at most")
        if not set(self.precisions) <= set(PRECISIONS) or "float32" not in self.precisions:
            raise BadModel(f"model {self.name}: its precisions {self.precisions} are not float32 and others known")
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
        """The JSON document without the hash, which is taken over it."""
        document = {**vars(self), "schema": SCHEMA, "network": asdict(self.network)}
        document["domains"] = [card.to_dict() for card in self.domains]
        del document["sha256"]
        return document

    @classmethod
    def from_dict(cls, document: dict) -> "Manifest":
        """The reverse of `to_dict`, the hash included. BadModel for anything else."""
        schema = document.get("schema")
        if schema != SCHEMA or type(schema) is not int:
            raise BadModel(f"its schema is {schema!r}, this PedBoneSeg reads schema {SCHEMA}", "update PedBoneSeg")
        kinds = _kinds(cls, schema=int, network=dict, domains=list, precisions=list)
        values = typed(document, kinds, "the manifest")
        del values["schema"]
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


def _kinds(record: type, **others: type) -> dict[str, type]:
    """The types of a record's entries in JSON: those of its fields, but for some."""
    return {entry.name: entry.type for entry in fields(record)} | others


def typed(document: object, kinds: dict, what: str) -> dict:
    """A copy of `document`, which must be an object of exactly these keys, with values of these types."""
    if not isinstance(document, dict):
        raise BadModel(f"{what} is not an object")
    for key in sorted(kinds.keys() ^ document.keys()):
        fault = "lacks" if key in kinds else "has the unknown key"
        raise BadModel(f"{what} {fault} {key!r}", "update PedBoneSeg, or install the model again")
    for key, kind in kinds.items():
        if not isinstance(document[key], kind) or isinstance(document[key], bool):
            raise BadModel(f"{what} has no proper {key!r}")
    return dict(document)


def parse(text: bytes, what: str) -> dict:
    """A JSON object, read strictly: no key twice, no NaN."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadModel(f"its {what} is not readable")
    return document


def canonical(document: dict) -> str:
    """The one form of a document: sorted, without spaces, ASCII. ValueError for NaN and infinity."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
