"""A folder of inputs: bad ones do not stop the rest, and a second call goes on where the first one stopped."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny_bundle

from PedBoneSegLib.errors import BadInput, Cancelled
from PedBoneSegLib.program import batch
from PedBoneSegLib.program.batch import MANIFEST, SUMMARY, segment_folder
from PedBoneSegLib.program.segment import SegmentOptions, segment
from PedBoneSegLib.program.session import Session


def write_image(path, seed=0):
    import SimpleITK as sitk

    rng = np.random.default_rng(seed)
    array = rng.normal(300, 100, (6, 40, 36)).clip(0, 900).astype(np.int16)
    array[:, :6] = 0
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((4.0, 0.8, 1.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "cases"
    source.mkdir()
    make_tiny_bundle(tmp_path / "tiny.safetensors")
    for number, name in enumerate(("a.nii.gz", "b.nrrd", "c.mha", "b.nii")):
        write_image(source / name, number)
    (source / "broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    (source / "notes.txt").write_text("no image")
    return source


class Run:
    def __init__(self, folder, **options):
        fields = {"input": str(folder), "model": str(folder.parent / "tiny.safetensors"), "joint": "knee", **options}
        self.options, self.session = SegmentOptions.of(fields), Session()
        self.rows = []

    def __call__(self, **callbacks):
        for row in segment_folder(self.session, self.options, **callbacks):
            self.rows.append(row)
        self.code = self.rows[-1]["summary"]["exit_code"]
        return self

    def status(self):
        return {row["input"]: row["status"] for row in self.rows if "summary" not in row}


ROOT = Path(__file__).parents[2]
EVERY = {"a.nii.gz": "done", "b.nii": "done", "b.nrrd": "done", "broken.nii.gz": "failed", "c.mha": "done"}
AGAIN = {name: "skipped" if status == "done" else status for name, status in EVERY.items()}


@pytest.fixture
def bugs(monkeypatch):
    """The types of the errors that are logged as bugs."""
    found = []
    monkeypatch.setattr(batch, "log_bug", lambda verb, error: found.append(type(error)))
    return found


def test_one_bad_file_does_not_stop_the_rest(folder, bugs):
    run = Run(folder)()
    assert run.code == 2 and run.status() == EVERY and not bugs
    out = folder.parent / "cases_bones"
    names = {"a_bones.nii.gz", "b-nii_bones.nii.gz", "b-nrrd_bones.nii.gz", "c_bones.nii.gz", MANIFEST, SUMMARY}
    assert {path.name for path in out.iterdir()} == names
    assert run.rows[-1]["summary"] == {
        "files": 5, "done": 4, "skipped": 0, "failed": 1, "folder": str(out), "csv": str(out / SUMMARY), "exit_code": 2,
    }  # fmt: skip
    with open(out / SUMMARY, newline="") as stream:
        table = {row["input"]: row for row in csv.DictReader(stream)}
    for row in run.rows[:-1]:
        if row["status"] == "done":
            assert float(table[row["input"]]["patella_ml"]) == row["bones"]["patella"]["volume_ml"]
    assert table["broken.nii.gz"]["error"].startswith("bad-input: ")


def test_the_model_is_loaded_once(folder, monkeypatch):
    from PedBoneSegLib.models.bundle import Bundle

    loads = []
    load = Bundle.load.__func__
    monkeypatch.setattr(Bundle, "load", classmethod(lambda cls, path: loads.append(path) or load(cls, path)))
    Run(folder)()
    assert len(loads) == 1


def test_a_second_call_does_what_is_left(folder):
    first = Run(folder)()
    second = Run(folder)()
    assert second.status() == AGAIN
    for before, after in zip(first.rows[:-1], second.rows[:-1], strict=True):
        assert {**before, "status": None} == {**after, "status": None}


def test_what_has_changed_is_done_again(folder):
    Run(folder)()
    write_image(folder / "a.nii.gz", seed=9)
    assert Run(folder)().status() == {**AGAIN, "a.nii.gz": "done"}
    assert Run(folder, side="left")().status() == EVERY  # other options
    make_tiny_bundle(folder.parent / "tiny.safetensors", seed=1)
    assert Run(folder, side="left")().status() == EVERY  # another model
    (folder.parent / "cases_bones" / "c_bones.nii.gz").unlink()
    assert Run(folder, side="left")().status() == {**AGAIN, "c.mha": "done"}


def test_a_result_that_someone_corrected_is_not_overwritten(folder):
    Run(folder)()
    result = folder.parent / "cases_bones" / "a_bones.nii.gz"
    result.write_bytes(b"corrected by hand")
    run = Run(folder)()
    assert run.status() == {**AGAIN, "a.nii.gz": "failed"} and result.read_bytes() == b"corrected by hand"
    assert "--overwrite" in run.rows[0]["error"]["hint"]
    assert Run(folder, overwrite=True)().status() == {**AGAIN, "a.nii.gz": "done"}


def test_interrupted_and_called_again(folder):
    run = Run(folder)

    def progress(*_):
        if len(run.rows) == 2:
            raise Cancelled()

    with pytest.raises(Cancelled, match="after 2 of 5"):
        run(progress=progress)
    assert list(run.status()) == ["a.nii.gz", "b.nii"]
    assert Run(folder)().status() == {**EVERY, "a.nii.gz": "skipped", "b.nii": "skipped"}


def test_a_bug_in_one_file_does_not_stop_the_rest(folder, monkeypatch, bugs):
    honest = batch.segment

    def broken(session, options, *args):
        if options.source.name == "a.nii.gz":
            raise ZeroDivisionError("oh")
        return honest(session, options, *args)

    monkeypatch.setattr(batch, "segment", broken)
    run = Run(folder)()
    assert run.status() == {**EVERY, "a.nii.gz": "failed"} and run.code == 2
    assert bugs == [ZeroDivisionError]


def test_maps_go_to_folders(folder, tmp_path):
    Run(folder, probabilities=str(tmp_path / "p"), uncertainty=str(tmp_path / "u"))()
    for name in ("p", "u"):
        assert len(list((tmp_path / name).iterdir())) == 4
    with pytest.raises(BadInput, match="same folder"):
        Run(folder, probabilities=str(tmp_path / "p"), uncertainty=str(tmp_path / "p"))()


@pytest.mark.parametrize("options, words", [
    ({"joint": "auto"}, "several joints"), ({"device": "cuda:99"}, "cuda:99"), ({"output": "{s}"}, "the input itself"),
    ({"output": "{s}/no/such"}, "no such folder"), ({"series": "1.2"}, "--series"),
])  # fmt: skip
def test_what_concerns_all_files_is_raised_before_the_first(folder, options, words):
    options = {key: value.format(s=folder) for key, value in options.items()}
    run = Run(folder, **options)
    with pytest.raises(BadInput, match=words):
        run()
    assert not run.rows and not (folder.parent / "cases_bones").exists()


def test_an_empty_folder(tmp_path):
    with pytest.raises(BadInput, match="no volume"):
        Run(tmp_path)()


def test_a_damaged_manifest_is_said(folder):
    Run(folder)()
    (folder.parent / "cases_bones" / MANIFEST).write_text('{"schema": 1')
    with pytest.raises(BadInput, match=MANIFEST):
        Run(folder)()


def test_the_results_of_an_earlier_call_are_no_inputs(folder):
    out = folder / "results"
    Run(folder, output=str(out))()
    assert Run(folder, output=str(out))().status() == AGAIN


def test_dicom_folders_are_cases_and_leave_no_patient_data(folder, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    case = folder / "exam"
    case.mkdir()
    series = generate_uid()
    rng = np.random.default_rng(0)
    for number in range(5):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        one = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.StudyInstanceUID, one.Modality = series, "1.2.3.4", "MR"
        one.PatientName, one.PatientID, one.PatientBirthDate = "Secret^Name", "PID4711", "20150102"
        one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = 32, 30, [1, 1], 4
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 4 * number], [1, 0, 0, 0, 1, 0]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.InstanceNumber = 1, "MONOCHROME2", number + 1
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = rng.integers(0, 900, (32, 30)).astype(np.uint16).tobytes()
        one.save_as(case / f"{number}.dcm", enforce_file_format=True)
    assert pydicom.dcmread(case / "0.dcm").PatientID == "PID4711"
    out = tmp_path / "out"
    run = Run(folder, output=str(out))()
    assert run.status() == {**EVERY, "exam": "done"}
    for path in out.iterdir():
        raw = path.read_bytes()
        content = raw if path.suffix != ".gz" else __import__("gzip").decompress(raw)
        assert not any(word in content for word in (b"Secret", b"PID4711", b"20150102"))
    assert "Secret" not in json.dumps(run.rows)
    os.utime(case / "3.dcm", ns=(1, 1))
    assert Run(folder, output=str(out))().status() == {**AGAIN, "exam": "done"}


def test_nothing_that_lies_in_the_folder_stops_the_rest(folder, bugs, monkeypatch):
    """Names that are no UTF-8, that steer a terminal or are formulas; links in circles; what vanishes meanwhile."""
    image = (folder / "a.nii.gz").read_bytes()
    for name in (
        b"=cmd|' C calc'!A0.nii.gz",
        b"\x1b[2Jred.nii.gz",
        b"caf\xe9.nii.gz",
        b"l\ni.nii.gz",
        b"x" * 248 + b".nii.gz",
    ):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(image)
    (folder / "circle.nii.gz").symlink_to(folder / "circle.nii.gz")
    (folder / "dangling.nii.gz").symlink_to(folder / "nowhere.nii.gz")
    os.mkfifo(folder / "pipe.nii.gz")
    (folder / "locked").mkdir()
    (folder / "gone.nii.gz").write_bytes(image)
    (folder / "gone at the last moment.nii.gz").write_bytes(image)
    honest, listed = batch.segment, Path.iterdir

    def unreadable(self):
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    def vanishing(self, options, *args):
        (folder / "gone.nii.gz").unlink(missing_ok=True)
        if options.source.name == "gone at the last moment.nii.gz":
            options.source.unlink()
        return honest(self, options, *args)

    monkeypatch.setattr(Path, "iterdir", unreadable)  # root may read everything
    monkeypatch.setattr(batch, "segment", vanishing)
    run = Run(folder)()
    failed = {"broken.nii.gz", "gone.nii.gz", "gone at the last moment.nii.gz", "locked", "x" * 248 + ".nii.gz"}
    assert {name for name, status in run.status().items() if status == "failed"} == failed
    assert len(run.status()) == 13 and run.code == 2 and not bugs
    assert "File name too long" in run.rows[-2]["error"]["message"]
    text = (folder.parent / "cases_bones" / SUMMARY).read_text(encoding="utf-8")
    assert text.replace("\n", "").isprintable() and len(text.splitlines()) == 14
    assert "\n'=cmd|" in text and "\n\\x1b[2Jred.nii.gz" in text and "\ncaf\\udce9.nii.gz" in text
    assert set(Run(folder)().status().values()) == {"skipped", "failed"}


KILLED = """
import os, signal, sys
from PedBoneSegLib.inference import devices
from PedBoneSegLib.program import batch
from PedBoneSegLib.program.segment import SegmentOptions
from PedBoneSegLib.program.session import Session
devices.use_most_cores = lambda: None  # threads do not survive a fork
step, wanted = 0, int(sys.argv[2])
def hook(event, arguments):
    global step
    touches = event in ("os.rename", "os.remove") or event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if touches and sys.argv[1] in str(arguments[0]):
        step += 1
        if step == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
