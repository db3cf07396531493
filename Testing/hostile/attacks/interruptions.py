"""Every verb ended at a random moment: by a signal, a kill, the end of its input, or at one of its system calls."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from campaign import Attack, Outcome
from program import SECONDS, VERBS, finish, half_written, listens, orphans, partials, stage, start

LATEST = 6.0  # seconds after the start at which a verb may be struck; most are done earlier when nothing else runs
SLOWEST = 10.0  # seconds that the end may take here, where others may be using the machine; see docs/reliability.md
ENDS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
CALLS = ("openat", "write", "rename", "unlink", "fsync", "mkdir", "flock", "close")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EMFILE")
WRITERS = ("segment", "batch", "install", "measure")


def write_signal(rng: random.Random, folder: Path) -> None:
    case = {"verb": rng.choice([*VERBS, "serve", "serve", "serve"]), "end": rng.choice(ENDS), "after": rng.random()}
    if case["verb"] == "serve":
        case |= {"end": rng.choice([*ENDS, "EOF"]), "busy": rng.choice(["idle", "segment", "batch", "hello", "detect"])}
    (folder / "case.json").write_text(json.dumps(case))


def run_signal(folder: Path) -> Outcome:
    """Struck between the moment when it listens and LATEST: code 5, nothing half written, no orphan."""
    case = json.loads((folder / "case.json").read_text())
    at, out, verb, end = stage(), folder / "out", case["verb"], case["end"]
    out.mkdir()
    process = start(verb, at, out)
    try:
        if verb == "serve":
            _ask(process, case["busy"], at, out)
        listening = listens(process)
        try:
            process.wait(case["after"] * LATEST)
        except subprocess.TimeoutExpired:
            pass
        done, struck = process.poll() is not None, time.monotonic()
        if end == "EOF":
            process.stdin.close()
        elif not done:
            process.send_signal(getattr(signal, end))
        return _judge(process, case, out, done or not listening, struck)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _ask(process: subprocess.Popen[bytes], busy: str, at: Path, out: Path) -> None:
    fields = {"input": str(at / "image.nii.gz"), "device": "cpu", "model": "tiny"}
    request = {
        "segment": {**fields, "joint": "knee", "output": str(out / "bones.nii.gz")},
        "batch": {**fields, "joint": "knee", "input": str(at / "cases"), "output": str(out / "bones")},
        "detect": fields, "hello": {},
    }  # fmt: skip
    for number in range(0 if busy == "idle" else 40):
        line = {"id": number, "op": busy, **request[busy]}
        if busy == "segment":
            line["overwrite"] = True
        process.stdin.write(json.dumps(line).encode() + b"\n")
    process.stdin.flush()


def _judge(process: subprocess.Popen[bytes], case: dict, out: Path, done: bool, struck: float) -> Outcome:
    try:
        code, stderr = process.wait(SLOWEST), b""
    except subprocess.TimeoutExpired:
        return Outcome("hangs", f"{case}: alive {SLOWEST:g} s after {case['end']}")
    seconds = time.monotonic() - struck
    if process.stderr:
        os.set_blocking(process.stderr.fileno(), False)
        stderr = process.stderr.read() or b""
    expected = {"SIGKILL": (-signal.SIGKILL,), "EOF": (0,)}.get(case["end"], (5,))
    faults = half_written(out)
    if code not in expected and not (code == 0 or done):
        faults.append(f"exit code {code}: {stderr[-300:]!r}")
    if case["end"] != "SIGKILL" and (left := partials(out)):
        faults.append(f"left behind: {left[0].name}")
    if code == 5 and stderr.count(b"pedboneseg: cancelled") != 1:
        faults.append(f"says {stderr[-300:]!r}")
    faults += [f"an orphan: {line}" for line in orphans(process.pid, SLOWEST)]
    if case["end"] == "SIGKILL" and case["verb"] in WRITERS:
        if finish(case["verb"], stage(), out) != 0 or partials(out) or half_written(out):
            faults.append("the next call does not complete it")
    place = "done before" if done or code == 0 and case["end"] != "EOF" else "within 2 s" if seconds < 2 else "later"
    return Outcome(f"{case['end']} {place}", f"{case}: {'; '.join(faults)}" if faults else "")


def write_call(rng: random.Random, folder: Path) -> None:
    kind = rng.choice(["signal=SIGKILL", "signal=SIGKILL", "signal=SIGTERM", f"error={rng.choice(ERRORS)}"])
    calls = CALLS if kind.startswith("signal") else CALLS[:6]
    case = {"verb": rng.choice(WRITERS), "call": rng.choice(calls), "kind": kind, "number": rng.randrange(1, 60)}
    (folder / "case.json").write_text(json.dumps(case))


def run_call(folder: Path) -> Outcome:
    """Killed, or told of an error, at the n-th call of one kind that touches the folder it writes to (strace): nothing
    is half written, and the next call completes it."""
    if not shutil.which("strace"):
        return Outcome("skipped: no strace")
    case = json.loads((folder / "case.json").read_text())
    at, out, verb = stage(), folder / "out", case["verb"]
    out.mkdir()
    for name in ("surfaces", "bones", "u", "home", "home/models"):
        (out / name).mkdir()
    paths = [item for name in ("", "surfaces", "bones", "u", "home/models") for item in ("-P", str(out / name))]
    trace = f"{case['call']}:{case['kind']}:when={case['number']}"
    what = ("-e", f"trace={case['call']}", "-e", f"inject={trace}")
    strace = ("strace", "-qq", "-f", "--seccomp-bpf", "-o", "/dev/null", *paths, *what)
    process = start(verb, at, out, strace)
    try:
        _, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Outcome("hangs", f"{case}: alive after {SECONDS} s")
    faults, code = half_written(out), process.returncode
    lines = stderr.count(b"\n") - stderr.count(b"warning: ")
    if case["kind"].startswith("error") and (code not in (0, 2, 4) or lines > (3 if verb == "batch" else 1)):
        faults.append(f"exit code {code}: {stderr[-400:]!r}")
    if finish(verb, at, out) != 0 or partials(out) or half_written(out):
        faults.append("the next call does not complete it")
    return Outcome(f"{case['kind']}, code {code}", f"{case}: {'; '.join(faults)}" if faults else "")


ATTACKS = [Attack("signal", write_signal, run_signal), Attack("call", write_call, run_call)]
