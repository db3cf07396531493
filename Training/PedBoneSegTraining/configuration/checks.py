"""What keys of a configuration say together: completed where one follows from another, refused where it is senseless.

Each check gives pairs of (what is wrong, what to do); the first one is the error.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from PedBoneSegLib.errors import BadInput

from .sections import Configuration

Faults = Iterator[tuple[str, str]]


def complete(config: Configuration) -> Configuration:
    """The configuration with each domain's joint filled in; BadInput where it makes no sense."""
    domains = {name: replace(domain, joint=domain.joint or name) for name, domain in config.domains.items()}
    config = replace(config, domains=domains)
    checks = (_domains, _scheme, _terms, _network, _shares, _fold, _optimization, _run)
    for fault, remedy in chain.from_iterable(check(config) for check in checks):
        raise BadInput(f"{config.name}: {fault}", remedy)
    return config


def _domains(config: Configuration) -> Faults:
    for name, domain in config.domains.items():
        if not 0 <= domain.synthetic <= 1:
            yield f"domains.{name}.synthetic = {domain.synthetic:g} is not a share", "give 0 to 1"
        if domain.shapes and not domain.synthetic:
            yield f"domains.{name}.shapes are for synthetic exams, and none is drawn", f"set domains.{name}.synthetic"
        if domain.synthetic < 1 and not domain.datasets:
            yield f"domain {name} has no data", f"give domains.{name}.datasets, or domains.{name}.synthetic = 1"


def _scheme(config: Configuration) -> Faults:
    training = config.training
    if config.scheme == "transfer" and len(config.domains) == 1:
        yield "transfer has no other joint to transfer from", "add a domain, or take the scheme individual"
    if training.pretraining_steps and config.scheme != "transfer":
        yield f"the scheme {config.scheme} has no pre-training", "set training.pretraining_steps = 0"
    if training.pretraining and training.pretraining not in config.pretraining:
        known = ", ".join(config.pretraining) or "none is installed"
        yield f"training.pretraining = {training.pretraining!r} is not known", f"known: {known}"
    if training.pretraining and config.network.natural_images:
        yield "an encoder starts from a pre-training or from natural images, not both", "leave one of them out"


def _terms(config: Configuration) -> Faults:
    if not config.active_terms:
        yield "every term of the loss has weight 0", "give loss.segmentation a weight"
    for name, term in config.active_terms.items():
        yield from term.faults(config)
        if term.clip and config.training.precision == "float16":
            yield f"loss.{name}.clip does not work with float16", "set training.precision to bfloat16 or float32"
    if config.training.prior_steps and not config.loss["prior"].weight:
        yield "training.prior_steps trains a prior that no loss uses", "set loss.prior.weight, or prior_steps = 0"


def _network(config: Configuration) -> Faults:
    if config.network.natural_images and not config.network.architecture.startswith("efficientnet"):
        yield "weights of natural images fit EfficientNets only", 'choose network.architecture = "efficientnet-b0"'
    if any(side < 32 or side % 32 for side in config.data.patch):
        yield f"data.patch = {list(config.data.patch)}", "rows and columns are multiples of 32"
    if config.training.batch == 1 and min(config.data.patch) == 32:
        yield "batch normalization cannot work on one value", "set training.batch to 2 or more"


def _shares(config: Configuration) -> Faults:
    data = config.data
    for key in ("validation", "selection", "reserved", "foreground"):
        if not 0 <= getattr(data, key) <= 1:
            yield f"data.{key} = {getattr(data, key):g} is not a share", "give 0 to 1"
    if data.validation + data.selection + data.reserved >= 1:
        yield "data.validation, selection and reserved leave nothing to train on", "make them smaller"
    if data.selection and not config.training.validate_every:
        yield "data.selection chooses among steps, but nothing is validated on the way", "set training.validate_every"


def _fold(config: Configuration) -> Faults:
    yield from _at_least(0, config.data, "data", ("fold",))


def _optimization(config: Configuration) -> Faults:
    training = config.training
    yield from _at_least(1, training, "training", ("steps", "batch", "micro_batches"))
    if not 0 <= training.average < 1 or not training.learning_rate > 0:
        yield "training.average lies in [0, 1), training.learning_rate above 0", "correct them"


def _run(config: Configuration) -> Faults:
    yield from _at_least(1, config.run, "run", ("checkpoint_every", "keep", "log_every"))
    yield from _at_least(0, config.run, "run", ("synthetic_reserve", "workers"))


def _at_least(least: int, section: object, name: str, keys: tuple[str, ...]) -> Faults:
    for key in keys:
        if getattr(section, key) < least:
            yield f"{name}.{key} = {getattr(section, key)}", f"it is at least {least}"
