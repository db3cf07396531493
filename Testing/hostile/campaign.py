"""Attacks the program with inputs and events that no honest user sends, and keeps whatever goes wrong.

    python Testing/hostile/campaign.py --seed 1 --minutes 60
    python Testing/hostile/campaign.py --only formats --minutes 5      a file in `attacks`, or the name of an attack
    python Testing/hostile/campaign.py --case nifti/1/733              one case again, with its files left to look at
    python Testing/hostile/campaign.py --replay                        the corpus, as `make test` does

Every case is a function of (attack, seed, number), so it can be made again. A case that goes wrong is copied to
`corpus/ATTACK/SEED-NUMBER/` with what went wrong in `fault.txt`; once the fault is mended the folder stays, and
`make test` replays it. To add an attack, write a file in `attacks` which defines ATTACKS, a list of `Attack`.
"""

import argparse
import importlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FAULT = "fault.txt"  # what went wrong, beside the files of a case in the corpus
MOST_KEPT = 100_000  # bytes; a larger case is not copied, its name is enough to make it again

if __name__ == "__main__":  # the attacks import this file and the package
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]


@dataclass(frozen=True)
class Outcome:
    """How a case ended. `label` is counted ("accepted", "refused", …); a `fault` that is not empty is a find."""

    label: str
    fault: str = ""


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    `write(random, folder)` writes a case's files into an empty folder, from these random numbers alone. `run(folder)`
    attacks with them and says how it ended; it must end by itself, whatever the program does. All that a case needs
    to be run again has to be in its folder.

        def write(random, folder):
            (folder / "a.nii").write_bytes(random.randbytes(400))

        def run(folder):
            fault = read_in_child(folder / "a.nii")
            return Outcome("refused") if fault is None else Outcome("fault", fault)

        ATTACKS = [Attack("noise", write, run)]
    """

    name: str
    write: Callable[[random.Random, Path], None]
    run: Callable[[Path], Outcome]


def attacks(only: list[str] | None = None) -> dict[str, Attack]:
    """All attacks by name, or those of the files and names in `only`."""
    chosen = {}
    for path in sorted((HERE / "attacks").glob("*.py")):
        for attack in importlib.import_module(f"attacks.{path.stem}").ATTACKS:
            if not only or path.stem in only or attack.name in only:
                chosen[attack.name] = attack
    return chosen


def run_case(attack: Attack, seed: int, number: int, folder: Path) -> Outcome:
    """Writes one case into an empty folder and runs it."""
    attack.write(random.Random(f"{attack.name}/{seed}/{number}"), folder)
    return attack.run(folder)


def replay(case: Path) -> Outcome:
    """Runs one folder of the corpus, on a copy."""
    attack = attacks([case.parent.name])[case.parent.name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "case"
        shutil.copytree(case, folder, ignore=shutil.ignore_patterns(FAULT))
        return attack.run(folder)


def corpus() -> list[Path]:
    """The folders of the corpus, a case each."""
    return sorted(path for path in CORPUS.glob("*/*") if path.is_dir())


def campaign(chosen: dict[str, Attack], seed: int, seconds: float) -> Iterator[tuple[str, int, Outcome]]:
    """Runs cases until the time is up, the attack that has had the least time next; yields each with its number."""
    spent, numbers, end = dict.fromkeys(chosen, 0.0), Counter[str](), time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        name = min(spent, key=spent.__getitem__)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            outcome = run_case(chosen[name], seed, numbers[name], folder)
            if outcome.fault:
                _keep(folder, CORPUS / name / f"{seed}-{numbers[name]}", outcome)
        yield name, numbers[name], outcome
        numbers[name] += 1
        spent[name] += time.monotonic() - start


def _keep(folder: Path, target: Path, outcome: Outcome) -> None:
    """A copy of what was attacked with. Links and pipes are left as they are; their attack has to write them anew."""
    plain = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if sum(path.stat().st_size for path in plain) > MOST_KEPT:
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in plain:
        (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / path.relative_to(folder))
    (target / FAULT).write_text(outcome.fault + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="files in attacks, or names of attacks")
    parser.add_argument("--case", metavar="ATTACK/SEED/NUMBER", help="one case again")
    parser.add_argument("--replay", action="store_true", help="the corpus alone")
    args = parser.parse_args()
    if args.case:
        name, seed, number = args.case.split("/")
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        outcome = run_case(attacks([name])[name], int(seed), int(number), folder)
        print(f"{args.case}: {outcome.label} {outcome.fault}\n{folder}")
        return bool(outcome.fault)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults = 0
    if args.replay:
        cases = ((case.parent.name, case.name, replay(case)) for case in corpus())
    else:
        cases = campaign(attacks(args.only), args.seed, 60 * args.minutes)
    for name, number, outcome in cases:
        counts[name][outcome.label] += 1
        if outcome.fault:
            faults += 1
            print(f"{name}/{args.seed}/{number}: {outcome.fault}", file=sys.stderr, flush=True)
    print(json.dumps({"seed": args.seed, "minutes": args.minutes, "faults": faults, "counts": counts}, indent=1))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
