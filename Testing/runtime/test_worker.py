"""The worker as a real child process, talked to as the GUI does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_tiny_bundle

from PedBoneSegLib import __version__
from PedBoneSegLib.program.protocol import FIELDS, LONGEST_REQUEST, OPS, PROTOCOL

ROOT = Path(__file__).parents[2]


class Child:
    """A worker and the lines that it says. `prelude` is code that runs in it before it serves."""

    def __init__(self, home, prelude=""):
        code = f"{textwrap.dedent(prelude)}\nimport sys\nfrom PedBoneSegLib.__main__ import main\nmain()"
        environment = {**os.environ, "PEDBONESEG_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        self.lines, self.noise = Queue(), []
        threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stdout], daemon=True).start()
        self.listener = threading.Thread(target=lambda: self.noise.extend(self.process.stderr), daemon=True)
        self.listener.start()

    def send(self, **request):
        self.send_line(json.dumps(request).encode() + b"\n")

    def send_line(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def next(self, seconds=300):
        """The next answer; what the worker last logged where none comes."""
        try:
            return json.loads(self.lines.get(timeout=seconds))
        except Empty:
            pytest.fail("no answer; the worker says: " + b"".join(self.noise[-30:]).decode())

    def until(self, stage):
        while self.next().get("stage") != stage:
            pass

    def hear(self, number, seconds=300):
        """The last answer to request `number`, and the progress before it."""
        progress = []
        while True:
            answer = self.next(seconds)
            if answer["id"] == number:
                if answer["event"] != "progress":
                    return answer, progress
                progress.append(answer)

    def ask(self, **request):
        self.send(**request)
        return self.hear(request["id"])[0]

    def memory(self):
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model and an image of 24 slices."""
    folder = tmp_path_factory.mktemp("worker")
    make_tiny_bundle(folder / "tiny.safetensors")
    write_image(folder / "knee.nrrd", (24, 60, 50))
    return folder


