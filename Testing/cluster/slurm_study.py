"""A cross-validation on a real Slurm, disturbed as clusters disturb: `python Testing/cluster/slurm_study.py`.

Starts a Slurm of one node (see `one_node`). The same small study runs undisturbed on this machine, then on Slurm while
jobs are preempted, meet their time limit, and lose their node; at the end both have the same tables. It takes some ten
minutes of two cores, and is no part of `make test`.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from block_exams import write_block_study  # noqa: E402
from one_node import OneNode  # noqa: E402

STEPS = 600  # long enough for a job to be disturbed while it trains
PATIENCE = 900


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pedboneseg-slurm-"))
    config = write_block_study(folder, {"first": 4, "second": 3}, STEPS, checkpoint_every=20)
    command = [sys.executable, "-m", "PedBoneSegTraining", "crossval", str(config), "--folds", "2"]
    print("undisturbed, on this machine …", flush=True)
    subprocess.run([*command, "-o", str(folder / "local")], check=True, stdout=subprocess.DEVNULL)
    with OneNode(folder / "slurm") as slurm:
        run = folder / "cluster"
        again = [*command, "-o", str(run), "--executor", "slurm"]

        def submit(*options: str) -> str:
            done = subprocess.run([*again, *options], env=slurm.environment, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()[0]

        print(submit("--slurm-option=--time=2"), flush=True)
        print("asked again:", submit(), flush=True)
        wait_for(lambda: checkpoints(run) >= 1, "a first checkpoint")
        preempt(slurm)
        before = checkpoints(run)
        wait_for(lambda: checkpoints(run) > before, "a checkpoint after the preemption")
        print("preempted, in the queue again, and trained on", flush=True)
        slurm.kill_node()
        wait_for(lambda: "down" in slurm.call("sinfo", "--noheader", "--format=%t"), "the node to be missed")
        slurm.start_node()
        wait_for(lambda: not slurm.waits(), "the end of all jobs")
        print("the node's daemon was killed; the jobs went on when it was back", flush=True)
        restarts = requeues(run)
        print(submit() if not finished(run) else "all folds are done", flush=True)
        wait_for(lambda: not slurm.waits() and finished(run), "the last fold")
        submit()
    for name in ("scores.csv", "summary.csv"):
        assert (run / name).read_text() == (folder / "local" / name).read_text(), f"{name} differs; see {folder}"
    print(f"the same tables as undisturbed; training was resumed {restarts} times; logs in {folder}")


def preempt(slurm: OneNode) -> None:
    """A job of a more urgent partition that wants the whole node for some seconds."""
    command = ["sbatch", "--wait", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap", "sleep 5"]
    subprocess.run(command, env=slurm.environment, check=True, stdout=subprocess.DEVNULL)


def checkpoints(run: Path) -> int:
    """The highest step of any checkpoint."""
    return max((int(path.name.split("-")[1].split(".")[0]) for path in run.rglob("step-*")), default=0)


def requeues(run: Path) -> int:
    """How often the jobs' logs say that training went on from a checkpoint."""
    return sum(path.read_text().count("resumed at step") for path in run.glob("slurm-*.log"))


def finished(run: Path) -> bool:
    return len(list(run.glob("folds/*/scores.csv"))) == 2


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE} s for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
