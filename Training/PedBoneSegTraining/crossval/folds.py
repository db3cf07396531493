"""Which exams each fold holds out, paired across joints.

Fold i of a leave-one-out holds out the i-th exam of every joint, so that networks of one joint and networks of all
joints are scored on the same exams by folds that trained on the same others. A joint with fewer exams than there are
folds takes part in the later folds with all of its exams: it trains, and none of them is held out there.

Exams are taken in the order of their names. For k folds they are dealt out after a shuffle that depends on the seed and
the exam's name alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PedBoneSegLib.errors import BadInput

Fold = dict[str, tuple[str, ...]]  # domain → the exams that this fold holds out; a domain may have none


def leave_one_out(exams: Mapping[str, Sequence[str]]) -> list[Fold]:
    """As many folds as the largest domain has exams."""
    ordered = {domain: sorted(names) for domain, names in exams.items()}
    count = max(map(len, ordered.values()), default=0)
    return [{domain: tuple(names[number : number + 1]) for domain, names in ordered.items()} for number in range(count)]


def k_folds(exams: Mapping[str, Sequence[str]], count: int, seed: int) -> list[Fold]:
    """`count` folds; in each domain their sizes differ by one exam at most."""
    largest = max(map(len, exams.values()), default=0)
    if not 2 <= count <= largest:
        raise BadInput(f"{count} folds cannot be made of {largest} exams", f"ask for 2 to {largest}, or leave one out")
    shuffled = {
        domain: sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        for domain, names in exams.items()
    }
    return [
        {domain: tuple(sorted(names[number::count])) for domain, names in shuffled.items()} for number in range(count)
    ]


def read_folds(path: str | Path, exams: Mapping[str, Sequence[str]]) -> list[Fold]:
    """From a JSON file: a list of folds, each {domain: [exam held out, …]}. No exam is held out twice."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"the folds {path} cannot be read: {error}", 'write [{"knee": ["case01"]}, …]') from None
    if not isinstance(document, list) or not all(isinstance(fold, dict) for fold in document) or not document:
        raise BadInput(f"{path} is not a list of folds", 'write [{"knee": ["case01"]}, …]')
    folds, seen = [], set()
    for number, fold in enumerate(document):
        for domain, names in fold.items():
            if domain not in exams:
                raise BadInput(f"{path}: fold {number} names the domain {domain!r}", f"it is {', '.join(exams)}")
            for name in names:
                if name not in exams[domain]:
                    raise BadInput(f"{path}: fold {number}: {domain} has no exam {name!r}", "correct the name")
                if (domain, name) in seen:
                    raise BadInput(f"{path}: {domain} {name} is held out twice", "hold each exam out in one fold")
                seen.add((domain, name))
        folds.append({domain: tuple(fold.get(domain, ())) for domain in exams})
    return folds
