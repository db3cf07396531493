"""Checks the fields of a request, which are the command line's option names."""

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import BadInput


def check_fields(fields: Mapping[str, Any], allowed: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
    """The fields that are not null. BadInput if one of them is not allowed or a required one is missing."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given.keys() - set(allowed):
        raise BadInput(f"there is no field {name[:80]!r}", f"the fields are {', '.join(sorted(allowed))}")
    for name in set(required) - given.keys():
        raise BadInput(f"the field {name!r} is missing", "add it")
    return given
