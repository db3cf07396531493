"""The training library's rooms lie on floors, and an import never goes up."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "Training" / "PedBoneSegTraining"
FLOORS = (  # from the top
    "program",
    "report",
    "crossval",
    "studies",
    "models",
    "evaluation",
    "loop",
    "losses pretraining",
    "synthesis",
    "data",
    "configuration",
    "batch memory randomness",
)
FLOOR = {room: -number for number, rooms in enumerate(FLOORS) for room in rooms.split()}


def imported_rooms(path: Path) -> set[str]:
    """The library's rooms that a file imports, inside functions and for types alone too."""
    package = path.relative_to(LIBRARY.parent).with_suffix("").parts
    names: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else ()
            module = (*base, *filter(None, (node.module or "").split(".")))
            names += [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
    return {name[1] for name in names if name[0] == LIBRARY.name and len(name) > 1 and name[1] in FLOOR}


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_go_down(path):
    room = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    if room not in ("__init__", "__main__"):
        upward = {other for other in imported_rooms(path) if FLOOR[other] > FLOOR[room]}
        assert not upward, f"{room} lies below {', '.join(sorted(upward))}"


def test_the_reader_of_imports_sees_what_it_should():
    assert imported_rooms(LIBRARY / "program" / "train.py") == {"configuration", "loop", "models"}
    assert {"batch", "randomness"} <= imported_rooms(LIBRARY / "configuration" / "extensions.py")