def write_image(path, size):
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    array = rng.normal(300, 100, size).clip(0, 900).astype(np.int16)
    array[:, :6] = 0
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((4.0, 0.8, 1.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture(scope="module")
def shared(home):
    child = Child(home)
    yield child
    child.close()


@pytest.fixture
def alone(home):
    children = []

    def start(prelude=""):
        children.append(Child(home, prelude))
        return children[-1]

    yield start
    for child in children:
        child.close()


def request(home, number, **fields):
    return {"id": number, "op": "segment", "input": str(home / "knee.nrrd"), "model": str(home / "tiny.safetensors"),
            "joint": "knee", "device": "cpu", "overwrite": True, **fields}  # fmt: skip


SLOW = """
    import time
    from PedBoneSegLib.inference import passes
    from PedBoneSegLib.inference.slices import SliceStack
    passes.BATCH_PIXELS["cpu"] = 1
    fast = SliceStack.images
    def slow(self, indices):
        print("SLICES", flush=True)  # to stderr: stdout belongs to the protocol
        time.sleep(0.5)
        return fast(self, indices)
    SliceStack.images = slow
"""


def test_hello(shared):
    answer = shared.ask(id=1, op="hello")
    assert (answer["event"], answer["version"], answer["protocol"]) == ("done", __version__, PROTOCOL)
    assert answer["schema"] == 1 and answer["devices"][-1] == "cpu" and answer["pid"] == shared.process.pid


def test_segment(shared, home):
    shared.send(**request(home, 2, output=str(home / "out.nii.gz"), side="left", uncertainty=str(home / "doubt.nrrd")))
    answer, progress = shared.hear(2)
    assert answer["event"] == "done" and answer["output"] == str(home / "out.nii.gz") and answer["side"] == "left"
    assert set(answer["bones"]) == {"femur", "tibia", "fibula", "patella"}
    fractions = [step["fraction"] for step in progress]
    assert fractions == sorted(fractions) and fractions[-1] <= 1 and len(fractions) >= 4
    from PedBoneSegLib.formats.reading import read_volume

    labels, doubt = (read_volume(home / name).array for name in ("out.nii.gz", "doubt.nrrd"))
    assert labels.shape == doubt.shape == (24, 60, 50)
    assert {name: np.count_nonzero(labels == bone["label"]) * 3.2e-3 for name, bone in answer["bones"].items()} == \
        pytest.approx({name: bone["volume_ml"] for name, bone in answer["bones"].items()}, abs=1e-3)  # fmt: skip


def test_a_folder_file_by_file(shared, home, tmp_path):
    """One that an earlier worker died of is left out, the next is segmented, and the second time it is done already."""
    for name in ("a.nrrd", "b.nrrd"):
        shutil.copy(home / "knee.nrrd", tmp_path / name)
    for number, status in ((31, "done"), (32, "skipped")):
        fields = {"model": str(home / "tiny.safetensors"), "joint": "knee", "given_up": ["a.nrrd"]}
        shared.send(id=number, op="batch", input=str(tmp_path), output=str(tmp_path / "out"), device="cpu", **fields)
        answer, progress = shared.hear(number)
        rows = [step["file"] for step in progress if "file" in step]
        assert [(row["input"], row["status"]) for row in rows] == [("a.nrrd", "failed"), ("b.nrrd", status)]
        assert "ended the program" in rows[0]["error"]["message"] and answer["summary"]["failed"] == 1
        assert (tmp_path / "out" / "b_bones.nii.gz").is_file()


@pytest.mark.parametrize("line, number", [
    (b"hello\n", None), (b"\xff\xfe\n", None), (b"[1, 2]\n", None), (b"{}\n", None), (b'{"id": 7}\n', 7),
    (b'{"id": 8, "op": "explode"}\n', 8), (b'{"id": 9, "op": "segment"}\n', 9), (b'{"op": "hello"}\n', None),
    (b'{"id": 10, "op": "segment", "input": 5}\n', 10), (b'{"id": 11, "op": "segment", "input": "/no/such"}\n', 11),
    (b'{"id": 12, "op": "segment", "input": "a", "colour": "red"}\n', 12), (b"[" * 100_000 + b"\n", None),
    (b'{"id": 13, "op": "measure", "input": "/no/such.nrrd"}\n', 13),
    (b'{"id": 14, "op": "models", "action": "x"}\n', 14),
])  # fmt: skip
def test_a_malformed_line_is_answered(shared, line, number):
    shared.send_line(line)
    answer, _ = shared.hear(number)
    assert answer["event"] == "error" and answer["kind"] == "bad-input" and answer["message"] and answer["hint"]
    assert "\n" not in answer["message"]


@pytest.mark.parametrize("line, number", [
    (b'{"id": "\\ud800", "op": "cancel", "target": 1}\n', "\ud800"), (b'{"id": "\\ud800", "op": "models"}\n', "\ud800"),
    (b'{"id": 1, "op": "cancel", "target": "\\udfff"}\n', 1),
])  # fmt: skip
def test_half_a_character_for_an_id(shared, line, number):
    shared.send_line(line)
    assert shared.hear(number)[0]["event"] == "done"


@pytest.mark.parametrize("fields", [
    {"op": "detect", "input": 5}, {"op": "measure", "input": ["a"]}, {"op": "segment", "input": "a", "frame": "x"},
    {"op": "segment", "input": "a", "frame": True}, {"op": "segment", "input": "a", "overwrite": 1},
    {"op": "detect", "input": "a", "model": {}}, {"op": "detect", "input": "a", "device": []},
    {"op": "detect", "input": "a", "series": 1.5}, {"op": "models", "action": {"a": 1}}, {"op": "models", "name": 7},
    {"op": "batch", "input": "a", "given_up": "x"}, {"op": "batch", "input": "a", "given_up": [1]},
    {"op": "cancel", "target": {"deep": []}}, {"op": "cancel"}, {"op": ["segment"]}, {"op": {"a": 1}},
    {"op": "segment", "input": "a\0b"}, {"op": "segment", "input": "\ud800"}, {"op": "detect", "input": "x" * 5000},
    {"op": "measure", "input": "x" * 300 + ".seg.nrrd"}, {"op": "segment", "input": "a", "output": "y" * 300 + ".nrrd"},
])  # fmt: skip
def test_a_field_of_the_wrong_type_is_the_callers_fault(shared, fields):
    shared.send(id=15, **fields)
    answer, _ = shared.hear(15)
    assert answer["event"] == "error" and answer["kind"] == "bad-input", answer


deep_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(OPS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "x"]), inner, max_size=3),
    max_leaves=5,
)
requests = st.dictionaries(st.sampled_from(["id", "op", "target", *FIELDS]), deep_json, max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests | deep_json, st.sampled_from([None, *OPS]), st.booleans())
def test_any_json_gets_exactly_one_answer(shared, request, op, with_id):
    """The answers to a line come before the answer to the next one, so that two lines have exactly two answers."""
    if isinstance(request, dict):
        request = {**request, **({"op": op} if op else {}), **({"id": 40} if with_id else {})}
        if request.get("op") in ("shutdown", "release"):
            request["op"] = "models"
    shared.send_line(json.dumps(request).encode() + b"\n")
    heard = shared.next()
    while heard["event"] == "progress":
        heard = shared.next()
    assert heard["event"] in ("done", "error") and heard.get("kind") != "bug", heard
    assert heard["id"] == 40 or not (with_id and isinstance(request, dict))
    shared.send(id=41, op="cancel", target=99)
    assert shared.next() == {"id": 41, "event": "done", "cancelled": False}


