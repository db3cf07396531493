"""Cohorts on disk: whole, in nnU-Net's layout, and unharmed by a killed process."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from live_processes import children, is_alive, wait_until
from PedBoneSegTraining.program.commands import main
from PedBoneSegTraining.synthesis.cohort import Recipe
from PedBoneSegTraining.synthesis.writer import case_name, write_cohort, write_nifti
from synthetic_phantom import Phantom

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.reading import read_volume


def small(joint="knee", seed=1, **options) -> Recipe:
    return Recipe(joint, seed, (Phantom(),), pixel_mm=(1.2, 1.6), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    write_cohort(out, [small()], 4, jobs=2)
    return out


def test_layout_is_nnunets(whole):
    folder = whole / "Dataset102_Knee"
    names = [case_name(small(), i) for i in range(4)]
    assert names[3] == "synthetic_knee_1_00003"
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in names]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "femur": 1, "tibia": 2, "fibula": 3, "patella": 4}
    assert description["numTraining"] == 4 and description["file_ending"] == ".nii.gz"
    assert description["pedboneseg"]["joint"] == "knee"
    assert description["pedboneseg"]["sides"] == dict.fromkeys(names, "left")


def test_files_hold_the_exam_and_say_that_it_is_synthetic(whole):
    recipe, folder = small(), whole / "Dataset102_Knee"
    rendering = recipe.acquire(2, 0, recipe.body(2))
    image = nibabel.load(folder / "imagesTr" / f"{case_name(recipe, 2)}_0000.nii.gz")
    labels = nibabel.load(folder / "labelsTr" / f"{case_name(recipe, 2)}.nii.gz")
    assert np.array_equal(image.dataobj, rendering.volume.array) and image.get_data_dtype() == np.int16
    assert np.array_equal(labels.dataobj, rendering.labels) and labels.get_data_dtype() == np.uint8
    assert np.array_equal(image.affine, labels.affine)
    assert b"synthetic" in image.header["descrip"].item() and b"synthetic" in labels.header["descrip"].item()


def test_the_runtime_reads_the_exams_grid(whole):
    recipe = small()
    rendering = recipe.acquire(1, 0, recipe.body(1))
    volume = read_volume(whole / "Dataset102_Knee" / "imagesTr" / f"{case_name(recipe, 1)}_0000.nii.gz")
    assert np.array_equal(volume.array, rendering.volume.array)
    assert np.allclose(volume.grid.affine, rendering.volume.grid.affine, atol=1e-4)


def test_the_same_array_gives_the_same_bytes(tmp_path):
    recipe = small()
    rendering = recipe.acquire(0, 0, recipe.body(0))
    for name in ("one.nii.gz", "two.nii.gz"):
        write_nifti(tmp_path / name, rendering.volume.array, rendering.volume.grid)
        time.sleep(0.01)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_what_is_there_is_kept_and_more_can_be_added(whole, tmp_path):
    write_cohort(tmp_path, [small()], 2, jobs=1)
    image = tmp_path / "Dataset102_Knee" / "imagesTr" / f"{case_name(small(), 0)}_0000.nii.gz"
    before, seen = image.stat().st_mtime_ns, []
    write_cohort(tmp_path, [small()], 4, jobs=1, progress=lambda *counts: seen.append(counts))
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert image.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(whole)


def test_other_exams_in_the_same_folder_are_refused(whole):
    before = contents(whole)
    with pytest.raises(BadInput, match="synthetic_knee_1_0000"):
        write_cohort(whole, [small(preset="T2")], 2)
    assert contents(whole) == before


def test_images_alone_go_to_the_test_folder(tmp_path):
    write_cohort(tmp_path, [small()], 1, labelled=False, jobs=1)
    folder = tmp_path / "Dataset102_Knee"
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["synthetic_knee_1_00000_0000.nii.gz"]
    assert not (folder / "labelsTr").exists() and json.loads((folder / "dataset.json").read_text())["numTraining"] == 0


SCRIPT = """
import sys
from pathlib import Path
from test_writer_recipe import recipe
from PedBoneSegTraining.synthesis.writer import write_cohort
if __name__ == "__main__":
    write_cohort(Path(sys.argv[1]), [recipe()], 4, jobs=2)
"""
RECIPE = """
from PedBoneSegTraining.synthesis.cohort import Recipe
from synthetic_phantom import Phantom
def recipe():
    return Recipe("knee", 1, (Phantom(seconds=0.5),), pixel_mm=(1.2, 1.6))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers' processes in /proc")
def test_a_killed_run_leaves_whole_files_and_is_resumed(tmp_path, whole):
    """Real processes, killed without warning once the first exam is there; its workers end too."""
    script, out = tmp_path / "write.py", tmp_path / "out"
    script.write_text(SCRIPT)
    (tmp_path / "test_writer_recipe.py").write_text(RECIPE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, str(script), str(out)], env=environment)
    images = out / "Dataset102_Knee" / "imagesTr"
    wait_until(lambda: process.poll() is not None or list(images.glob("*_0000.nii.gz")))
    assert process.poll() is None, "it ended before it could be killed"
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in workers))
    for path in out.rglob("synthetic_*.nii.gz"):
        gzip.decompress(path.read_bytes())
    assert not (out / "Dataset102_Knee" / "dataset.json").exists()
    write_cohort(out, [small()], 4, jobs=1)
    assert contents(out) == contents(whole)


def test_an_image_without_labels_is_made_again(tmp_path):
    """Labels are written last: without them the image may be of any state."""
    write_cohort(tmp_path, [small()], 1, jobs=1)
    folder, name = tmp_path / "Dataset102_Knee", case_name(small(), 0)
    expected = contents(tmp_path)
    (folder / "labelsTr" / f"{name}.nii.gz").unlink()
    (folder / "imagesTr" / f"{name}_0000.nii.gz").write_bytes(b"half")
    write_cohort(tmp_path, [small()], 1, jobs=1)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--joints", "wrist"], "no synthetic 'wrist'"),
        (["--joints", "knee,knee"], "twice"),
        (["--exams", "0"], "less than 1"),
        (["--seed", "-1"], "seed -1"),
        (["--seed", str(2**31)], "seed 2147483648"),
        (["--shapes", "/nowhere"], "/nowhere"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(arguments, words, tmp_path, capsys):
    assert main(["synthesize", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_real_joint_that_the_datas_own_check_accepts(tmp_path, capsys):
    folder = tmp_path / "Dataset101_Ankle"
    assert main(["synthesize", str(tmp_path), "--joints", "ankle", "--exams", "1", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert main(["check-data", str(folder)]) == 0
    assert "0 errors" in capsys.readouterr().out
    labels = nibabel.load(folder / "labelsTr" / "synthetic_ankle_0_00000.nii.gz")
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2, 3} and np.asarray(labels.dataobj).any()
