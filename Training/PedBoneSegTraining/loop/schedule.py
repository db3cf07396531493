"""What changes over a run, as pure functions of the step: nothing here has a state that a resume could lose."""

import math


def learning_rate(step: int, steps: int, settings) -> float:
    """The rate of step 0 … steps − 1: a linear rise over the warm-up, then the schedule down to 0 at `steps`.

    A warm-up longer than a tenth of the run is cut to that.
    """
    warmup = min(settings.warmup, steps // 10)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
    return settings.learning_rate * factor


def averaging(step: int, decay: float) -> float:
    """The decay of the weights' moving average: from near 0 up to `decay`, so that the start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))
