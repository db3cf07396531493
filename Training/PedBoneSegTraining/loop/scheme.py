"""A scheme is what is shared and what is not. From it follow the stages of a run, each a network trained once.

    scheme             networks         convolutions   normalization   output layer   starts from
    individual         one a domain     own            own             own            nothing
    transfer           one a domain     own            own             own            a `shared` network of the others
    shared             one              shared         shared          union          nothing
    domain-heads-only  one              shared         shared          own            nothing
    dsbn-only          one              shared         own             union          nothing
    multi-domain       one              shared         own             own            nothing

Inside a network of one domain, "own" and "shared" are the same; it is written as "domain" so that a model may grow.
"""

from dataclasses import dataclass
from typing import Literal

SHARING = {  # scheme → normalization, head of the one network
    "shared": ("shared", "union"),
    "domain-heads-only": ("shared", "domain"),
    "dsbn-only": ("domain", "union"),
    "multi-domain": ("domain", "domain"),
}


@dataclass(frozen=True)
class Stage:
    """One training: of a segmenter, or of the shape prior's auto-encoder (`kind` "prior").

    `start` names an earlier stage whose filters and normalization this one begins with (its head only where the bones
    are the same); `result` tells whether it is a network that the run is for.
    """

    name: str
    domains: tuple[str, ...]
    steps: int
    kind: Literal["segmenter", "prior"] = "segmenter"
    normalization: str = "domain"
    head: str = "domain"
    start: str = ""
    result: bool = True


def stages(config) -> tuple[Stage, ...]:
    """A run's stages in order. A later kind of pre-training is one more stage before those that start from it."""
    names, training = tuple(config.domains), config.training
    plan = []
    if config.loss.prior.weight:
        plan.append(Stage("prior", names, training.prior_steps, kind="prior", result=False))
    if config.scheme in SHARING:
        return (*plan, Stage(config.scheme, names, training.steps, "segmenter", *SHARING[config.scheme]))
    for name in names:
        start = ""
        if config.scheme == "transfer":
            start = f"before-{name}"
            others = tuple(other for other in names if other != name)
            steps = training.pretraining_steps or training.steps
            plan.append(Stage(start, others, steps, "segmenter", *SHARING["shared"], result=False))
        plan.append(Stage(name, (name,), training.steps, start=start))
    return tuple(plan)
