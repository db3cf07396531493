"""The process that decodes compressed frames does not outlive the program, nor does its folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = """
import sys
from PedBoneSegLib.formats.dicom.decoder import _Process
from PedBoneSegLib.program.interrupts import end_on_signals
end_on_signals()
print(_Process.current()._child.pid, _Process.current()._folder.name, flush=True)
sys.stdin.read()
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process runs")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_it_ends_with_the_program(number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = subprocess.Popen([sys.executable, "-c", STARTS], env=environment, text=True, **pipes)
    pid, folder = program.stdout.readline().split(maxsplit=1)
    program.send_signal(number)
    program.wait()
    end = time.monotonic() + 60
    while (not gone(int(pid)) or Path(folder.strip()).exists()) and time.monotonic() < end:
        time.sleep(0.01)
    assert gone(int(pid)) and not Path(folder.strip()).exists()
