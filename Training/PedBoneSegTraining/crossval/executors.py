"""Where jobs run: several processes on this machine, or a job array on a Slurm cluster.

A job is a command that goes on where it was stopped and leaves a file when it is done. Nothing else is kept of it: who
asks again later looks for the files, and what has none is started again.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import write_text
from PedBoneSegLib.program.interrupts import FOLLOW

END_SECONDS = 30  # that a job gets to stop by itself
CANCELLED = 5  # the exit code of a program that was stopped


@dataclass(frozen=True)
class Job:
    """`command` does the work, `done` is the file that it leaves, `log` gets what it prints."""

    name: str
    command: tuple[str, ...]
    done: Path
    log: Path


def run_here(jobs: Sequence[Job], at_once: int, say=print) -> int:
    """Runs the jobs that are not done, `at_once` at a time; one that fails does not stop the others. Returns the
    highest of the exit codes. Interrupted, it stops the jobs that run before it ends itself."""
    waiting = [job for job in jobs if not job.done.exists()]
    running: dict[subprocess.Popen, Job] = {}
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, FOLLOW: "yes"}
    worst = 0
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                with open(job.log, "ab") as log:
                    process = subprocess.Popen(
                        job.command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
                    )
                running[process] = job
                say(f"{job.name}: started")
            for process in [process for process in running if process.poll() is not None]:
                job, code = running.pop(process), process.returncode
                code = code if code >= 0 else 1  # ended by a signal
                worst = max(worst, code)
                say(f"{job.name}: done" if job.done.exists() else f"{job.name}: failed, see {job.log}")
            time.sleep(0.1)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    return worst


SLURM_SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={folder}/slurm-%A-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
{options}
# One of the commands, by the job's place in the array; each goes on where it was stopped. Preempted, or on a node that
# fails, a job is put into the queue again by Slurm. A minute before its time limit, it puts itself there.
commands=(
{commands}
)
stop() {{ kill -TERM "$child" 2>/dev/null; wait "$child"; }}
trap 'stop; scontrol requeue "$SLURM_JOB_ID"; exit' USR1
trap 'stop; exit 143' TERM
bash -c "exec ${{commands[$SLURM_ARRAY_TASK_ID]}}" & child=$!
wait "$child"
"""


def submit_to_slurm(jobs: Sequence[Job], folder: Path, options: Sequence[str] = ()) -> str:
    """Submits the jobs that are not done as one array, unless an earlier array of the folder still waits or runs.
    Returns what there is to say. `options` are lines for sbatch, such as --gres=gpu:1 or --time=4:00:00."""
    if shutil.which("sbatch") is None:
        raise BadInput("there is no Slurm here: sbatch is not found", "work on the cluster, or use --executor local")
    number_file = folder / "slurm-job.txt"
    if number_file.exists():
        number = number_file.read_text(encoding="utf-8").strip()
        queue = subprocess.run(["squeue", "--noheader", "--jobs", number], capture_output=True, text=True)
        if queue.stdout.strip():
            return f"job {number} still waits or runs: squeue --jobs {number} shows it"
    waiting = [job for job in jobs if not job.done.exists()]
    script = folder / "slurm.sh"
    text = SLURM_SCRIPT.format(
        name=f"pedboneseg-{folder.name}",
        folder=folder.absolute(),
        options="\n".join(f"#SBATCH {option}" for option in options),
        commands="\n".join(shlex.quote(shlex.join(job.command)) for job in waiting),
    )
    write_text(script, text)
    command = ["sbatch", "--parsable", f"--array=0-{len(waiting) - 1}", str(script)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise BadInput(f"sbatch refused the jobs: {answer.stderr.strip()}", f"look at {script}")
    number = answer.stdout.strip().partition(";")[0]
    write_text(number_file, number + "\n")
    return f"submitted {len(waiting)} jobs as number {number}; give the same command again to see how far they are"


def this_program(*arguments: str) -> tuple[str, ...]:
    """The command line that runs a verb of the training library in a process of its own. `-P`: nothing is imported
    from the current folder."""
    return (sys.executable, "-P", "-m", "PedBoneSegTraining", *arguments)
