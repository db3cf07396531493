"""Ring 1: what needs no scene and no worker: messages, the log, folders, setup."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from PedBoneSegUI import dependencies, messages, models, workfolder
from PedBoneSegUI.worklog import WorkLog

from PedBoneSegLib.anatomy import JointTable, joint_table

ANSWER = {
    "joint": "knee", "side": "right", "seconds": 3.21, "verdict": "joint", "detected_joint": "knee", "warnings": [],
    "bones": {"femur": {"volume_ml": 40.0}, "tibia": {"volume_ml": 30.0}, "patella": {"volume_ml": 0.0}},
}  # fmt: skip


def test_summary():
    assert messages.summary(ANSWER) == "Knee, right · 2 bones · 3.2 s"
    assert messages.summary({**ANSWER, "side": None, "bones": {"femur": {"volume_ml": 1}}}) == "Knee · 1 bone · 3.2 s"
    assert messages.warningOf(ANSWER) is None


def test_warningsThatCannotBeMissed():
    unlike = messages.warningOf({**ANSWER, "verdict": "unlike"})
    assert "unlike anything" in unlike.text and not unlike.joint
    wrong = messages.warningOf({**ANSWER, "detected_joint": "ankle"})
    assert "looks like an ankle" in wrong.text and "as a knee" in wrong.text and wrong.joint == "ankle"
    twoSides = messages.warningOf({**ANSWER, "warnings": [{"code": "two-sides", "message": "two femurs"}]})
    assert twoSides == messages.Message("Two femurs.")
    repeated = {**ANSWER, "detected_joint": "ankle", "warnings": [{"code": "wrong-joint", "message": "again"}]}
    assert "again" not in messages.warningOf(repeated).text


def test_oneSentenceAndTheOneThatMatters():
    """What follows from the wrong joint does not hide that it is the wrong one."""
    follow = [{"code": "missing", "message": f"no {bone} was found"} for bone in ("femur", "patella")]
    follow.insert(1, {"code": "two-sides", "message": "two bodies of the tibia"})
    wrong = messages.warningOf({**ANSWER, "detected_joint": "ankle", "warnings": follow})
    assert wrong.text == "This looks like an ankle, but it was segmented as a knee."
    assert wrong.details == ("Two bodies of the tibia.", "No femur was found. No patella was found.")
    assert messages.warningOf({**ANSWER, "warnings": [{"code": "new", "message": "something"}]}).text == "Something."


def test_undecidedOffersTheLikeliestJointWhenTwoAreNear():
    answer = {"verdict": "ambiguous", "scores": {"knee": 0.55, "ankle": 0.52}}
    offered = messages.refusalOf("undecided", "", answer)
    assert offered.joint == "ankle" and "ankle 0.52, knee 0.55" in offered.details[0]
    assert messages.refusalOf("undecided", "", {"verdict": "unlike", "scores": {"knee": 3.0}}).joint == ""
    assert "CPU" in messages.refusalOf("out-of-memory", "too large", {}).text
    assert messages.refusalOf("bad-model", "it is damaged", {}).text.startswith("It is damaged. Choose or install")


def test_jointsOfAllModelsCanBeChosen(tmp_path, monkeypatch):
    """A model for another joint is taken for that joint, without being chosen first."""
    from tiny import SETTINGS, make_tiny_bundle, random_network, tensors_of, tiny_config, tiny_manifest

    from PedBoneSegLib.models import store
    from PedBoneSegLib.models.bundle import write_bundle
    from PedBoneSegLib.models.manifest import DomainCard
    from PedBoneSegLib.network.config import DomainSpec

    monkeypatch.setattr(store, "BUILT_IN", tmp_path / "built in")
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path))
    for folder in (store.BUILT_IN, store.models_folder()):
        folder.mkdir()
    make_tiny_bundle(store.BUILT_IN / "default.safetensors", ("knee", "ankle"))
    config = replace(tiny_config(("knee",)), domains=(DomainSpec("hip-own", "hip", ("femur",)),))
    card = DomainCard("hip-own", "hip", JointTable("hip", joint_table("knee").bones[:1]), dict(SETTINGS))
    manifest = replace(tiny_manifest(tiny_config(("knee",))), network=config, domains=(card,))
    write_bundle(store.models_folder() / "hips.safetensors", manifest, tensors_of(random_network(config)))
    assert models.choosableJoints() == ["knee", "ankle", "hip", "hip-own"]
    assert models.choosableJoints("hips") == ["hip", "hip-own"]
    assert [models.modelFor(joint) for joint in ("auto", "knee", "hip", "hip-own")] == ["", "", "hips", "hips"]
    assert models.modelFor("knee", "hips") == "hips", "what is chosen is not changed"
    assert models.tableOfAnswer({"domain": "hip-own", "joint": "hip"}, "hips").names == ("femur",)


@pytest.mark.parametrize(
    ("fraction", "elapsed", "text"),
    [(0.5, 10, "about 10 s left"), (0.1, 60, "about 9 min left"), (0.02, 60, ""), (0.5, 1, ""), (1.0, 60, "")],
)
def test_timeLeft(fraction, elapsed, text):
    assert messages.timeLeft(fraction, elapsed) == text


def test_theLogHidesPathsAndNames():
    log = WorkLog(lines=3)
    log.append("1")
    log.hide("Anna Berg", "")
    log.append('File "/home/x/Anna Berg/scan.py", line 3\nC:\\Users\\Dr. Berg\\a.nii gone\nAnna Berg 100/200 a/b')
    assert log.text == 'File "<path>", line 3\n<path> Berg\\a.nii gone\n<hidden> 100/200 a/b'.replace(
        "<path> Berg\\a.nii gone", log.text.splitlines()[1]
    )
    assert "Users" not in log.text and "Anna" not in log.text and "\n1" not in log.text


def test_theFolderOfAKilledProcessGoesAtTheNextStart(tmp_path):
    code = "from PedBoneSegUI.workfolder import *; import sys; print(WorkFolder(sys.argv[1]).newFile('.nrrd').parent)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    mine, other = workfolder.WorkFolder(tmp_path), tmp_path / "PedBoneSeg-notes"
    other.mkdir()
    path = mine.path
    assert os.path.isdir(found) and oct(path.stat().st_mode)[-3:] == "700"
    mine.sweep()
    assert not os.path.exists(found)
    assert path.is_dir() and other.is_dir(), "neither our own nor a stranger's folder"
    mine.remove()
    assert not path.exists()


def test_installationTakesTheBuildThatFits(monkeypatch):
    monkeypatch.setattr(dependencies, "installed", lambda name: "")
    calls = dependencies.steps(["torch", "safetensors"])
    assert [call[1:3] for call in calls] == [["pip", "install"], ["light_the_torch", "install"], ["pip", "install"]]
    assert not any("torch" == call[-1].split(">")[0] and call[1] == "pip" for call in calls), "never torch by pip"
    offline = dependencies.steps(["torch"], "/wheels here")
    from_there = ["--isolated", "--no-index", "--find-links", "/wheels here"]
    assert offline == [["-m", "pip", "install", *from_there, dependencies.TORCH]]


def write_wheel(folder, version: str) -> None:
    """A torch without content, as pip wants a wheel."""
    folder.mkdir(exist_ok=True)
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def foreign_pip_settings(folder, monkeypatch) -> None:
    """Settings of a computer where everything is different: in the environment, and in a file that it names."""
    write_wheel(folder / "other wheels", "2.9.0")
    constraints = folder / "constraints.txt"
    constraints.write_text("torch<2.5\n", encoding="utf-8")
    monkeypatch.setenv("PIP_FIND_LINKS", (folder / "other wheels").as_uri())
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraints).replace(" ", "%20"))
    configuration = folder / "pip.conf"
    configuration.write_text(f"[global]\nconstraint = {constraints}\nno-binary = :all:\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))


def test_anInstallationFromAFolderSeesThatFolderAlone(tmp_path, monkeypatch):
    foreign_pip_settings(tmp_path, monkeypatch)
    write_wheel(tmp_path / "wheels für Zoë", "2.6.0")
    (call,) = dependencies.steps(["torch"], str(tmp_path / "wheels für Zoë"))
    pip = subprocess.run(
        [sys.executable, *call, "--dry-run", "--ignore-installed"],
        env=dependencies.environmentFor(call), capture_output=True, text=True,
    )  # fmt: skip
    assert "Would install torch-2.6.0" in pip.stdout, pip.stdout + pip.stderr
    online = dependencies.environmentFor(dependencies.steps(["torch"])[-1])
    assert online["PIP_CONFIG_FILE"] == str(tmp_path / "pip.conf"), "a download needs the computer's own proxy"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("ERROR: ProxyError('Cannot connect to proxy')", "proxy refuses"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Temporary failure in name resolution", "internet"),
        ("ERROR: No matching distribution found for torch>=99", "fitting build"),
        ("ERROR: ResolutionImpossible: for help visit https://pip.pypa.io", "do not fit together"),
        ("Segmentation fault", "log tells more"),
    ],
)
def test_whyAnInstallationFailed(log, words):
    assert words in dependencies.explain(log)
