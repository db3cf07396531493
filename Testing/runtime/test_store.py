"""The user's models, in a folder of the test's own."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_bundle

from PedBoneSegLib.errors import BadInput, BadModel
from PedBoneSegLib.models import store

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "BUILT_IN", tmp_path / "bundled")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("source") / "from elsewhere.safetensors", joints=("knee",))


def build_in(source: Path, name: str) -> Path:
    store.BUILT_IN.mkdir(exist_ok=True)
    path = store.BUILT_IN / f"{name}.safetensors"
    path.write_bytes(source.read_bytes())
    return path


def names() -> list[str]:
    return [stored.name for stored in store.list_models()]


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/PedBoneSeg"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/PedBoneSeg"),
        ("darwin", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/h/Library/Application Support/PedBoneSeg"),
        ("win32", {"HOME": "/h", "LOCALAPPDATA": "/l"}, "/l/PedBoneSeg"),
        ("win32", {"HOME": "/h"}, "/h/AppData/Local/PedBoneSeg"),
        ("linux", {"HOME": "/h", "PEDBONESEG_HOME": "/own"}, "/own"),
        ("linux", {"HOME": "/h", "PEDBONESEG_HOME": "~/own"}, "/h/own"),
        ("linux", {"HOME": "/h", "PEDBONESEG_HOME": ""}, "/h/.local/share/PedBoneSeg"),
    ],
)
def test_home_is_where_the_system_keeps_such_data(monkeypatch, platform, variables, expected):
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA", "PEDBONESEG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert store.home() == Path(expected)


def test_asking_makes_no_folders_but_the_log_folder_is_made():
    assert store.list_models() == [] and not store.home().exists()
    assert store.log_folder() == store.home() / "logs" and store.log_folder().is_dir()


def test_install_list_show_remove(source):
    installed = store.install(source)
    assert installed.path == store.models_folder() / "tiny.safetensors" and not installed.built_in
    assert installed.path.read_bytes() == source.read_bytes()
    assert installed.manifest.domains[0].joint == "knee" and len(installed.manifest.sha256) == 64
    assert store.list_models() == [installed] == [store.show("tiny")] == [store.show()]
    store.install(source, name="other-1.2")
    assert names() == ["other-1.2", "tiny"]
    assert store.remove("tiny").name == "tiny" and names() == ["other-1.2"]
    store.remove("other-1.2")  # the last one
    assert names() == []
    with pytest.raises(BadModel, match="there is no model; install one"):
        store.resolve()
    with pytest.raises(BadModel, match="no model 'tiny'; those at hand: none"):
        store.remove("tiny")


def test_nothing_is_overwritten_unasked(source, tmp_path):
    store.install(source)
    newer = make_tiny_bundle(tmp_path / "newer.safetensors", joints=("knee",), seed=1)
    with pytest.raises(BadInput, match="installed already; add --overwrite"):
        store.install(newer)
    assert store.resolve("tiny").read_bytes() == source.read_bytes()
    store.install(newer, overwrite=True)
    assert store.resolve("tiny").read_bytes() == newer.read_bytes()
    store.install(store.resolve("tiny"), overwrite=True)  # from itself
    assert store.resolve("tiny").read_bytes() == newer.read_bytes()


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "/x", ".hidden", "x.", "UPPER", "con", "nul.x", "a b", "ä", "x" * 65, "a\n", "--x"]
)
def test_names_are_sane(source, name):
    with pytest.raises(BadInput, match="no name for a model"):
        store.install(source, name=name)
    assert not store.home().exists()


def test_a_damaged_model_is_not_installed(source, tmp_path):
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(data)
    with pytest.raises(BadModel, match=r"damaged\.safetensors: its contents do not have the SHA-256"):
        store.install(damaged)
    with pytest.raises(BadModel, match="cannot be read: No such file"):
        store.install(tmp_path / "none.safetensors")
    assert not store.models_folder().exists()


def test_a_model_damaged_later_is_listed_with_its_fault_and_can_be_removed(source):
    path = store.install(source).path
    path.write_bytes(path.read_bytes()[:100])
    (damaged,) = store.list_models()
    assert damaged.manifest is None and "cut off" in damaged.fault
    store.remove("tiny")
    assert names() == []


def forged(source: Path, **changes) -> bytes:
    """The model with other entries in its manifest; whoever believes them before the hash is seen is misled."""
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["pedboneseg"])
    text = json.dumps({**document, **changes}, sort_keys=True, separators=(",", ":"))
    header["__metadata__"]["pedboneseg"] = text.replace("Infinity", "1e999")
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def write_bad_models(source: Path) -> set[str]:
    """One of every kind into the store."""
    data, folder = source.read_bytes(), store.models_folder()
    (folder / "infinite.safetensors").write_bytes(forged(source, version=float("inf")))
    (folder / "not-a-number.safetensors").write_bytes(forged(source, version=float("nan")))
    (folder / "schema.safetensors").write_bytes(forged(source, schema={"a": []}))
    (folder / "deep.safetensors").write_bytes(forged(source, provenance=json.loads("[" * 900 + "]" * 900)))
    (folder / "shape.safetensors").write_bytes(data.replace(b'"shape":[5]', b'"shape":[0]', 1).replace(b"[4]", b"[0]"))
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes(data[:100])
    (folder / "rubbish.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "length.safetensors").write_bytes(b"\xff" * 8 + data[8:])
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    os.mkfifo(folder / "pipe.safetensors")
    return {path.stem for path in folder.iterdir()} - {"tiny"}


def test_bad_models_are_listed_by_name_with_their_fault_disturb_nothing_and_can_be_removed(source):
    store.install(source)
    bad = write_bad_models(source)
    listed = {stored.name: stored for stored in store.list_models()}
    assert listed.keys() == bad | {"tiny"} and len(bad) == 12
    for name in bad:
        assert listed[name].manifest is None and f"{name}.safetensors" in listed[name].fault
        assert listed[name].fault.isprintable()
    assert listed["tiny"].manifest is not None and store.resolve() == store.resolve("tiny") == listed["tiny"].path
    store.install(source, name="second")
    for name in bad:
        assert store.remove(name).name == name
    assert names() == ["second", "tiny"]


def test_a_folder_in_a_models_place_is_listed_and_not_deleted(source):
    store.install(source)
    (store.models_folder() / "folder.safetensors").mkdir()
    assert "not a file" in store.list_models()[0].fault and store.resolve() == store.resolve("tiny")
    with pytest.raises(BadInput, match="'folder' cannot be removed"):
        store.remove("folder")


def test_where_all_models_are_bad_the_fault_is_told(source):
    path = store.install(source).path
    path.write_bytes(b"")
    with pytest.raises(BadModel, match="tiny.safetensors: it is not a safetensors file"):
        store.resolve()


@pytest.mark.parametrize("variables", [{"PEDBONESEG_HOME": "~nobody-of-that-name/x"}, {"HOME": None}])
def test_a_home_that_is_not_known_is_said(monkeypatch, variables):
    monkeypatch.delenv("PEDBONESEG_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # no such user
    with pytest.raises(BadInput, match="home folder is not known"):
        store.list_models()


def test_a_path_of_a_user_who_is_not_there():
    with pytest.raises(BadInput, match="~nobody-of-that-name/m.safetensors: that user's home folder"):
        store.resolve("~nobody-of-that-name/m.safetensors")


def test_the_built_in_model_is_the_default_and_stays(source):
    path = build_in(source, "joints")
    store.install(source)
    assert names() == ["joints", "tiny"] and [stored.built_in for stored in store.list_models()] == [True, False]
    assert store.resolve() == store.resolve("joints") == path and store.show().built_in
    with pytest.raises(BadInput, match="'joints' is built in"):
        store.remove("joints")
    with pytest.raises(BadInput, match="a built-in model is called 'joints'; install it under another name"):
        store.install(source, name="joints", overwrite=True)
    assert path.exists() and store.resolve("tiny").parent == store.models_folder()


def test_an_own_model_goes_before_a_built_in_one_that_came_later_under_its_name(source):
    own = store.install(source)
    built_in = build_in(source, "tiny")
    assert store.resolve("tiny") == own.path and store.resolve() == built_in
    assert store.remove("tiny") == own and store.resolve("tiny") == built_in


def test_without_a_built_in_one_a_single_model_is_the_default(source):
    first = store.install(source, name="first")
    assert store.resolve() == first.path
    store.install(source, name="second")
    with pytest.raises(BadModel, match=r"several models are installed; name one: --model first\|second"):
        store.resolve()


def test_a_path_is_a_path_and_a_name_a_name(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.install(source)
    (tmp_path / "tiny").write_text("a file that happens to be called so")
    assert store.resolve("tiny") == store.models_folder() / "tiny.safetensors"
    assert store.resolve(str(source)) == source
    assert store.show(str(source)).name == source.stem
    for missing in ("none.safetensors", "./tiny2", "~/none.safetensors"):
        with pytest.raises(BadModel, match="no model file"):
            store.resolve(missing)
    with pytest.raises(BadModel, match="no model 'none'; those at hand: tiny"):
        store.resolve("none")


def test_foreign_files_in_the_store_are_not_models(source):
    store.install(source)
    for name in ("notes.txt", "UPPER.safetensors", ".pedboneseg-1-x.safetensors.partial.safetensors"):
        (store.models_folder() / name).write_text("x")
    assert names() == ["tiny"]


def test_a_store_that_cannot_be_made_or_written(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path / "file" / "home"))
    for action in (lambda: store.install(source), store.log_folder):
        with pytest.raises(BadInput, match="cannot be made: Not a directory; set PEDBONESEG_HOME"):
            action()


INSTALL = "import sys; from PedBoneSegLib.models import store; store.install(sys.argv[1])"


def test_a_full_disk_leaves_nothing(source):
    limit = source.stat().st_size // 2
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
    )
    done = subprocess.run([sys.executable, "-c", program + INSTALL, source], cwd=ROOT, capture_output=True, text=True)
    assert "tiny.safetensors could not be written: File too large" in done.stderr
    assert os.listdir(store.models_folder()) == []


def test_a_killed_install_leaves_no_model_and_is_swept_by_the_next(source):
    program = (
        "import shutil, os; copy = shutil.copyfile;shutil.copyfile = lambda *a: (copy(*a), os.kill(os.getpid(), 9));"
    )
    done = subprocess.run([sys.executable, "-c", program + INSTALL, source], cwd=ROOT)
    assert done.returncode == -9
    assert len(os.listdir(store.models_folder())) == 1 and names() == []
    store.install(source)
    assert os.listdir(store.models_folder()) == ["tiny.safetensors"]


def test_works_before_torch_is_there(source):
    program = (
        "import sys\n"
        "for name in ('torch', 'safetensors', 'scipy', 'SimpleITK'): sys.modules[name] = None\n"
        "from PedBoneSegLib.models import store\n"
        "store.BUILT_IN /= 'none'\n"
        "print(store.install(sys.argv[1]).name, len(store.list_models()))\n"
        "print(store.show().name, store.remove('tiny').name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, source], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["tiny", "1", "tiny", "tiny"], done.stderr
