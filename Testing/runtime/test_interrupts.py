"""A signal ends the program at once, with exit code 5 and nothing half written, whatever the main thread is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """
import os, signal, sys, threading, time
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.program.interrupts import end_on_signals, end_with_parent, ignore_signals
def say(text):
    print(text, flush=True)
"""
WORKS = {  # what the main thread is doing
    "waiting": "sys.stdin.read()",
    "computing": "while True: pass",
    "holding stderr": "sys.stderr.buffer.write(b'x' * (1 << 20))",  # nobody reads it: it waits within the write
    "in a finally": "\ntry: 1 / 0\nfinally: sys.stdin.read()",
    "catching everything": "\nwhile True:\n try: time.sleep(1)\n except BaseException: pass",
}


def start(code, **options):
    command = [sys.executable, "-c", PRELUDE + code, *map(str, options.pop("arguments", ()))]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, **pipes, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_whatever_is_going_on(tmp_path, work, number):
    body = f"""
end_on_signals()
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    say("working")
    {work.replace(chr(10), chr(10) + "    ")}
"""
    child = start(body, arguments=[tmp_path / "out.txt"])
    assert child.stdout.readline() == b"working\n"
    child.send_signal(number)
    assert child.wait(60) == 5
    assert list(tmp_path.iterdir()) == []
    if "stderr" not in work:
        assert child.stderr.read() == b"pedboneseg: cancelled\n"


def test_under_nohup_a_closed_terminal_stays_ignored():
    """What someone sends on purpose is heard all the same; a shell has its background jobs ignore SIGINT."""
    code = """
for name in ("SIGINT", "SIGHUP", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
end_on_signals()
say([signal.getsignal(getattr(signal, name)) == signal.SIG_IGN for name in ("SIGINT", "SIGHUP", "SIGTERM")])
"""
    assert start(code).communicate()[0] == b"[False, True, False]\n"


def test_signals_that_others_handle_do_not_end_the_program():
    child = start("signal.signal(signal.SIGUSR1, lambda *_: say('theirs'))\nend_on_signals()\n"
                  "os.kill(os.getpid(), signal.SIGUSR1)\nsay('here')\nos.kill(os.getpid(), signal.SIGTERM)\n"
                  "sys.stdin.read()")  # fmt: skip
    assert child.wait(60) == 5 and child.stdout.read() == b"theirs\nhere\n"


def test_when_the_work_is_done_a_signal_changes_nothing():
    child = start("end_on_signals()\nignore_signals()\nos.kill(os.getpid(), signal.SIGTERM)\nsay('here')\nsys.exit(0)")
    assert child.communicate() == (b"here\n", b"") and child.returncode == 0


@pytest.mark.parametrize("module", ["argparse", "numpy", "torch", "torch._C"])
def test_while_modules_are_loading(tmp_path, module):
    """From its own first modules to the start of torch's C++, where an exception would abort the process."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import builtins, os, signal
load = builtins.__import__
def hook(name, *args, **options):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGTERM)
    return load(name, *args, **options)
builtins.__import__ = hook
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    command = [sys.executable, "-P", "-m", "PedBoneSegLib", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"", b"pedboneseg: cancelled\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_child_that_follows_its_parent_ends_with_it(number):
    """Whatever the child is doing; it holds the other end of the pipe that is read here."""
    child = f"{PRELUDE}\nend_on_signals()\nend_with_parent()\nsay('up')\nwhile True: pass"
    parent = f"""
import subprocess
from PedBoneSegLib.program.interrupts import FOLLOW
end_on_signals()
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, env={{**os.environ, FOLLOW: "yes"}})
sys.stdin.read()
"""
    process = start(parent)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert process.stdout.read() == b"" and process.wait(60) == (-9 if number == signal.SIGKILL else 5)
