"""The program as its users and their scripts meet it: what it prints, what it writes, how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny_bundle

from PedBoneSegLib.formats.segments import read_segmentation
from PedBoneSegLib.models import store
from PedBoneSegLib.program import cli, logbook

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An installed model of one joint and of three, an image, and what is none."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("cli")
    (folder / "models").mkdir()
    make_tiny_bundle(folder / "models" / "tiny.safetensors")
    make_tiny_bundle(folder / "knee.safetensors", ("knee",))
    rng = np.random.default_rng(0)
    array = rng.normal(300, 100, (12, 60, 50)).clip(0, 900).astype(np.int16)
    array[:, :6] = 0
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((4.0, 0.8, 1.0))
    sitk.WriteImage(image, str(folder / "image.nii.gz"))
    (folder / "text.nii.gz").write_text("not an image")
    return folder


@pytest.fixture
def run(home, monkeypatch, capsys):
    """Runs the program in this process, without the built-in model: (exit code, stdout, stderr)."""
    monkeypatch.setenv("PEDBONESEG_HOME", str(home))
    monkeypatch.setattr(store, "BUILT_IN", home / "none")

    def call(*args):
        try:
            code = cli.main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def start(home, *args):
    environment = {**os.environ, "PEDBONESEG_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "PedBoneSegLib", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def process(home, *args):
    child = start(home, *args)
    out, err = child.communicate(timeout=500)
    return child.returncode, out, err


def test_a_real_process_segments(home, tmp_path):
    output = tmp_path / "out.seg.nrrd"
    code, out, err = process(
        home, "segment", home / "image.nii.gz", "-o", output, "--joint", "knee", "--model", "tiny", "--json"
    )
    assert code == 0 and err == ""
    answer = json.loads(out)
    assert answer["output"] == str(output) and answer["detected_joint"] is None and "review" not in answer
    labels, grid, table, side = read_segmentation(output)
    assert labels.shape == (12, 60, 50) and table.names == ("femur", "tibia", "fibula", "patella") and side is None
    assert [p.name for p in tmp_path.iterdir()] == ["out.seg.nrrd"]


def test_a_real_process_refuses_in_one_line(home):
    code, out, err = process(home, "segment", home / "text.nii.gz", "--joint", "knee")
    assert (code, out, err.count("\n")) == (2, "", 1) and "text.nii.gz" in err
    assert not (home / "text_bones.nii.gz").exists()


def catches_sigterm(pid: int) -> bool:
    (caught,) = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc whether the program listens")
def test_interrupted_by_a_signal(home, tmp_path):
    """SIGTERM while torch is still loading, or later: exit code 5, nothing written."""
    output = tmp_path / "out.nii.gz"
    child = start(home, "segment", home / "image.nii.gz", "-o", output, "--joint", "knee")
    while not catches_sigterm(child.pid):  # until then Python itself is loading, and ends as any program would
        time.sleep(0.01)
    child.terminate()
    _, err = child.communicate(timeout=500)
    assert child.returncode == 5 and err == "pedboneseg: cancelled\n" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["--help"], ["models", "list"]])
def test_quick_without_torch(home, args):
    """Nothing heavy is imported; the seconds are measured by Testing/benchmarks/inference_speed.py."""
    code = f"""
import sys
sys.argv[1:] = {args}
from PedBoneSegLib.program.cli import main
try:
    main()
except SystemExit:
    pass
