"""What can be added to the training library by adding one file.

There are three kinds of extension, each with a registry that the files of one folder fill:

    kind              folder               table in a configuration   contract
    loss term         losses/              [loss.NAME]                LossTerm and Term
    augmentation      data/augmentations/  [augmentation.NAME]        Augmentation
    pre-training      pretraining/         [pretraining.NAME]         Pretraining

An extension is a frozen dataclass: its fields are the keys of its table, its methods do the work. Registering it is all
that is needed; the configuration, its checks, the training loop and the checkpoints pick it up. A file in the folder is
found by itself. Code outside of this package registers in the same way before the configuration is read.

    @LOSS_TERMS.register("smoothness")
    @dataclass(frozen=True)
    class Smoothness(LossTerm):                      # [loss.smoothness]
        order: int = 1                               # loss.smoothness.order; weight and clip are inherited

        def build(self, domains, example):
            return SmoothnessTerm(self)
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output, Segmenter

from ..batch import Batch
from ..randomness import Draws

if TYPE_CHECKING:
    from .sections import Configuration

T = TypeVar("T")
Batches = Mapping[str, Batch]  # one batch for each domain, by the domain's name


class Registry(Generic[T]):
    """Extensions of one kind by name, in alphabetical order. `folder` is the package whose files register them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._classes: dict[str, type[T]] = {}
        self._searched = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """A class decorator; ValueError where another class has that name."""

        def add(extension: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"{self.folder}: {name!r} is registered twice")
            self._classes[name] = extension
            return extension

        return add

    def remove(self, name: str) -> None:
        del self._classes[name]

    def classes(self) -> dict[str, type[T]]:
        """All that are registered; imports the folder's files first."""
        if not self._searched:
            package = importlib.import_module(self.folder)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.folder}.{module.name}")
            self._searched = True
        return dict(sorted(self._classes.items()))

    def defaults(self) -> dict[str, T]:
        return {name: extension() for name, extension in self.classes().items()}


LOSS_TERMS: Registry[LossTerm] = Registry("PedBoneSegTraining.losses")
AUGMENTATIONS: Registry[Augmentation] = Registry("PedBoneSegTraining.data.augmentations")
PRETRAININGS: Registry[Pretraining] = Registry("PedBoneSegTraining.pretraining")


# --------------------------------------------------------------------------------------------------------- loss terms


@dataclass(frozen=True)
class LossTerm:
    """Settings of a term of the loss, and what it needs. All methods but `build` may stay as they are here."""

    weight: float = 0.0  # factor of the term; 0: off, and nothing of it is built
    clip: float = 0.0  # largest norm of its gradient on the network; 0: limited with the others by training.clip

    def faults(self, config: Configuration) -> Iterator[tuple[str, str]]:
        """(what is wrong, what to do) where these settings do not go with the rest. Asked only when the term is on."""
        return iter(())

    def stages(self, config: Configuration) -> tuple[AuxiliaryStage, ...]:
        """Trainings that must come first. Each gives a module that `build` gets."""
        return ()

    def build(self, domains: Sequence[DomainSpec], example: Output, *trained: nn.Module) -> Term:
        """The term for a network of these domains. `example` is an output of that network, to read channels and sizes
        from; `trained` are the modules of `stages`, in that order."""
        raise NotImplementedError


class Term(nn.Module):
    """Calculates one term. What it must learn itself (a projection, a decoder, a discriminator) are its parameters:
    they are trained, saved and resumed with the network's, clipped by themselves, and dropped when a model is exported.

    A term that plays against the network (the adversarial one) returns the sum of both sides' losses, each side seeing
    the other detached; one backward pass serves both.
    """

    rate = 1.0  # share of the learning rate at which its own parameters learn

    def forward(self, output: Output, batches: Batches, context: Context) -> Tensor:
        """A scalar, already multiplied by the weight.

        output:  the network's, for the images of all batches one after the other; `layers(output)` names its features,
                 `output.order` says which images are whose
        batches: each domain's images and labels
        context: the step; log here what should be seen, the unweighted value under the term's own name
        """
        raise NotImplementedError


