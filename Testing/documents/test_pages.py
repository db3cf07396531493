"""The pages agree with the repository: links, pictures, locks, and the order in which Slicer's pictures are taken."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import PedBoneSegLib

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
PAGES = [ROOT / name for name in TRACKED if name.endswith(".md") and (ROOT / name).exists()]


def targets(page):
    """The relative links and pictures of a page, as (path, anchor)."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|mailto:", link):
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for path, anchor in targets(page):
        assert path.exists(), f"{page.name} links to {path.relative_to(ROOT)}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {path.name}#{anchor}"


def test_every_picture_is_shown():
    shown = {path for page in PAGES for path, _ in targets(page)}
    assert {ROOT / name for name in TRACKED if name.startswith("docs/images/") and (ROOT / name).exists()} <= shown


def test_every_study_is_listed():
    index = ROOT / "docs" / "studies" / "README.md"
    assert {page for page in index.parent.glob("*.md") if page != index} <= {path for path, _ in targets(index)}


def test_slicers_pictures_are_taken_before_the_labels_are_changed():
    """The README shows what the model found, not what a step of the test left behind."""
    source = (ROOT / "Testing" / "slicer" / "conversation" / "run.py").read_text(encoding="utf-8")
    methods = dict(re.findall(r"    def (\w+)\(self\) -> None:\n((?:        .*\n|\n)+)", source))
    order = re.findall(r"self\.(\w+),", source[source.index("for function in (") :])
    order = [name for name in order if name in methods]
    assert len(order) > 10
    changing = [name for name in order if "updateSegmentBinaryLabelmapFromArray" in methods[name]]
    photographed = [name for name in order if "self.picture(" in methods[name]]
    assert changing and max(map(order.index, photographed)) < min(map(order.index, changing))


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith(("#", "--"))]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in names)
    return [re.sub(r"[_.]", "-", line.partition("==")[0].lower()) for line in names]


def test_the_locks_hold_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, everything = pins("requirements-runtime.lock"), pins("requirements.lock")
    assert not set(runtime) & set(everything)

    def names(requirements):
        return {re.sub(r"[_.]", "-", re.split(r"[<>=\[]", entry)[0].lower()) for entry in requirements}

    assert names(project["dependencies"]) <= set(runtime)
    assert not {"vtk", "nibabel", "monai", "pytest"} & set(runtime)  # what a user does not need
    for requirements in project["optional-dependencies"].values():
        assert names(requirements) <= set(everything) | set(runtime)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PedBoneSegLib.__version__
    assert [entry["notes"][0] for entry in citation["references"]] == ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize("name", [name for name in TRACKED if name.endswith((".yml", ".yaml"))])
def test_yaml_can_be_read(name):
    assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
