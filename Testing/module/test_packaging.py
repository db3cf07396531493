"""What is packaged is what is there; what the .ui names exists; nothing heavy is imported; an installation works."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from PedBoneSegLib.anatomy import display_name, joint_table, known_joints

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "PedBoneSeg"


def cmakeList(name: str) -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text()
    entries = re.search(rf"set\({name}\n(.*?)\n\s*\)", text, re.S).group(1).split()
    return {entry.replace("${MODULE_NAME}", "PedBoneSeg") for entry in entries}


def treeOf(pattern: str) -> set[str]:
    return {path.relative_to(MODULE).as_posix() for path in MODULE.rglob(pattern) if "__pycache__" not in path.parts}


def test_cmakeListsEveryFile():
    assert cmakeList("MODULE_PYTHON_SCRIPTS") == treeOf("*.py")
    thumbnails = {f"Resources/Icons/PedBoneSeg{joint.capitalize()}.png" for joint in known_joints()}
    resources = {name for name in treeOf("*") if name.startswith("Resources/") and (MODULE / name).is_file()}
    assert cmakeList("MODULE_PYTHON_RESOURCES") == resources - thumbnails


def test_extensionAndIndexAgree():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    index = json.loads((ROOT / "PedBoneSeg.json").read_text())
    depends = re.search(r'set\(EXTENSION_DEPENDS "(.*?)"\)', cmake).group(1).split()
    assert index["build_dependencies"] == depends == ["PyTorch"]
    assert re.search(r"project\((\w+)\)", cmake).group(1) == "PedBoneSeg"
    for field in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"):
        # after a semicolon CMake would drop the rest
        assert re.search(rf'^set\(EXTENSION_{field} "[^";\n]+"\)$', cmake, re.M), field
    assert b"\r" not in (ROOT / "PedBoneSeg.json").read_bytes()


def test_theTermListHoldsEveryBoneWithItsColorOnBothSides():
    path = MODULE / "Resources" / "SegmentationCategoryTypeModifier-PedBoneSeg.term.json"
    document = json.loads(path.read_text())
    types = {one["CodeValue"]: one for one in document["SegmentationCodes"]["Category"][0]["Type"]}
    for joint in known_joints():
        for bone in joint_table(joint).bones:
            entry = types[bone.type.value]
            assert entry["CodeMeaning"] == bone.type.meaning
            labels = {one["CodeMeaning"]: one["3dSlicerLabel"] for one in entry["Modifier"]}
            assert labels == {side.capitalize(): display_name(bone, side) for side in ("left", "right")}


def test_theTermListLoadsInSlicer():
    """Slicer's own logic finds the tibia of our list, by the entry that a segment carries."""
    import slicer
    from PedBoneSegUI.segmentations import loadTerminology

    from PedBoneSegLib.formats.segments import terminology

    loadTerminology(str(MODULE / "Resources" / "SegmentationCategoryTypeModifier-PedBoneSeg.term.json"))
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(terminology(joint_table("knee").bone("tibia"), "left"), entry)
    context = entry.GetTerminologyContextName()
    category = slicer.vtkSlicerTerminologyCategory()
    assert logic.GetNthCategoryInTerminology(context, 0, category)
    count = logic.GetNumberOfTypesInTerminologyCategory(context, category)
    values = []
    for index in range(count):
        found = slicer.vtkSlicerTerminologyType()
        logic.GetNthTypeInTerminologyCategory(context, category, index, found)
        values.append(found.GetCodeValue())
    assert entry.GetTypeObject().GetCodeValue() == "12611008" and "12611008" in values


def test_theUiAndTheCodeKnowTheSameNames():
    tree = ElementTree.parse(MODULE / "Resources" / "UI" / "PedBoneSeg.ui")
    widgets = {widget.get("name") for widget in tree.iter("widget")}
    used = set()
    for path in MODULE.rglob("*.py"):
        used |= set(re.findall(r"(?:\b|_)ui\.(\w+)", path.read_text()))
    methods = {"setMRMLScene"}
    assert used - methods <= widgets, used - methods - widgets
    buttons = {w.get("name") for w in tree.iter("widget") if w.get("class") == "QPushButton"}
    assert buttons <= used, f"buttons without a use: {buttons - used}"
    for widget in tree.iter("widget"):
        if widget.get("class") in ("QPushButton", "QComboBox", "qMRMLNodeComboBox", "QCheckBox", "ctkPathLineEdit"):
            tips = [p for p in widget.findall("property") if p.get("name") == "toolTip"]
            assert tips and tips[0].findtext("string"), f"{widget.get('name')} has no tool tip"