def test_an_empty_line_is_nothing(shared):
    shared.send_line(b"\n  \n")
    assert shared.ask(id=20, op="models")["event"] == "done"


def test_a_line_of_100_megabytes(shared):
    before = shared.memory()
    block = b'"' + b"x" * (1 << 20)
    for _ in range(100):
        shared.send_line(block)
    shared.send_line(b'"\n')
    answer, _ = shared.hear(None)
    assert answer["kind"] == "bad-input" and str(LONGEST_REQUEST) in answer["message"]
    assert shared.ask(id=21, op="models")["event"] == "done"
    assert shared.memory() - before < 20e6


def test_several_joints_ask_for_one(shared, home):
    answer = shared.ask(**request(home, 30, joint="auto", output=str(home / "auto.nii.gz")))
    assert answer["kind"] == "bad-input" and "--joint ankle|knee|shoulder" in answer["hint"]
    assert not (home / "auto.nii.gz").exists()


def test_an_id_is_used_once_at_a_time(alone, home):
    child = alone(SLOW)
    child.send(**request(home, 1, output=str(home / "once.nii.gz")))
    child.send(**request(home, 1, output=str(home / "once.nii.gz")))
    answer, _ = child.hear(1)
    assert answer["kind"] == "bad-input" and "in use" in answer["message"]


def test_cancel_is_heard_mid_run(alone, home):
    """Not at the end: of the 24 slices, most are never read."""
    child = alone(SLOW)
    output = home / "cancelled.nii.gz"
    child.send(**request(home, 1, output=str(output)))
    child.send(**request(home, 2, output=str(output)))
    child.until("segmenting")
    before = child.noise.count(b"SLICES\n")
    child.send(id=3, op="cancel", target=1)
    child.send(id=4, op="cancel", target=2)  # which still waits
    child.send(id=5, op="cancel", target=99)
    heard = {}
    while len(heard) < 5:
        answer = child.next()
        if answer["event"] != "progress":
            heard[answer["id"]] = answer
    assert child.noise.count(b"SLICES\n") - before < 12
    assert heard[1]["kind"] == heard[2]["kind"] == "cancelled"
    assert [heard[number]["cancelled"] for number in (3, 4, 5)] == [True, True, False]
    assert not output.exists() and child.ask(id=6, op="release")["event"] == "done"


def test_the_end_of_stdin_ends_the_process_mid_run(alone, home):
    child = alone(SLOW)
    output = home / "orphan.nii.gz"
    child.send(**request(home, 1, output=str(output)))
    child.until("segmenting")
    before = child.noise.count(b"SLICES\n")
    child.process.stdin.close()
    assert child.process.wait(300) == 0
    assert child.noise.count(b"SLICES\n") - before < 12 and not output.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_signal_ends_it_with_exit_code_5(alone, home, tmp_path, number, busy):
    child = alone(SLOW)
    if busy:
        child.send(**request(home, 1, output=str(tmp_path / "out.nii.gz")))
        child.until("segmenting")
    else:
        assert child.ask(id=1, op="models")["event"] == "done"
    child.process.send_signal(number)
    assert child.process.wait(60) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_loop_itself_ends_it_without_an_abort(alone):
    child = alone("""
        from PedBoneSegLib.program import worker
        def broken(self, request):
            raise ZeroDivisionError
        worker.Worker._serve = broken
    """)
    child.send(id=1, op="models")
    assert child.process.wait(60) == 1
    child.listener.join(60)
    assert any(b"serve: ZeroDivisionError" in line for line in child.noise)