@dataclass
class Context:
    """Where in the training a step is, and the numbers that it leaves for the log."""

    step: int
    steps: int
    values: dict[str, Tensor] = field(default_factory=dict)

    def log(self, name: str, value: Tensor) -> None:
        """Keeps a scalar for the log, without waiting for the device."""
        self.values[name] = value.detach()


def layers(output: Output) -> dict[str, Tensor]:
    """The network's features by name: "encoder0" (finest) … "encoder4" (the bottleneck), "decoder0" (coarsest) … The
    last decoder layer has the image's size. Each is [images of all domains, channels, rows, columns]."""
    named = {f"encoder{level}": features for level, features in enumerate(output.features)}
    return named | {f"decoder{level}": features for level, features in enumerate(output.decoded)}


# ------------------------------------------------------------------------------------------------------------- stages


@dataclass(frozen=True)
class Stage:
    """One training within a run; it has a folder of this name."""

    name: str
    domains: tuple[str, ...]
    steps: int


@dataclass(frozen=True)
class AuxiliaryStage(Stage):
    """A training before the networks' own, of a module that these need.

    build:  makes the module, from the specs of the stage's domains. `module(batches, context)` is its loss.
    accept: is given the finished module in evaluation mode, each time before it is used, and some batches that it was
            not trained on. Returns numbers for the log; raises BadInput where the module is not good enough.
    """

    build: Callable[[Sequence[DomainSpec]], nn.Module]
    accept: Callable[[nn.Module, Iterator[Batches]], dict[str, float]] = lambda module, batches: {}


@dataclass(frozen=True)
class Pretraining:
    """Settings of a training of the encoder that comes before the segmentation, on the same exams' images. Chosen by
    `training.pretraining = "NAME"`. Afterwards every network of the run starts with its filters and normalization.
    How long it lasts is its own `steps`; `training.pretraining_steps` belongs to the scheme `transfer`.

        @PRETRAININGS.register("reconstruction")
        @dataclass(frozen=True)
        class Reconstruction(Pretraining):
            def build(self, network):
                return ReconstructionModel(network)     # has .network, and a forward(batches, context) → loss
    """

    steps: int = 1000

    def build(self, network: Segmenter) -> nn.Module:
        """The module that is trained. Its attribute `network` is `network`, whose encoder it trains."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------ augmentations

Place = Literal["geometry", "contrast", "gain", "resolution", "noise"]
PLACES: tuple[Place, ...] = ("geometry", "contrast", "gain", "resolution", "noise")


@dataclass(frozen=True)
class Augmentation:
    """An effect that training samples meet. It overrides one of the two methods, or both.

    `place` says where it acts in the order of PLACES, which is that of an acquisition. All draws have names and are
    functions of (seed, domain, step, sample, effect, name): an effect that is added, changed or switched off leaves
    the others as they were.

    A new one is off by default: its `share` of the samples is 0. Every study has every registered effect, so an effect
    that is on by default would change the studies that exist, and their unfinished runs would refuse to go on. Settings
    of an effect that is off are not part of the study's identity.

        @AUGMENTATIONS.register("brightness")
        @dataclass(frozen=True)
        class Brightness(Augmentation):
            shift: float = 0.1
            share: float = 0.0                          # of the samples; 0: off
            place = "contrast"

            def change(self, images, draws):
                shift = self.shift * draws.either_way("shift") * draws.happens(self.share)
                return images + shift.to(images)[:, None, None, None]
    """

    place: ClassVar[Place] = "geometry"

    @property
    def is_on(self) -> bool:
        """Whether these settings change any sample: `share` is above 0, or, without a share, any setting is not 0."""
        return bool(getattr(self, "share", any(astuple(self))))

    def move(self, where: Tensor, draws: Draws, body: Tensor) -> Tensor:
        """`where` [n, 2, rows, columns] says where each pixel of the patch looks: rows and columns, in pixels from the
        patch's center. Image and labels are read there once, after all effects have moved it. `body` [n, 2] is the
        size of the body in the slice, or of the patch where that is shorter."""
        return where

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        """Normalized images [n, C, rows, columns]; the channels of a sample are neighboring slices."""
        return images
