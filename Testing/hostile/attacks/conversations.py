"""Anything on a line to the worker: requests by their grammar, with fields of other types, other files, no sense."""

import atexit
import json
import os
import queue
import random
import subprocess
import threading
from pathlib import Path

from campaign import Attack, Outcome
from program import SECONDS, half_written, partials, stage, start

OPS = ("hello", "segment", "batch", "detect", "measure", "models", "release", "cancel", "explode", "", "Segment")
NAMES = ("image.nii.gz", "cases", "segment/bones.seg.nrrd", "study.toml", "other.safetensors", "none", "", "../home")
ODD = (
    None, True, False, 0, -1, 7, 1.5, 1e308, -0.0, 10**30, "", "x", "\ud800", "\0", "a\0b", "../..", "/", "~",
    "~nobody/x", "-", "%s%n", "x" * 300, "x" * 5000, "\x1b[2J", "/dev/zero", "/dev/stdin", [], {}, [1], ["x", None],
    {"a": {"b": []}}, [[[[[]]]]], "knee", "left", "cpu", "cuda:99", "tiny", "list", "install", "remove", "none.nii.gz",
)  # fmt: skip
FIELDS = (
    "input", "output", "joint", "model", "side", "device", "series", "frame", "probabilities", "uncertainty",
    "overwrite", "surfaces", "action", "name", "as", "given_up", "target", "max_voxels", "color", "op", "id", "event",
)  # fmt: skip
RAW = (
    b"", b"{", b"[" * 5000, b'{"a":' * 3000, b"nul", b"\xff\xfe", b"\xef\xbb\xbf{}", b"1e999", b"NaN", b"-",
    b'{"id": 1e999, "op": "models"}', b'{"id": 1, "id": 2, "op": "models"}', b'{"id": NaN, "op": "hello"}',
    b'{"id": ' + b"9" * 5000 + b', "op": "models"}', b'{"id": "\\udfff", "op": "models"}', b"\x00", b"[]", b"{}", b"0",
)  # fmt: skip


def write(rng: random.Random, folder: Path) -> None:
    """Up to twenty lines; a real path is written as "@image.nii.gz", one to write to as "#name"."""
    lines = [_line(rng) for _ in range(rng.randrange(1, 20))]
    (folder / "lines").write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines) + b"\n")


def _line(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(RAW)
    if kind < 0.15:
        return json.dumps(rng.choice(ODD)).encode()
    request = {
        "id": rng.choice((rng.randrange(5), rng.randrange(5), "a", "\ud800", rng.choice(ODD))),
        "op": rng.choice(OPS),
    }
    for name in rng.sample(FIELDS, rng.randrange(0, 6)):
        request[name] = rng.choice((rng.choice(ODD), "@" + rng.choice(NAMES)))
    if request["op"] in ("segment", "detect", "batch", "measure") and rng.random() < 0.7:
        request |= {"input": "@" + rng.choice(NAMES[:3]), "device": "cpu", "model": "tiny"}
    if request["op"] in ("segment", "batch", "measure") and rng.random() < 0.7:
        request |= {"joint": "knee", "output": f"#{rng.choice(('a.nii.gz', 'b.seg.nrrd', 'c', 'no/d.nrrd'))}"}
    if rng.random() < 0.1:
        del request[rng.choice(list(request))]
    line = json.dumps(request).encode()
    if rng.random() < 0.05:
        line = line[: rng.randrange(len(line))]
    return line


class Worker:
    """One worker, kept from case to case, and the lines that it says."""

    def __init__(self) -> None:
        self.out = Path(stage()) / f"worker-{os.getpid()}"
        self.out.mkdir(exist_ok=True)
        self.process = start("serve", stage(), self.out)
        self.lines: queue.Queue[bytes] = queue.Queue()
        for stream, take in ((self.process.stdout, self.lines.put), (self.process.stderr, lambda line: None)):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()

    @staticmethod
    def _read(stream, take) -> None:
        for line in stream:
            take(line)
        take(b"")

    def send(self, line: bytes) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def answers(self, ending: str) -> list[dict]:
        """All answers up to the one with the id `ending`. EOFError where the worker ends before."""
        found = []
        while not found or found[-1].get("id") != ending:
            line = self.lines.get(timeout=SECONDS)
            if not line:
                raise EOFError
            found.append(json.loads(line))
        return found


_worker: Worker | None = None


def run(folder: Path) -> Outcome:
    """Every line that is not blank gets exactly one answer, none of them a bug, and the worker goes on."""
    global _worker
    worker = _worker = _worker or Worker()
    place = {b'"@': f'"{stage()}/'.encode(), b'"#': f'"{worker.out}/'.encode()}
    lines = [line for line in (folder / "lines").read_bytes().splitlines() if line.strip()]
    for line in lines:
        for short, whole in place.items():
            line = line.replace(short, whole)
        worker.send(line + b"\n")
    # A cancel is answered by the thread that reads, after all lines before it were; a request by the one that works.
    worker.send(b'{"id": "the last line", "op": "cancel", "target": "none"}\n')
    worker.send(b'{"id": "the last request", "op": "release"}\n')
    try:
        answers = worker.answers("the last request")
    except EOFError:
        code, _worker = worker.process.wait(), None
        return Outcome("dead", f"the worker ended with code {code}")
    except queue.Empty:
        worker.process.kill()
        _worker = None
        return Outcome("deaf", f"no answer for {SECONDS} s")
    ends = [answer for answer in answers if answer["event"] in ("done", "error")]
    faults = [f"a bug: {answer['message']}" for answer in ends if answer.get("kind") == "bug"]
    if len(ends) != len(lines) + 2:
        faults.append(f"{len(ends) - 2} answers to {len(lines)} lines")
    faults += half_written(worker.out) + [f"left behind: {path.name}" for path in partials(worker.out)]
    return Outcome("answered", "; ".join(faults))


ATTACKS = [Attack("conversation", write, run)]


def _end() -> None:
    if _worker:
        _worker.process.stdin.close()
        try:
            _worker.process.wait(10)
        except subprocess.TimeoutExpired:
            _worker.process.kill()


atexit.register(_end)
