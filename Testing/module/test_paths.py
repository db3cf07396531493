"""What the panel gives to the user's terminal imports nothing from the folder in which it is pasted."""

import subprocess

from PedBoneSegUI.paths import commandLine


def test_the_copied_command_executes_nothing_from_the_current_folder(tmp_path):
    for name in ("argparse", "numpy", "PedBoneSegLib"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    line = commandLine(["models", "list"])
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()
