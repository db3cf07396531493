"""Files that appear whole or not at all, whatever lies around them and whoever else writes there."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from PedBoneSegLib import files
from PedBoneSegLib.errors import BadInput, OutOfMemory, foreseen
from PedBoneSegLib.files import as_private_as, read_text, sweep_partials, whole_file, write_text

ROOT = Path(__file__).parents[2]


def start(code, *arguments):
    """A process that runs `code` and waits for its stdin to end."""
    command = [sys.executable, "-c", "import sys; from PedBoneSegLib import files\n" + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


WRITING = """
with files.whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.nii.gz"
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz") and temporary.is_file()
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    write_text(path, "whole")
    with pytest.raises(BadInput, match=r"a\.nii\.gz could not be written: oh"), whole_file(path):
        raise OSError("oh")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_names_cannot_be_guessed_and_are_short(tmp_path):
    names = set()
    for stem in ("a", "a", "x" * 240, f"{'x' * 100}.{'y' * 100}.{'z' * 30}"):
        with whole_file(tmp_path / f"{stem}.nii.gz") as temporary:
            names.add(temporary.name)
    assert len(names) == 4 and max(map(len, names)) < 80


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    write_text(tmp_path / ("x" * 248 + ".nii.gz"), "whole")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_what_lies_there_already_is_never_followed(tmp_path, monkeypatch):
    """A link of the temporary file's name, put there by someone who guessed it: its target stays as it is."""
    precious, numbers = tmp_path / "precious", iter([b"\0" * 8, b"\1" * 8])
    precious.write_text("mine")
    monkeypatch.setattr(files.os, "urandom", lambda count: next(numbers))
    (tmp_path / f".pedboneseg-{files._MACHINE}-{'00' * 8}.partial.txt").symlink_to(precious)
    with pytest.raises(BadInput, match="could not be written: File exists"):
        write_text(tmp_path / "a.txt", "new")
    assert precious.read_text() == "mine" and not (tmp_path / "a.txt").exists()


def test_a_live_file_of_another_process_is_not_swept_and_a_dead_ones_is(tmp_path):
    writer = start(WRITING, tmp_path / "a.txt")
    assert writer.stdout.readline() == "writing\n"
    (partial,) = tmp_path.iterdir()
    sweep_partials(tmp_path)
    assert partial.read_text() == "half"
    writer.kill()
    writer.wait()
    sweep_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_does_not_disturb_the_writer(tmp_path):
    writer = start(WRITING, tmp_path / "a.txt")
    assert writer.stdout.readline() == "writing\n"
    sweep_partials(tmp_path)
    writer.communicate("")
    assert writer.returncode == 0 and (tmp_path / "a.txt").read_text() == "half" and len(list(tmp_path.iterdir())) == 1


def test_another_machines_file_goes_only_when_it_is_a_day_old(tmp_path):
    young, old = (tmp_path / f".pedboneseg-{host}-0123.partial.nii.gz" for host in ("aaaaaaaa", "bbbbbbbb"))
    former = tmp_path / ".pedboneseg-99999999999999999999999-x.nii.gz.partial.nii.gz"  # as version 0.1 called them
    for path in (young, old, former):
        path.write_text("half")
    os.utime(old, (0, 0))
    os.utime(former, (0, 0))
    sweep_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_folders_links_and_pipes_of_such_a_name_are_left_alone(tmp_path):
    folder, link, pipe = (tmp_path / f".pedboneseg-{files._MACHINE}-{name}.partial" for name in ("0a", "0b", "0c"))
    folder.mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("mine")
    os.mkfifo(pipe)
    sweep_partials(tmp_path)
    assert folder.is_dir() and link.is_symlink() and pipe.exists() and (tmp_path / "elsewhere").exists()
    sweep_partials(tmp_path / "no such folder")


def test_a_block_within_a_block_writes_the_same_temporary_file(tmp_path):
    with whole_file(tmp_path / "a.txt") as outer:
        write_text(outer, "inner")
        sweep_partials(tmp_path)
        before = outer.stat()
        assert not (tmp_path / "a.txt").exists() and list(tmp_path.iterdir()) == [outer]
    after = (tmp_path / "a.txt").stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)


def test_a_writer_that_puts_another_file_in_its_place(tmp_path):
    with whole_file(tmp_path / "a.txt") as temporary:
        mode = stat.S_IMODE(temporary.stat().st_mode)
        (tmp_path / "b").write_text("new")
        (tmp_path / "b").chmod(0o600)
        os.replace(tmp_path / "b", temporary)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode and (tmp_path / "a.txt").read_text() == "new"


def test_the_end_of_the_process_leaves_nothing(tmp_path):
    code = """
with files.whole_file(sys.argv[1]) as a, files.whole_file(sys.argv[2]) as b:
    a.write_text("half")
    files.discard_partials()
    import os
    os._exit(0)
"""
    assert start(code, tmp_path / "a", tmp_path / "b").wait() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode, others", [(0o600, 0o000), (0o640, 0o040), (0o644, 0o044), (0o660, 0o040)])
def test_what_is_made_from_a_private_input_is_private(tmp_path, mode, others):
    source, folder = tmp_path / "source", tmp_path / "series"
    source.write_text("x")
    folder.mkdir()
    (folder / "a").write_text("x")
    (folder / "b").write_text("x")
    source.chmod(mode)
    (folder / "b").chmod(mode)
    before = os.umask(0o022)
    try:
        for number, place in enumerate((source, folder)):
            with as_private_as(place):
                write_text(tmp_path / f"out{number}", "x")
            assert stat.S_IMODE((tmp_path / f"out{number}").stat().st_mode) & 0o077 == others
        write_text(tmp_path / "other", "x")
        assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_texts_are_read_from_plain_files_alone(tmp_path):
    """A pipe and a device would never end."""
    write_text(tmp_path / "a.txt", "é")
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "a.txt") == "é"
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(OSError):
            read_text(path)


def test_what_the_system_says_of_a_file_is_no_bug(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in ("x" * 300, loop, tmp_path / "none", tmp_path):
        with pytest.raises(OSError) as caught:
            open(tmp_path / path)
        found = foreseen(caught.value)
        assert isinstance(found, BadInput) and Path(path).name in found.message and found.hint
    assert isinstance(foreseen(MemoryError()), OutOfMemory)
    assert foreseen(ValueError("x")) is None and foreseen(OSError("x")) is None
