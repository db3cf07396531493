"""A worker that misbehaves: `python badworker.py MODE`. It speaks the protocol until the moment that MODE names."""

import json
import os
import subprocess
import sys
import time

import PedBoneSegLib


def say(**answer) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def misbehave(mode: str, number: int) -> None:
    if mode == "dies":
        os._exit(7)
    if mode == "killed":
        os.kill(os.getpid(), 9)
    if mode == "hangs":
        time.sleep(600)
    if mode == "half-a-line":
        sys.stdout.buffer.write(b'{"id": %d, "event": "do' % number)
        sys.stdout.buffer.flush()
        os._exit(0)
    if mode == "noise":
        while True:
            sys.stdout.buffer.write(b"0123456789abcdef" * 64 + b"\n")
    if mode == "endless-line":
        while True:
            sys.stdout.buffer.write(b"x" * 65536)
    if mode == "child":  # with a child of its own, as the launcher has
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say(id=number, event="progress", fraction=0.5, stage=f"child {child.pid}")
        time.sleep(600)
    if mode == "terminal":
        hints = ("say which it is: --joint knee", "write elsewhere with -o", "name the right --joint")
        say(id=number, event="error", kind="bad-input", message="no", hint=hints[number % 3])
    if mode == "chatter":
        sys.stderr.write("Zoë Müller /home/zoe/Zoë Müller/knee.nii.gz\n" * 50)
        sys.stderr.flush()
        say(id=number, event="error", kind="bad-input", message="no", hint="yes")


def main(mode: str) -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if mode.startswith("hello-") and request["op"] == "hello":
            misbehave(mode.removeprefix("hello-"), request["id"])
        if request["op"] == "hello":
            version = "0.0.0" if mode == "other-version" else PedBoneSegLib.__version__
            say(id=request["id"], event="done", version=version, protocol=1, devices=["cpu"])
        elif request["op"] == "cancel":
            say(id=request["id"], event="done")
        else:
            misbehave(mode, request["id"])
            say(id=request["id"], event="done", pid=os.getpid(), op=request["op"])


if __name__ == "__main__":
    main(sys.argv[1])
