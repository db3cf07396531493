"""The documents' commands are run as they stand, page by page, in a folder that looks like a fresh clone.

A block of commands is fenced with ```sh or ```python. All of a page's blocks run in one shell, in their order, and each
must succeed. (docs/python.md has a test of its own, in Testing/runtime/test_api.py.) An HTML comment above a block,
which a reader does not see, can say

    <!-- in the test: --exams 10 → --exams 3; … -->     run it with smaller numbers or with options added
    <!-- not run: why -->                               leave it out
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "Training/README.md",
    "docs/model.md",
    *(f"docs/studies/{path.name}" for path in sorted((ROOT / "docs" / "studies").glob("*.md"))),
]
LANGUAGES = {"sh", "python", "text", "toml", "json", "csv"}
BLOCK = re.compile(
    r"^(?:<!-- *(?P<note>(?:in the test|not run): .*?) *-->\n)?"
    r"^(?P<indent> *)```(?P<language>.*)\n(?P<body>(?:.*\n)*?) *```$",
    re.MULTILINE,
)
SECONDS = 1800  # for one page, on a machine that is busy with other things


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    body: str
    note: str

    @property
    def skipped(self) -> str:
        """Why it is not run, or empty."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""

    @property
    def substitutions(self) -> list[tuple[str, str]]:
        if not self.note.startswith("in the test: "):
            return []
        pairs = self.note.removeprefix("in the test: ").split("; ")
        return [tuple(part.strip() for part in pair.split("→")) for pair in pairs]

    @property
    def commands(self) -> str:
        commands = self.body
        for old, new in self.substitutions:
            assert commands.count(old) == 1, f"{self.page}:{self.line}: {old!r} stands {commands.count(old)} times"
            commands = commands.replace(old, new)
        return commands if self.language == "sh" else f".venv/bin/python - <<'PYTHON'\n{commands}PYTHON\n"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page, text.count("\n", 0, match.start("body")), match["language"],
            re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE), match["note"] or "",
        )
        for match in BLOCK.finditer(text)
    ]  # fmt: skip


def executable(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("sh", "python")]


def to_run(page: str) -> list[Block]:
    return [block for block in executable(page) if not block.skipped]


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with links to everything that git tracks, and to the environment that the tests run in. What the
    commands write lands in it, not in the repository."""
    if subprocess.run(["make", "--question", "setup"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("the commands would install packages; run make setup first")
    folder = tmp_path / "clone"
    folder.mkdir()
    for entry in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, encoding="utf-8").split("\0"):
        top = entry.partition("/")[0]
        if top and not (folder / top).exists():
            (folder / top).symlink_to(ROOT / top)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)])
def test_the_commands_run(page, clone):
    if page == "README.md":  # the image that a reader has
        shutil.copy(ROOT / "PedBoneSegLib" / "samples" / "knee.nii.gz", clone)
    script = ["set -eu -o pipefail"]
    for block in to_run(page):
        script += [f"echo '{block.page}:{block.line}' >&2", block.commands]  # so that a failure names its block
    home = clone / "home"
    environment = {
        **os.environ, "HOME": str(home), "PEDBONESEG_HOME": str(home / "pedboneseg"), "OMP_NUM_THREADS": "1",
        "QT_QPA_PLATFORM": "offscreen",
    }  # fmt: skip
    environment.pop("PYTEST_ADDOPTS", None)
    home.mkdir()
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=clone,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    """Commands cannot hide in a block without a language, in an indented one, or beside a misspelled comment."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))
    assert not [block for block in blocks(page) if block.language not in LANGUAGES]
    prose = BLOCK.sub("", text)
    assert not re.findall(r"(?<=\n\n) {4}(?!\d|[-*]).*", prose), "indented code"
    assert not re.findall(r"<!-- *(?:in the test|not run).*", prose), "a comment without a block of commands"


@pytest.mark.parametrize("page", PAGES)
def test_a_substitution_makes_it_smaller_and_nothing_else(page):
    """The command stays the same but for numbers, and options that may be added."""
    for block in executable(page):
        for old, new in block.substitutions:
            before, after = (re.sub(r"\d+(\.\d+)?", "#", text).split() for text in (old, new))
            words = iter(before)
            wanted, added = next(words, None), []
            for word in after:
                if word == wanted:
                    wanted = next(words, None)
                else:
                    added.append(word)
            assert wanted is None, f"{old} → {new}: {wanted} is missing"
            assert all(re.fullmatch(r"--[a-z-]+|[a-z_.]+=#|#", word) for word in added), f"{old} → {new}"


def test_what_is_not_run_says_why():
    """All blocks that no test runs: whoever adds one adds it here too, where a reviewer sees it."""
    left_out = [block for page in PAGES for block in executable(page) if block.skipped]
    assert all(len(block.skipped) > 10 for block in left_out)
    assert sorted((block.page, block.body.split("\n")[0][:40]) for block in left_out) == [
        ("CONTRIBUTING.md", ".venv/bin/pre-commit install"),
        ("CONTRIBUTING.md", "QT_QPA_PLATFORM=offscreen OMP_NUM_THREAD"),
        ("CONTRIBUTING.md", "make coverage"),
        ("CONTRIBUTING.md", "make lint"),
        ("CONTRIBUTING.md", "make test"),
        ("CONTRIBUTING.md", "python3 -m venv .venv-other"),
        ("Training/README.md", "pedboneseg crossval CONFIG -o runs/study"),
        ("Training/README.md", "torchrun --standalone --nproc-per-node 2"),
        ("docs/model.md", "git show 9368db9:PedBoneSegLib/bundled/p"),
        ("docs/model.md", "pedboneseg train Training/configs/bundle"),
        ("docs/studies/calibration.md", "pedboneseg synthesize caldata --joints a"),
        ("docs/studies/real.md", "pedboneseg evaluate --model pedboneseg-j"),
        ("docs/studies/real.md", "python -m PedBoneSegTraining.studies.rea"),
        ("docs/studies/training-runs.md", "pedboneseg train Training/configs/bundle"),
    ]