def test_shutdown(alone):
    child = alone()
    assert child.ask(id=1, op="shutdown")["event"] == "done"
    assert child.process.wait(300) == 0


def test_a_kill_mid_write_leaves_nothing_after_the_next_run(alone, home, tmp_path):
    child = alone("""
        import time
        from PedBoneSegLib.formats.kinds import nifti
        blocks = nifti.raw_blocks
        def slow(*args, **options):
            yield from list(blocks(*args, **options))[:1]
            print("HALF", flush=True)
            time.sleep(600)
        nifti.raw_blocks = slow
    """)
    output = tmp_path / "killed.nii.gz"
    child.send(**request(home, 1, output=str(output)))
    deadline = time.monotonic() + 300
    while b"HALF\n" not in child.noise and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait(300)
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0] != output  # a partial file, and only that
    assert alone().ask(**request(home, 1, output=str(output)))["event"] == "done"
    assert list(tmp_path.iterdir()) == [output]


def test_many_volumes_without_memory_growth(shared, home):
    """The first few fill caches. Were a label map of 72 KB kept from each of the others, 2.3 MB would be more."""
    sizes = []
    for number in range(100, 150):
        answer = shared.ask(**request(home, number, output=str(home / "many.nii.gz")))
        assert answer["event"] == "done"
        sizes.append(shared.memory())
    assert np.median(sizes[-10:]) - np.median(sizes[8:18]) < 2e6


def test_stdout_is_clean_though_libraries_print(alone, home):
    child = alone("""
        import ctypes, os
        from PedBoneSegLib.program import worker
        honest = worker.segment
        def noisy(*args):
            print("python says")
            os.write(1, b"a descriptor says\\n")
            libc = ctypes.CDLL(None)
            libc.puts(b"C says")
            libc.fflush(None)
            os.system("echo a child says")
            return honest(*args)
        worker.segment = noisy
    """)
    child.send(**request(home, 1, output=str(home / "noisy.nii.gz")))
    assert child.hear(1)[0]["event"] == "done"  # hear() reads every line as JSON
    assert child.ask(id=2, op="shutdown")["event"] == "done"
    child.process.wait(300)
    noise = b"".join(child.noise)
    for line in (b"python says", b"a descriptor says", b"C says", b"a child says"):
        assert line in noise
    with pytest.raises(Empty):
        child.lines.get(timeout=0.2)


def test_a_bug_is_told_and_logged_without_what_it_says(alone, home):
    child = alone("""
        from PedBoneSegLib.program import worker
        def broken(*args):
            raise KeyError("Doe, Jane")
        worker.segment = broken
    """)
    answer = child.ask(**request(home, 1))
    assert answer["kind"] == "bug" and "KeyError" in answer["message"]
    assert child.ask(id=2, op="models")["event"] == "done"
    log = (home / "logs" / "worker.log").read_text()
    assert "in broken" in log and "Doe" not in log and "knee.nrrd" not in log


def test_the_model_stays_warm_until_it_is_released_or_replaced(alone, home, tmp_path):
    child = alone("""
        from PedBoneSegLib.models import bundle
        load = bundle.Bundle.load.__func__
        def counted(cls, path):
            print("LOAD", flush=True)
            return load(cls, path)
        bundle.Bundle.load = classmethod(counted)
    """)
    model = make_tiny_bundle(tmp_path / "m.safetensors")
    ask = lambda number: child.ask(**request(home, number, output=str(tmp_path / "o.nii"), model=str(model)))  # noqa: E731
    first = [ask(1), ask(2)]
    child.ask(id=3, op="release")
    ask(4)
    make_tiny_bundle(tmp_path / "m.safetensors", seed=1)  # another model under the same name
    second = ask(5)
    child.ask(id=6, op="shutdown")
    child.process.wait(300)
    assert child.noise.count(b"LOAD\n") == 3
    assert first[0]["bones"] == first[1]["bones"] != second["bones"]
