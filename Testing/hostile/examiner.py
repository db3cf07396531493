"""Looks at forged models in every way that the program has; started and asked by `Reader`, as `reader.py` is."""

import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 2000  # characters of a message
MOST_BYTES = 500_000_000  # that looking at one may take beyond the idle program
SIZE = (4, 30, 30)


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]
    stdout, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        from tiny import make_tiny_bundle

        good = make_tiny_bundle(Path(folder) / "good.safetensors", ("knee",))
        examine(good, good)  # loads what is to be loaded
        for line in sys.stdin:
            print(json.dumps(examine(Path(json.loads(line)["path"]), good)), file=stdout, flush=True)


def examine(path: Path, good: Path) -> dict:
    """A model is refused with BadModel that names the file, or an image is segmented by it. A good one beside it in the
    store stays usable, and it can be removed."""
    from PedBoneSegLib.models import store

    faults, before = [], memory()
    with tempfile.TemporaryDirectory() as home:
        store.home, store.BUILT_IN = lambda: Path(home), Path(home) / "none"
        store.models_folder().mkdir()
        shutil.copyfile(path, store.models_folder() / "forged.safetensors")
        shutil.copyfile(good, store.models_folder() / "good.safetensors")
        listed = {stored.name: stored for stored in store.list_models()}
        if listed.keys() != {"forged", "good"} or listed["good"].manifest is None:
            faults.append(f"listed: {sorted(listed)}")
        faults += filter(None, (fault(store.verify, path), fault(store.install, path)))
        store.remove("forged")
    refused = fault(load, path)
    faults += filter(None, [refused, fault(use, path)])
    if (grown := memory() - before) > MOST_BYTES:
        faults.append(f"{grown / 1e6:.0f} MB")
    return {"label": "refused" if refused == "" else "accepted", "fault": "; ".join(faults)}


def fault(action, path: Path) -> str | None:
    """None where the action goes through, "" where it is refused as it should be, else what is wrong."""
    from PedBoneSegLib.errors import BadInput, BadModel, Undecided

    try:
        action(path)
    except (BadInput, BadModel, Undecided) as error:
        right = str(error).isprintable() and len(str(error)) < LONGEST and not isinstance(error.__cause__, Exception)
        named = str(path) in str(error) or not isinstance(error, BadModel)
        return "" if right and named else f"{action.__name__}: a message that is no good: {str(error)[:300]}"
    except Exception as error:
        return f"{action.__name__}: {type(error).__name__}: {error}"[:300]
    return None


def load(path: Path) -> None:
    from PedBoneSegLib.models.bundle import Bundle

    Bundle.load(path)


def use(path: Path) -> None:
    import numpy as np

    from PedBoneSegLib.inference.predictor import Predictor
    from PedBoneSegLib.models.bundle import Bundle
    from PedBoneSegLib.volume import Grid, Volume

    bundle = Bundle.load(path)
    grid = Grid(SIZE, (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    volume = Volume(np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE), grid)
    Predictor(bundle, "cpu").segment(volume, bundle.manifest.domains[0].name)


def memory() -> int:
    """The most bytes so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
