"""The configuration of a network: plain data, without torch, so that a model's header can be read without torch."""

import re
from dataclasses import dataclass
from typing import Any

from .encoders import architectures

DECODERS = ("wide", "slim")
NORMALIZATIONS = ("domain", "shared")
HEADS = ("domain", "union")

BACKGROUND = "background"  # channel 0 of every domain

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class DomainSpec:
    """One domain: images of one joint that look alike, for example from one scanner. `bones` are in the order of their
    labels; the background is not listed."""

    name: str
    joint: str
    bones: tuple[str, ...]

    def __post_init__(self) -> None:
        for text in (self.name, self.joint):
            if not isinstance(text, str) or not _NAME.fullmatch(text):
                raise ValueError(f"{text!r} is no name for a domain or joint: use letters, digits, - and _ only")
        if not isinstance(self.bones, tuple) or not all(isinstance(bone, str) and bone for bone in self.bones):
            raise ValueError(f"the bones of domain {self.name} are not a tuple of names")
        if not 1 <= len(set(self.bones)) == len(self.bones) <= 254:
            raise ValueError(f"domain {self.name} needs 1 to 254 bones, each named once")
        if BACKGROUND in self.bones:
            raise ValueError(f"domain {self.name}: {BACKGROUND!r} is not a bone")


@dataclass(frozen=True)
class NetworkConfig:
    """The complete description of a network: the same configuration always gives tensors of the same names and shapes.

    `architecture`: one of `encoders.architectures()`.
    `normalization`: every domain has its own statistics and affine parameters ("domain"), or all domains share one set
    ("shared").
    `head`: every domain has its own output layer ("domain"), or there is one output layer for the bones of all joints,
    of which an exam uses those of its joint ("union").
    `width`: channels of the finest level of the plain U-Nets. The EfficientNets have fixed widths.
    """

    architecture: str
    domains: tuple[DomainSpec, ...]
    decoder: str = "slim"
    in_channels: int = 1
    normalization: str = "domain"
    head: str = "domain"
    width: int = 32

    def __post_init__(self) -> None:
        choices = {
            "architecture": architectures(), "decoder": DECODERS, "head": HEADS, "normalization": NORMALIZATIONS,
        }  # fmt: skip
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} {getattr(self, field)!r} is not one of {', '.join(allowed)}")
        for field, maximum in (("in_channels", 64), ("width", 128)):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= maximum:
                raise ValueError(f"{field} {value!r} is not a whole number from 1 to {maximum}")
        if not isinstance(self.domains, tuple) or not all(isinstance(spec, DomainSpec) for spec in self.domains):
            raise ValueError("the domains are not a tuple of DomainSpec")
        if not 1 <= len({spec.name for spec in self.domains}) == len(self.domains) <= 256:
            raise ValueError("a network needs 1 to 256 domains, each named once")

    def domain(self, name: str) -> DomainSpec:
        """The domain with that name; ValueError if there is none."""
        return self.domains[self.index(name)]

    def index(self, name: str) -> int:
        """The position of a domain, which is also its row in every tensor that is stacked by domain."""
        for index, spec in enumerate(self.domains):
            if spec.name == name:
                return index
        raise ValueError(f"unknown domain {name!r}; this network knows {', '.join(s.name for s in self.domains)}")

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "NetworkConfig":
        """The reverse of `dataclasses.asdict`. ValueError for anything else."""
        try:
            domains = tuple(DomainSpec(**{**spec, "bones": tuple(spec["bones"])}) for spec in document["domains"])
            return cls(**{**document, "domains": domains})
        except (TypeError, KeyError) as fault:
            raise ValueError(f"not a network configuration: {fault}") from None
