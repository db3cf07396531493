"""A study as one TOML file, read into frozen dataclasses.

A key that is unknown, of the wrong type or senseless beside another one is an error before any data are read.
`--set section.key=value` overrides; values are TOML too, a bare word counts as a string.

All of it is the study's identity, which a resumed run must share, except `[run]` (where and how often things are
written), the paths of the data (their content has a fingerprint of its own), whatever is switched off, and
`training.steps` of a finished run.
"""

from .reading import from_dict, load
from .sections import Configuration, Data, Domain, Network, Run, Training, changes, flat

__all__ = ["Configuration", "Data", "Domain", "Network", "Run", "Training", "changes", "flat", "from_dict", "load"]