assert not {{"torch", "numpy", "SimpleITK", "scipy", "vtk"}} & set(sys.modules)
"""
    environment = {**os.environ, "PEDBONESEG_HOME": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, timeout=500)


@pytest.mark.parametrize("args, code, words", [
    (["segment", "{h}/nothing.nii", "--joint", "knee"], 2, ["nothing.nii", "check the path"]),
    (["segment", "{h}/image.nii.gz"], 2, ["--joint ankle|knee|shoulder"]),
    (["segment", "{h}/image.nii.gz", "--joint", "hip"], 3, ["hip", "ankle"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "--model", "nope"], 3, ["nope"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "--model", "{h}/image.nii.gz"], 3, ["image.nii.gz"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "--device", "cuda:77"], 2, ["cuda:77"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "-o", "{h}/image.nii.gz"], 2, ["the input itself"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "-o", "{h}/text.nii.gz"], 2, ["exists already", "--overwrite"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "-o", "{h}/no/out.nii.gz"], 2, ["no such folder"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "-o", "{h}/out.png"], 2, ["out.png"]),
    (["segment", "{h}/image.nii.gz", "--joint", "knee", "--uncertainty", "{h}/image.nii.gz"], 2, ["the input itself"]),
    (["segment", "{h}/image.nii.gz", "-o", "{h}/a.nrrd", "--uncertainty", "{h}/a.nrrd"], 2, ["same name"]),
    (["segment", "{h}/image.nii.gz", "--side", "up"], 2, ["--side"]),
    (["segment"], 2, ["INPUT"]),
    (["measure", "{h}/image.nii.gz"], 2, ["--joint"]),
    (["models", "show", "nope"], 3, ["nope"]),
    (["models", "install", "{h}/text.nii.gz"], 3, ["text.nii.gz"]),
    (["detect", "{h}/text.nii.gz"], 2, ["text.nii.gz"]),
    (["explode", "a.toml"], 2, ["explode"]),
    ([], 2, ["VERB"]),
])  # fmt: skip
def test_what_can_be_foreseen_is_one_line_and_leaves_no_file(run, home, args, code, words):
    before = sorted(home.rglob("*"))
    found, out, err = run(*(arg.format(h=home) for arg in args))
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("pedboneseg") and all(word in err for word in words)
    assert sorted(home.rglob("*")) == before


def test_text_for_people(run, home, tmp_path):
    code, out, err = run("segment", home / "image.nii.gz", "-o", tmp_path / "a.nii.gz", "--joint", "knee")
    assert code == 0 and out.startswith(f"{tmp_path / 'a.nii.gz'}: femur ") and out.count("\n") == 1
    assert all(line.startswith("pedboneseg: warning: ") for line in err.splitlines())


def test_the_only_joint_need_not_be_named(run, home, tmp_path):
    model = home / "knee.safetensors"
    args = ("segment", home / "image.nii.gz", "-o", tmp_path / "a.nii.gz", "--model", model, "--json")
    code, out, _ = run(*args, "--side", "right", "--uncertainty", tmp_path / "doubt.nrrd")
    assert code == 0 and json.loads(out)["side"] == "right" and json.loads(out)["verdict"] is None
    assert {p.name for p in tmp_path.iterdir()} == {"a.nii.gz", "doubt.nrrd"}
    assert run(*args)[0] == 2  # it exists
    assert run(*args, "--overwrite")[0] == 0


def test_the_default_output_lies_beside_the_input(run, home, tmp_path):
    (tmp_path / "my.case.nii.gz").write_bytes((home / "image.nii.gz").read_bytes())
    assert run("segment", tmp_path / "my.case.nii.gz", "--joint", "ankle")[0] == 0
    assert (tmp_path / "my.case_bones.nii.gz").exists()


def test_measure(run, home, tmp_path):
    run("segment", home / "image.nii.gz", "-o", tmp_path / "a.nii.gz", "--joint", "knee")
    labels = read_segmentation(tmp_path / "a.nii.gz", "knee")[0]
    code, out, _ = run("measure", tmp_path / "a.nii.gz", "--joint", "knee", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["joint"] == "knee" and set(answer["bones"]) == {"femur", "tibia", "fibula", "patella"}
    assert answer["bones"]["patella"]["volume_ml"] == pytest.approx(np.count_nonzero(labels == 4) * 3.2e-3)
    code, out, _ = run("measure", tmp_path / "a.nii.gz", "--joint", "knee", "--csv", "--surfaces", tmp_path / "meshes")
    assert code == 0 and out.splitlines()[0].startswith("bone,label,volume_ml") and out.count("\n") == 5
    found = {bone for bone, values in answer["bones"].items() if values["volume_ml"]}
    assert {path.stem.lower() for path in (tmp_path / "meshes").iterdir()} == found


def test_models(run, home, tmp_path, monkeypatch):
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path))
    assert json.loads(run("models", "list", "--json")[1]) == {"models": []}
    assert run("models", "install", home / "knee.safetensors", "--name", "mine")[:2] == (0, "installed mine\n")
    assert run("models", "install", home / "knee.safetensors", "--name", "mine")[0] == 2
    assert run("models", "install", home / "knee.safetensors", "--name", "mine", "--overwrite")[0] == 0
    (entry,) = json.loads(run("models", "list", "--json")[1])["models"]
    assert (entry["name"], entry["joints"], entry["built_in"]) == ("mine", ["knee"], False)
    shown = json.loads(run("models", "show", "--json")[1])
    assert shown["joints"]["knee"]["labels"] == {"femur": 1, "tibia": 2, "fibula": 3, "patella": 4}
    assert {"name", "version", "licence", "card"} <= set(shown)
    assert "Random weights." in run("models", "show", "mine")[1]
    assert json.loads(run("models", "verify", "mine", "--json")[1])["verified"] is True
    assert run("models", "remove", "mine")[:2] == (0, "removed mine\n")
    assert run("models", "remove", "mine")[0] == 3


def test_detect_has_no_verdict_without_signatures(run, home):
    code, out, _ = run("detect", home / "image.nii.gz", "--json")
    assert code == 0 and json.loads(out) == {
        "joint": None, "verdict": None, "in_distribution": None, "score": None, "scores": {},
    }  # fmt: skip
    assert "no verdict" in run("detect", home / "image.nii.gz")[1]


def test_doctor_names_no_one(run, home):
    code, out, _ = run("doctor", "--json")
    document = json.loads(out)
    assert code == 0 and document["devices"][-1]["device"] == "cpu" and document["packages"]["torch"]
    assert [model["state"] for model in document["models"] if model["name"] == "tiny"] == ["whole"]
    assert str(Path.home()) not in out and str(home) not in out
    assert "torch" in run("doctor")[1]


def test_a_bug_leaves_its_traceback_in_the_log(run, home, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError(name)

    name = "Doe, Jane"
    monkeypatch.setattr(cli, "segment", broken)
    code, out, err = run("segment", home / "image.nii.gz", "--joint", "knee")
    assert (code, out, err.count("\n")) == (1, "", 1) and "ZeroDivisionError" in err
    log = (home / "logs" / "cli.log").read_text()
    assert "in broken" in log and "Doe" not in log
    for handler in list(logbook.log.handlers):
        logbook.log.removeHandler(handler)
        handler.close()


def test_out_of_memory(run, home, monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(cli, "segment", short)
    assert run("segment", home / "image.nii.gz", "--joint", "knee")[0] == 4


def test_training_verbs_without_the_training_library(run, monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    for verb in cli.TRAINING_VERBS:
        code, out, err = run(verb, "--help")
        assert (code, out, err.count("\n")) == (2, "", 1) and "pip install" in err


@pytest.mark.parametrize("verb", ["adapt", "evaluate", "synthesize"])
def test_a_training_verb_says_how_to_install_a_package_that_is_missing(verb, tmp_path):
    """In a process without the extras, as after `pip install pedboneseg` and in 3D Slicer."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    needed = {re.match(r"[\w-]+", requirement)[0] for requirement in extras["training"]}
    assert needed == set(cli.TRAINING_PACKAGES)
    words = {
        "adapt": ["--model", "m", "--joint", "knee", "--data", "d"],
        "evaluate": ["--model", "m", "--joint", "knee", "--data", "d"],
        "synthesize": ["out", "--exams", "1", "--joints", "knee"],
    }[verb]  # fmt: skip
    code = f"""
import sys
for name in {sorted(needed)!r}:
    sys.modules[name] = None  # any import of it fails
from PedBoneSegLib.program.cli import main
sys.exit(main({[verb, *words]!r}))
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "Training")])
    environment = {**os.environ, "PYTHONPATH": path, "PEDBONESEG_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "bug" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert f"{verb} needs the package" in done.stderr and "-m pip install nibabel matplotlib tqdm" in done.stderr


def test_training_verbs_are_handed_on(run, monkeypatch):
    heard = []
    training = type("commands", (), {"main": staticmethod(lambda argv: heard.append(argv) or 3)})
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda name: {"PedBoneSegTraining.program.commands": training}[name]
    )
    assert run("check-data", "folder", "--x")[0] == 3
    assert heard == [["check-data", "folder", "--x"]]


def test_the_bar_is_for_terminals(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with closing(cli._Bar()) as bar:
            bar(0.5, "segmenting")
        assert ("50%" in stream.getvalue()) is shown