out, options = sys.argv[1], dict(input=sys.argv[3], model=sys.argv[4], joint="knee")
maps = {name: f"{out}-{name}" for name in ("uncertainty", "probabilities")}
session = Session()
session.model(options["model"], "auto")
while True:  # killed and started again at each of its steps, each time by a child that shares what is loaded
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        rows = list(batch.segment_folder(session, SegmentOptions(output=out, **options, **maps)))
        print(wanted, [row["status"] for row in rows[:-1]], flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    wanted += 1
"""


def test_killed_at_each_of_its_steps_the_next_call_goes_on(folder, tmp_path):
    """Before every file that it makes, renames or removes. No result is ever refused as somebody else's."""
    for name in ("b.nrrd", "c.mha", "b.nii", "broken.nii.gz"):
        (folder / name).unlink()
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(out), "1", str(folder), str(folder.parent / "tiny.safetensors")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    number, _, status = done.stdout.strip().partition(" ")
    assert status in ("['done']", "['skipped']") and int(number) > 12, done.stderr
    places = {path.name: sorted(entry.name for entry in path.iterdir()) for path in tmp_path.glob("out*")}
    assert places == {
        "out": ["a_bones.nii.gz", MANIFEST, SUMMARY],
        "out-uncertainty": ["a_bones.nii.gz"], "out-probabilities": ["a_bones.nii.gz"],
    }  # fmt: skip


def test_a_file_of_the_users_is_never_taken_for_a_result_of_a_killed_call(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_bones.nii.gz").write_bytes(b"mine")
    assert Run(folder, output=str(out))().status() == {**EVERY, "a.nii.gz": "failed"}
    assert (out / "a_bones.nii.gz").read_bytes() == b"mine"


def test_what_is_made_from_a_private_input_is_private(folder, tmp_path):
    (folder / "a.nii.gz").chmod(0o600)
    before = os.umask(0o022)
    try:
        out = tmp_path / "out"
        Run(folder, output=str(out), uncertainty=str(tmp_path / "u"))()
        options = replace(Run(folder).options, input=str(folder / "a.nii.gz"), output=str(tmp_path / "a.seg.nrrd"))
        segment(Session(), options)
    finally:
        os.umask(before)
    closed = [path.name for path in sorted(tmp_path.rglob("*.*")) if not path.stat().st_mode & 0o077]
    assert sorted(closed) == sorted(["a.nii.gz", "a.seg.nrrd", "a_bones.nii.gz", "a_bones.nii.gz", MANIFEST, SUMMARY])
