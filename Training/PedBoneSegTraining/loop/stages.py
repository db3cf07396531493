"""The stages of a run: which networks are trained, in what order, and what each starts from.

    scheme             networks         convolutions   normalization   output layer   starts from
    individual         one a domain     own            own             own            nothing
    transfer           one a domain     own            own             own            a `shared` network of the others
    shared             one              shared         shared          union          nothing
    domain-heads-only  one              shared         shared          own            nothing
    dsbn-only          one              shared         own             union          nothing
    multi-domain       one              shared         own             own            nothing

Inside a network of one domain, "own" and "shared" are the same; it is written as "domain" so that a model may grow.
Stages that a term of the loss needs, and a pre-training, come first.
"""

from dataclasses import dataclass

from ..configuration.extensions import Stage
from ..configuration.sections import Configuration

SHARING = {  # scheme → normalization, head of the one network
    "shared": ("shared", "union"),
    "domain-heads-only": ("shared", "domain"),
    "dsbn-only": ("domain", "union"),
    "multi-domain": ("domain", "domain"),
}


@dataclass(frozen=True)
class NetworkStage(Stage):
    """The training of a segmentation network.

    `start` names an earlier stage whose filters and normalization this one begins with (its head only where the bones
    are the same); `result` tells whether the run is for this network.
    """

    normalization: str = "domain"
    head: str = "domain"
    start: str = ""
    result: bool = True


@dataclass(frozen=True)
class PretrainingStage(NetworkStage):
    """The training of an encoder by the pre-training that the configuration chooses."""


def stages(config: Configuration) -> tuple[Stage, ...]:
    """A run's stages in order."""
    names, training = tuple(config.domains), config.training
    plan: list[Stage] = [stage for term in config.active_terms.values() for stage in term.stages(config)]
    start = ""
    if training.pretraining:
        start = f"pretraining-{training.pretraining}"
        steps = config.pretraining[training.pretraining].steps
        sharing = SHARING.get(config.scheme, ("domain", "domain"))
        plan.append(PretrainingStage(start, names, steps, *sharing, result=False))
    if config.scheme in SHARING:
        return (*plan, NetworkStage(config.scheme, names, training.steps, *SHARING[config.scheme], start=start))
    for name in names:
        begin = start
        if config.scheme == "transfer":
            others = tuple(other for other in names if other != name)
            steps = training.pretraining_steps or training.steps
            begin = f"before-{name}"
            plan.append(NetworkStage(begin, others, steps, *SHARING["shared"], start=start, result=False))
        plan.append(NetworkStage(name, (name,), training.steps, start=begin))
    return tuple(plan)
