"""A real Slurm on this machine alone: its daemons, their configuration, and the end of all of them.

Debian's packages `slurm-wlm` and `munge` must be installed, and the caller must be root. Everything that Slurm writes
lies in one folder; nothing of an existing installation is touched but munge's key, which is made if there is none.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = """
ClusterName=one-node
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=20
SlurmdTimeout=10
ReturnToService=2
MessageTimeout=20
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=work Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
"""
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
READY_SECONDS = 60


class OneNode:
    """`with OneNode(folder) as slurm:` starts it; `slurm.environment` is what Slurm's commands need to find it."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if missing or os.geteuid():
            raise SystemExit(
                f"this needs root and Debian's packages slurm-wlm and munge ({', '.join(missing)} missing)"
            )
        self.folder, self.host = folder, socket.gethostname()
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "OneNode":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        text = CONFIGURATION.format(host=self.host, folder=self.folder, cpus=os.cpu_count())
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid", f"--log-file={self.folder}/munge.log",
            f"--seed-file={self.folder}/munge.seed",
        )  # fmt: skip
        self._wait_for((self.folder / "munge.socket").exists, "munge")
        self._start("slurmctld", "-D")
        self.start_node()
        self._wait_for(lambda: self.call("sinfo", "--noheader", "--format=%t").startswith("idle"), "the node")
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            daemon.wait(30)

    def start_node(self) -> None:
        """Starts the node's daemon, at first or after `kill_node`."""
        self._start("slurmd", "-D", "-N", self.host)

    def kill_node(self) -> None:
        """Kills the node's daemon, as a crash would."""
        self._daemons["slurmd"].kill()
        self._daemons["slurmd"].wait()

    def call(self, *command: str) -> str:
        """One of Slurm's commands; what it prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def waits(self) -> bool:
        """Whether a job still waits or runs."""
        return bool(self.call("squeue", "--noheader").strip())

    def _start(self, name: str, *options: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            self._daemons[name] = subprocess.Popen([name, *options], env=self.environment, stdout=log, stderr=log)

    def _wait_for(self, condition, what: str) -> None:
        end = time.monotonic() + READY_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"{what} is not ready after {READY_SECONDS} s; see the logs in {self.folder}")
            time.sleep(0.2)
