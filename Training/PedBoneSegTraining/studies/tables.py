"""How a study's numbers are kept: JSON with what made them, Markdown tables, and those in a document between marks."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from PedBoneSegLib import __version__
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.models.bundle import Bundle


def options(text: str, exams: int) -> argparse.ArgumentParser:
    """The options that all studies share."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=exams, help="of each joint and cohort (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps the synthetic exams for the next study")
    parser.add_argument("-o", "--output", type=Path, default=Path("."), metavar="FOLDER")
    parser.add_argument("--document", type=Path, metavar="FILE.md", help="put the tables between this file's marks too")
    parser.add_argument("--device", default="auto")
    return parser


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; numbers to the right, three digits; "–" for None."""

    def cell(value: object) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "–"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [header, ["---", *["--:"] * (len(header) - 1)], *[[cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def keep(name: str, args: argparse.Namespace, numbers: dict, text: str, models: dict[str, Bundle]) -> None:
    """NAME.json and NAME.md; prints the tables."""
    args.output.mkdir(parents=True, exist_ok=True)
    told = sys.argv[1:]
    command = f"python -m PedBoneSegTraining.studies.{name} " + " ".join(_private(word) for word in told)
    about = {
        "command": command,
        "software": __version__,
        "exams": args.exams,
        "models": {key: {"name": each.manifest.name, "sha256": each.manifest.sha256} for key, each in models.items()},
    }
    said = ", ".join(f"{each.manifest.name} ({each.manifest.sha256[:12]})" for each in models.values())
    text = f"{text}\n\nModel: {said}. Command: `{command}`\n"
    _write(args.output / f"{name}.json", json.dumps({**about, **numbers}, indent=1) + "\n")
    _write(args.output / f"{name}.md", text)
    if args.document:
        _write(args.document, spliced(args.document.read_text(encoding="utf-8"), name, text))
    print(text)


def spliced(document: str, name: str, text: str) -> str:
    """`document` with what stands between <!-- NAME --> and <!-- /NAME --> replaced."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(opening)}.*?{re.escape(closing)}", re.DOTALL)
    if not pattern.search(document):
        raise BadInput(f"the document has no marks {opening} … {closing}", "add them where the tables should stand")
    return pattern.sub(lambda _: f"{opening}\n{text}\n{closing}", document)


def _private(word: str) -> str:
    """A path without its folders: they may say who ran it."""
    name, equals, path = word.partition("=") if "=" in word else ("", "", word)
    return name + equals + Path(path).name if "/" in path or "\\" in path else word


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """How often an image of `outside` has the greater score; ties count half. NaN where there is none."""
    if not len(inside) or not len(outside):
        return float("nan")
    a, b = np.asarray(inside, float)[:, None], np.asarray(outside, float)[None]
    return float(((b > a) + 0.5 * (b == a)).mean())


def missed_at_95(inside: Sequence[float], outside: Sequence[float]) -> float:
    """False positives at 95 % true positives: the share of `outside` that passes where 95 % of `inside` do."""
    if not len(inside) or not len(outside):
        return float("nan")
    return float((np.asarray(outside, float) <= np.percentile(inside, 95)).mean())
