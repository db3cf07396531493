"""A disk that is full, memory that is short, and another user's files: one line, nothing half written, nothing lost."""

import functools
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

from campaign import Attack, Outcome
from program import SECONDS, VERBS, half_written, orphans, partials, stage, start

WRITERS = ("segment", "segment", "batch", "measure", "install", "demo", "synthesize", "train", "export", "evaluate")
NOBODY = 65534
SCENES = ("image closed", "image private", "folder closed", "results of another", "partials of another", "store closed")


def write_full(rng: random.Random, folder: Path) -> None:
    case = {"verb": rng.choice(WRITERS), "bytes": int(10 ** rng.uniform(2, 6.5)), "kind": rng.choice(["file", "disk"])}
    (folder / "case.json").write_text(json.dumps(case))


def run_full(folder: Path) -> Outcome:
    """No file can grow beyond a size (RLIMIT_FSIZE), or the disk is a small one (tmpfs, for root)."""
    case = json.loads((folder / "case.json").read_text())
    out, limit = folder / "out", case["bytes"]
    out.mkdir()
    if case["kind"] == "file":
        return _run(case, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if os.geteuid() != 0:
        return Outcome("skipped: not root")
    size = limit + (stage() / "home" / "models" / "tiny.safetensors").stat().st_size
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", out], capture_output=True).returncode:
        return Outcome("skipped: no tmpfs")
    try:
        return _run(case, out)
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def write_memory(rng: random.Random, folder: Path) -> None:
    case = {"verb": rng.choice([*VERBS]), "bytes": int(rng.uniform(0.1, 4.0) * 2**30)}
    (folder / "case.json").write_text(json.dumps(case))


def run_memory(folder: Path) -> Outcome:
    """The process may use no more than so much address space. Libraries that cannot even be loaded may end it."""
    case = json.loads((folder / "case.json").read_text())
    out, limit = folder / "out", case["bytes"]
    out.mkdir()
    return _run(case, out, True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))


def _run(case: dict, out: Path, may_die: bool = False, **options) -> Outcome:
    verb = case["verb"]
    process = start(verb, stage(), out, **options)
    try:
        _, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Outcome("hangs", f"{case}: alive after {SECONDS} s")
    code, faults = process.returncode, half_written(out)
    if code >= 0 and (left := partials(out)):
        faults.append(f"left behind: {left[0].name}")
    faults += [f"an orphan: {line}" for line in orphans(process.pid, 10)]
    said = [line for line in stderr.splitlines() if line.startswith(b"pedboneseg: ") and b": warning: " not in line]
    if code not in (0, 2, 3, 4) and not may_die or code in (2, 3, 4) and len(said) > (1 if verb != "batch" else 3):
        faults.append(f"exit code {code}: {stderr[-600:]!r}")
    return Outcome(f"code {code}", f"{case}: {'; '.join(faults)}" if faults else "")


# ---- another user ----------------------------------------------------------------------------------------------------


def write_user(rng: random.Random, folder: Path) -> None:
    case = {"scene": rng.choice(SCENES), "verb": rng.choice(["segment", "batch"])}
    (folder / "case.json").write_text(json.dumps(case))


def run_user(folder: Path) -> Outcome:
    """The program as the user nobody, among files of ours."""
    case = json.loads((folder / "case.json").read_text())
    python = _python_for_nobody()
    if os.geteuid() != 0 or not python:
        return Outcome("skipped: not root, or no Python that others may use")
    at, out, scene = folder / "at", folder / "out", case["scene"]
    shutil.copytree(stage(), at, ignore=shutil.ignore_patterns("train", "segment", "worker-*"))
    for place in (out / "home" / "models", out / "bones", out / "u"):
        place.mkdir(parents=True)
    for path in (folder, at, *at.rglob("*"), out, *out.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    images = [at / "image.nii.gz", at / "cases" / "case1.nii.gz"]
    precious = {out / "bones.seg.nrrd": b"ours", out / "bones" / "case1_bones.nii.gz": b"ours"}
    if scene in ("image closed", "image private"):
        for path in images:
            path.chmod(0o600)
            if scene == "image private":
                os.chown(path, NOBODY, NOBODY)
    if scene == "folder closed":
        for path in (out, out / "bones", out / "u"):
            path.chmod(0o755)
    if scene == "store closed":
        (out / "home" / "models").chmod(0o700)
    if scene in ("results of another", "partials of another"):
        for path, text in precious.items():
            path.parent.chmod(0o1777)
            if scene == "results of another":
                path.write_bytes(text)
            (path.parent / ".pedboneseg-1-x.partial.nii.gz").write_bytes(b"half")
            (path.parent / ".pedboneseg-0a-folder.partial").mkdir()
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(os.path.isdir, sys.path)])
    process = start(case["verb"], at, out, (*user, "env", f"PYTHONPATH={_ours()}{os.pathsep}{paths}"), python)
    _, stderr = process.communicate(timeout=SECONDS)
    code, faults = process.returncode, half_written(out) if scene != "results of another" else []
    single, some_fail = case["verb"] == "segment", scene in ("image closed", "results of another")
    expected = {"folder closed": (2,), "store closed": (3,)}.get(scene, (2,) if some_fail else (0,))
    if code not in expected:
        faults.append(f"exit code {code}: {stderr[-500:]!r}")
    if scene == "results of another":
        faults += [f"{path.name} has changed" for path, text in precious.items() if path.read_bytes() != text]
    if scene == "image private" and single:
        made = [path for path in out.iterdir() if path.is_file()]
        faults += [f"{path.name} is open to others" for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077]
    return Outcome(f"{scene}, code {code}", f"{case}: {'; '.join(faults)}" if faults else "")


def _ours() -> str:
    from program import ROOT

    return str(ROOT)


@functools.cache
def _python_for_nobody() -> str:
    """Ours, or the system's of the same version, whichever another user can run with our libraries."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in filter(None, (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin"))):
        test = [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "env",
            python,
            "-c",
            "import torch",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isdir, sys.path))}
        if shutil.which("setpriv") and subprocess.run(test, env=environment, capture_output=True).returncode == 0:
            return python
    return ""


ATTACKS = [
    Attack("full", write_full, run_full), Attack("memory", write_memory, run_memory),
    Attack("user", write_user, run_user),
]  # fmt: skip