def test_noFileOfTheModuleIsLong():
    for path in MODULE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_whatIsImportedAtFileScope():
    allowed = {"slicer", "qt", "ctk", "vtk", "numpy", "PedBoneSegLib", "PedBoneSegUI", "SampleData"}
    for path in MODULE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in names:
                assert name.split(".")[0] in allowed | sys.stdlib_module_names, f"{path.name} imports {name}"


def test_thePanelNeverImportsTorch():
    """The whole panel is made in a fresh process in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from module.host import install; install()\n"
        "from module.host import scripted; from PedBoneSeg import PedBoneSegWidget\n"
        "w = PedBoneSegWidget(scripted.ModuleParent()); w.setup(); w.enter(); print('made')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "Testing", MODULE)))}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=500)
    assert made.stdout.strip().endswith("made"), made.stderr


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Path:
    """The files as `make install` would lay them out, by CMake's own lists and rules, in a folder with blanks."""
    target = tmp_path_factory.mktemp("Slicer 5.12 für Zoë") / "lib" / "qt-scripted-modules"
    for name in cmakeList("MODULE_PYTHON_SCRIPTS") | cmakeList("MODULE_PYTHON_RESOURCES"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULE / name, target / name)
    cmake = (ROOT / "CMakeLists.txt").read_text()
    folders = re.search(r"foreach\(_folder (.*?)\)", cmake).group(1).split()
    without = re.findall(r'PATTERN "(.*?)" EXCLUDE', cmake)
    for folder in folders:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns(*without))
    return target


def test_anInstallationFindsItsParts(installation):
    code = (
        "from PedBoneSegUI import paths; import PedBoneSegLib.anatomy as a; from pathlib import Path\n"
        "root = paths.findRoot(); assert root == Path('.').resolve(), root\n"
        "assert Path(a.__file__).is_relative_to(root); assert (root / 'Training' / 'PedBoneSegTraining').is_dir()\n"
        "assert 'knee' in a.known_joints()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=installation, check=True, timeout=500)


def test_theWorkerRunsOutOfAnInstallation(installation, spin):
    from PedBoneSegUI.paths import pythonPath
    from PedBoneSegUI.workerclient import WorkerClient
    from PedBoneSegUI.worklog import WorkLog

    from PedBoneSegLib import __version__

    command = [sys.executable, "-m", "PedBoneSegLib", "serve"]
    client = WorkerClient(command, str(installation), {"PYTHONPATH": pythonPath(installation)}, __version__, WorkLog())
    ends = []
    client.send("models", {"action": "list"}, onDone=ends.append, onError=lambda *error: ends.append(error))
    spin(lambda: ends)
    client.close()
    assert isinstance(ends[0], dict) and "models" in ends[0], (ends, client.log.text)


class SampleDataLogic:
    """As in Slicer 5.12."""

    sources: dict = {}

    @staticmethod
    def registerCustomSampleDataCategory(category, title=None) -> None:
        assert category == "PedBoneSeg" and title

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom", sampleName=None, uris=None, fileNames=None, nodeNames=None, customDownloader=None,
        thumbnailFileName=None, loadFileTypes=None, loadFiles=None, loadFileProperties=None, checksums=None,
    ) -> None:  # fmt: skip
        SampleDataLogic.sources[sampleName] = (uris, thumbnailFileName, loadFileTypes, checksums)


def test_theSamplesAreVolumesWithPicturesAndChecksums(monkeypatch):
    """By the ending alone, Slicer may take them for segmentations."""
    import PedBoneSeg

    monkeypatch.setitem(sys.modules, "SampleData", sys.modules[__name__])
    PedBoneSeg.registerSampleData()
    assert len(SampleDataLogic.sources) == 3
    for uri, picture, kind, checksum in SampleDataLogic.sources.values():
        assert uri.startswith("file:") and Path(picture).is_file() and kind == "VolumeFile"
        assert checksum.startswith("SHA256:")
