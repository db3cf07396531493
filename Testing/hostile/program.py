"""The program's verbs, started as their users start them, and what they leave behind when they end."""

import atexit
import csv
import functools
import gzip
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 180  # for a verb that nothing disturbs, on a machine that is busy with other things
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'Training'}"}
SMALL_RUN = {"training": {"steps": 6}, "run": {"checkpoint_every": 2, "keep": 2, "picture_every": 3, "device": "cpu"}}
KNEE = ("--model", "tiny", "--joint", "knee", "--device", "cpu")


@functools.cache
def stage() -> Path:
    """A folder with what the verbs work on, made once: models, images, a data set. See also NEEDS."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored here would be ignored by the program: see nohup
    sys.path.insert(0, str(ROOT / "Testing"))
    import numpy as np
    import SimpleITK as sitk
    from exam_phantoms import tiny_study, toml, write_dataset
    from tiny import make_tiny_bundle

    folder = Path(tempfile.mkdtemp(prefix="hostile-stage-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "home" / "models").mkdir(parents=True)
    make_tiny_bundle(folder / "home" / "models" / "tiny.safetensors")
    make_tiny_bundle(folder / "other.safetensors", ("knee",), seed=1)
    random = np.random.default_rng(0)
    (folder / "cases").mkdir()
    for number, size in enumerate(((24, 120, 100), (8, 60, 50), (8, 60, 50))):
        image = sitk.GetImageFromArray(random.normal(300, 100, size[::-1]).clip(0, 900).astype(np.int16))
        image.SetSpacing((4.0, 0.8, 1.0))
        name = "image.nii.gz" if number == 0 else f"cases/case{number}.nii.gz"
        sitk.WriteImage(image, str(folder / name))
    data = write_dataset(folder / "data", "knee", 4)
    (folder / "study.toml").write_text(toml(tiny_study({"knee": [data]}, **SMALL_RUN)))
    return folder


# Each verb's arguments, for a folder `at` with what it works on and a folder `out` of its own to write to.
VERBS: dict[str, Callable[[Path, Path], list[object]]] = {
    "segment": lambda at, out: ["segment", at / "image.nii.gz", "-o", out / "bones.seg.nrrd", *KNEE,
                                "--uncertainty", out / "u.nii.gz", "--probabilities", out / "p.nrrd", "--overwrite"],
    "batch": lambda at, out: ["segment", at / "cases", "-o", out / "bones", *KNEE, "--uncertainty", out / "u"],
    "detect": lambda at, out: ["detect", at / "image.nii.gz", "--model", "tiny", "--device", "cpu"],
    "measure": lambda at, out: ["measure", at / "segment" / "bones.seg.nrrd", "--surfaces", out / "surfaces"],
    "models": lambda at, out: ["models", "list"],
    "verify": lambda at, out: ["models", "verify", at / "other.safetensors"],
    "install": lambda at, out: ["models", "install", at / "other.safetensors", "--name", "more", "--overwrite"],
    "demo": lambda at, out: ["demo", "-o", out / "demo"],
    "doctor": lambda at, out: ["doctor"],
    "synthesize": lambda at, out: ["synthesize", out / "data", "--joints", "ankle", "--exams", 1, "--jobs", 2],
    "check-data": lambda at, out: ["check-data", at / "data"],
    "train": lambda at, out: ["train", at / "study.toml", "-o", out / "run"],
    "export": lambda at, out: ["export", at / "train" / "run", "-o", out / "model.safetensors", "--device", "cpu"],
    "evaluate": lambda at, out: ["evaluate", "--model", at / "other.safetensors", "--data", at / "data",
                                 "--joint", "knee", "-o", out / "scores.csv"],
}  # fmt: skip

NEEDS = {"measure": "segment", "export": "train"}  # verbs that go on from what another one wrote


def start(
    verb: str, at: Path, out: Path, before: tuple[str, ...] = (), python: str = sys.executable, **options
) -> subprocess.Popen[bytes]:
    """Starts a verb in a session of its own, with a store of its own in `out`; `before` stands before the command."""
    if (earlier := NEEDS.get(verb)) and not (at / earlier).exists():
        finish(earlier, at, at / earlier)
    (out / "home" / "models").mkdir(parents=True, exist_ok=True)
    model = out / "home" / "models" / "tiny.safetensors"
    if not model.exists():
        shutil.copyfile(at / "home" / "models" / "tiny.safetensors", model)
    arguments = ["serve"] if verb == "serve" else [str(argument) for argument in VERBS[verb](at, out)]
    return subprocess.Popen(
        [*before, python, "-P", "-m", "PedBoneSegLib", *arguments], start_new_session=True,
        env={**ENVIRONMENT, "PEDBONESEG_HOME": str(out / "home")}, cwd=out, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def finish(verb: str, at: Path, out: Path) -> int:
    """Runs a verb to its end, undisturbed; its exit code."""
    out.mkdir(exist_ok=True)
    process = start(verb, at, out)
    process.communicate(timeout=SECONDS)
    return process.returncode


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Waits until the program takes signals itself; before that Python is starting and ends as any program would.
    False where it has ended meanwhile."""
    while process.poll() is None:
        try:
            caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        except OSError:
            continue
        if caught and int(caught[1], 16) >> (signal.SIGHUP - 1) & 1:
            return True
        time.sleep(0.002)
    return False


def orphans(session: int, seconds: float) -> list[str]:
    """The command lines of the processes of a session that still run after so many seconds."""
    end = time.monotonic() + seconds
    while (left := _members(session)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _members(session: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((entry / "cmdline").read_text().replace("\0", " ")[:200])
        except OSError:
            continue
    return found


def half_written(folder: Path) -> list[str]:
    """The files below `folder` that are not whole, by what their names promise."""
    return [
        f"{path.relative_to(folder)} is not whole: {type(fault).__name__}: {fault}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not is_partial(path) and (fault := _fault(path))
    ]


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_partial(path)]


def is_partial(path: Path) -> bool:
    return path.name.startswith(".pedboneseg-")


def _fault(path: Path) -> Exception | None:
    """What reading a whole file meets, by the name's ending; logs and events grow line by line and are left out."""
    from safetensors import safe_open

    from PedBoneSegLib.formats.reading import read_volume
    from PedBoneSegLib.formats.segments import read_segmentation

    try:
        if path.name.endswith(".seg.nrrd"):
            read_segmentation(path)
        elif path.name == "p.nrrd":
            header, _, voxels = path.read_bytes().partition(b"\n\n")
            sizes = re.search(rb"sizes: (.*)", header)[1].split()
            assert len(gzip.decompress(voxels)) == math.prod(map(int, sizes)), "cut off"
        elif path.name.endswith((".nii", ".nii.gz", ".nrrd")):
            read_volume(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    file.get_tensor(name)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            list(csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True))
        elif path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".png":
            assert path.read_bytes()[-8:-4] == b"IEND", "no end"
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "no end"
        elif path.suffix in (".stl", ".ply", ".obj", ".vtp"):
            assert path.stat().st_size > 0, "empty"
    except Exception as fault:
        return fault
    return None
