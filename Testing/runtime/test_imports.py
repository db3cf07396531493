"""The import walls: who may import whom, and what the runtime must do without."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("PedBoneSeg", "PedBoneSegUI", "PedBoneSegLib", "PedBoneSegTraining")
TORCH_ROOMS = tuple(
    [
        "network/",
        "inference/exam_statistics.py",
        *(f"inference/{name}.py" for name in ("predictor", "passes", "devices", "signature", "detection", "notices")),
    ]
)  # of the runtime, at file scope
TORCH_FREE = (
    "anatomy", "api", "errors", "files", "formats", "inference.postprocess", "inference.result", "inference.slices",
    "models.bundle", "models.manifest", "models.store", "network.config", "network.encoders", "program.batch",
    "program.cli", "program.detect", "program.doctor", "program.logbook", "program.measure", "program.models",
    "program.protocol", "program.segment", "program.session", "program.worker", "results.columns",
    "results.documents", "results.measure", "results.surfaces", "volume",
)  # fmt: skip
GUI_ROOMS = (
    "__version__", "anatomy", "errors", "files", "formats", "models.store", "program.batch", "program.protocol",
    "results.columns", "results.documents", "volume",
)  # fmt: skip
FLOORS = (  # of the runtime, top to bottom: a file imports from its own room and from the floors below
    ("__main__", "pedboneseg"), ("program",), ("api",), ("results",), ("inference",), ("models",),
    ("formats", "network"), ("anatomy",), ("volume", "files"), ("progress",), ("errors",), ("plaintext",),
    ("__version__",),
)  # fmt: skip
SLICER = {"slicer", "qt", "ctk", "mrml", "vtkSegmentationCorePython", "vtkMRMLLogicPython"}
ALLOWED = {"numpy", "scipy", "SimpleITK", "torch", "safetensors", "vtk", "vtkmodules"}
BANNED = ("monai", "timm", "torchvision", "nibabel", "matplotlib", "pandas", "torchio", "skimage", "PIL", "tqdm")


def imports(path, root=ROOT):
    """(dotted name, is it at file scope) for every name that a file imports; a relative one with its package's name.
    What stands under `if TYPE_CHECKING` is never executed and not counted."""
    package = path.relative_to(root).with_suffix("").parts
    found = []

    def visit(node, outermost):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, outermost) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found.extend((f"{module}.{alias.name}", outermost) for alias in node.names)
        inner = outermost and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def files(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "egg-info" not in str(path))


def test_the_collector_sees_what_it_should(tmp_path):
    (tmp_path / "room").mkdir()
    path = tmp_path / "room" / "a.py"
    path.write_text(
        "import os, torch.nn\nfrom . import b\nfrom .c import d\n"
        "def f():\n    import numpy\nclass K:\n    import json\nif TYPE_CHECKING:\n    import vtk\n"
    )
    outer = [(name, True) for name in ("os", "torch.nn", "room.b", "room.c.d")]
    assert imports(path, tmp_path) == [*outer, ("numpy", False), ("json", True)]


@pytest.mark.parametrize("path", files("PedBoneSegLib"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_runtime(path):
    room = path.relative_to(ROOT / "PedBoneSegLib").as_posix()
    for module, outermost in imports(path):
        top = module.split(".")[0]
        assert top not in SLICER and (top not in OURS or top == "PedBoneSegLib"), module
        assert top in sys.stdlib_module_names | ALLOWED | {"PedBoneSegLib"}, module
        if outermost and top == "torch":
            assert room.startswith(TORCH_ROOMS), "torch at file scope"


def upward(path, root=ROOT / "PedBoneSegLib"):
    """The rooms on its own floor or above it that a file of the runtime imports, also within functions. What stands
    under `if TYPE_CHECKING` does not count."""
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    own = path.relative_to(root).parts[0].removesuffix(".py")
    rooms = {name.split(".")[1] for name, _ in imports(path, root.parent) if name.startswith("PedBoneSegLib.")}
    return sorted(room for room in rooms - {own} if floor_of[room] <= floor_of[own])


@pytest.mark.parametrize("path", files("PedBoneSegLib"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_runtime_imports_downward_only(path):
    if path.parent.name != "PedBoneSegLib" or path.name != "__init__.py":
        assert not upward(path)


def test_an_import_from_above_is_seen(tmp_path):
    room = tmp_path / "PedBoneSegLib" / "models"
    room.mkdir(parents=True)
    (room / "a.py").write_text("from ..errors import BadModel\ndef f():\n    from ..inference import predictor\n")
    assert upward(room / "a.py", tmp_path / "PedBoneSegLib") == ["inference"]


@pytest.mark.parametrize("path", files("Training"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_training_library(path):
    for module, _ in imports(path):
        assert module.split(".")[0] not in SLICER | {"PedBoneSeg", "PedBoneSegUI"}, module


@pytest.mark.parametrize("path", files("PedBoneSeg"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_module(path):
    for module, _ in imports(path):
        parts = module.split(".")
        assert parts[0] not in ("torch", "PedBoneSegTraining"), module
        if parts[0] == "PedBoneSegLib":
            assert any(f"{module}.".startswith(f"PedBoneSegLib.{room}.") for room in GUI_ROOMS), module


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_the_runtime_works_with_everything_else_blocked(tmp_path):
    """Not only imported: a volume is segmented from file to file and measured."""
    code = f"""
import sys
for name in {BANNED!r}:
    sys.modules[name] = None  # any import of it fails
sys.path.insert(0, "Testing")
import importlib, pathlib, numpy as np, SimpleITK as sitk
for path in sorted(pathlib.Path("PedBoneSegLib").rglob("*.py")):
    if path.name != "__main__.py":
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
from tiny import make_tiny_bundle
from PedBoneSegLib.program.measure import measure
from PedBoneSegLib.program.segment import SegmentOptions, segment
from PedBoneSegLib.program.session import Session
folder = pathlib.Path({str(tmp_path)!r})
make_tiny_bundle(folder / "m.safetensors")
image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 900, (6, 30, 30)).astype(np.int16))
sitk.WriteImage(image, str(folder / "a.nii.gz"))
session = Session()
segment(session, SegmentOptions(str(folder / "a.nii.gz"), joint="knee", model=str(folder / "m.safetensors")))
measure({{"input": str(folder / "a_bones.nii.gz"), "joint": "knee", "surfaces": str(folder / "s")}})
assert "torch._dynamo" not in sys.modules  # torch's compiler, which takes seconds to load and is never needed
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_torch_free_rooms_are_free_of_torch():
    code = f"""
import importlib, sys
sys.modules["torch"] = None  # any import of it fails
for room in {TORCH_FREE!r}:
    importlib.import_module("PedBoneSegLib." + room)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_models_are_listed_by_the_standard_library_alone():
    code = """
import sys
for name in ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "vtk"):
    sys.modules[name] = None
from PedBoneSegLib import anatomy, errors
from PedBoneSegLib.models import store
from PedBoneSegLib.program import protocol
store.list_models()
assert anatomy.joint_table("knee").names == ("femur", "tibia", "fibula", "patella")
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
