"""The whole chain, each link a command: synthesize → check-data → train → evaluate → export → the runtime segments."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PedBoneSegTraining.loop.runfolder import RunFolder

from PedBoneSegLib.models import bundle

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
QUICK = Path(__file__).parents[2] / "Training" / "configs" / "quick.toml"
SMALLER = [
    "slices.pixel_mm=3",
    "data.patch=[64,64]",
    "network.width=8",
    "data.reserved=0.4",
    "training.warmup=2",
    "run.device=cpu",
    "run.picture_every=0",
    "run.export=false",
]


def pedboneseg(folder: Path, *arguments: object) -> str:
    """The command's stdout; it must succeed."""
    command = [sys.executable, "-m", "PedBoneSegLib", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """A folder in which the chain has run up to the exported model."""
    folder = tmp_path_factory.mktemp("chain")
    pedboneseg(folder, "synthesize", "data", "--joints", "ankle,knee", "--exams", 2, "--jobs", 1)
    pedboneseg(folder, "train", QUICK, "-o", "run", "--set", "training.steps=12", *SMALLER)
    pedboneseg(folder, "export", "run", "-o", "model.safetensors", "--device", "cpu")
    return folder


@pytest.fixture(scope="module")
def image(chain) -> Path:
    return sorted((chain / "data" / "Dataset102_Knee" / "imagesTr").iterdir())[0]


def test_synthetic_data_pass_the_check(chain):
    found = json.loads(pedboneseg(chain, "check-data", "data/Dataset101_Ankle", "data/Dataset102_Knee", "--json"))
    assert found["ok"] and [each["cases"] for each in found["datasets"]] == [2, 2]


def test_the_runtime_opens_the_model_and_segments_on_the_images_grid(chain, image):
    manifest = bundle.read_manifest(chain / "model.safetensors")
    assert [card.name for card in manifest.domains] == ["ankle", "knee"]
    answer = json.loads(
        pedboneseg(
            chain,
            "segment",
            image,
            "-o",
            "out.nii.gz",
            "--model",
            "model.safetensors",
            "--joint",
            "knee",
            "--device",
            "cpu",
            "--json",
        )
    )
    assert answer["joint"] == "knee" and set(answer["bones"]) == {"femur", "tibia", "fibula", "patella"}
    assert (chain / "out.nii.gz").exists()


def test_the_model_is_evaluated_bone_by_bone(chain):
    pedboneseg(
        chain,
        "evaluate",
        "--model",
        "model.safetensors",
        "--data",
        "data/Dataset101_Ankle",
        "--joint",
        "ankle",
        "-o",
        "scores.csv",
        "--device",
        "cpu",
    )
    rows = list(csv.DictReader(open(chain / "scores.csv")))
    assert len(rows) == 2 * 3 and {"dice", "mssd", "assd", "ravd", "sensitivity", "specificity"} <= rows[0].keys()


def test_a_retraining_starts_from_the_model(chain):
    """With another seed and a rate of nearly nothing, what comes out is what went in, to half precision."""
    still = ["seed=9", "training.steps=1", "training.learning_rate=1e-12", "training.average=0", *SMALLER]
    pedboneseg(chain, "train", QUICK, "-o", "again", "--init", "model.safetensors", "--set", *still)
    (again,) = RunFolder.open(chain / "again").results()
    model = bundle.Bundle.load(chain / "model.safetensors").network().state_dict()
    for name, each in again.network.state_dict().items():
        if not name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(each, model[name], atol=1e-3, rtol=1e-3)
    assert RunFolder.open(chain / "again").about["start"]["model"] == "quick"


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["train", "absent.toml"], 2, "cannot be read"),
        (["train", str(QUICK), "--set", "training.stepps=3"], 2, "did you mean training.steps?"),
        (["train", str(QUICK), "--set", "domains.knee.datasets=['nowhere']"], 2, "nowhere"),
        (["train", str(QUICK), "--init", "absent.safetensors"], 3, "absent"),
        (["export", "."], 2, "not a run's folder"),
        (["check-data"], 2, "DATASET"),
    ],
)
def test_a_foreseeable_failure_is_one_line_and_its_code(chain, arguments, code, words):
    done = subprocess.run(
        [sys.executable, "-m", "PedBoneSegLib", *arguments],
        cwd=chain,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr


def test_the_list_of_verbs_and_the_first_ones_options_need_no_torch():
    for verb in ([], ["train"], ["check-data"]):
        script = (
            "import sys; sys.modules['torch'] = None\n"
            "from PedBoneSegTraining.program.commands import main\n"
            f"main({[*verb, '--help']!r})"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0 and "usage: pedboneseg" in done.stdout, (verb, done.stderr[-300:])
