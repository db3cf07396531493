"""The samples in the repository are what their command makes, and say that they are synthetic."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PedBoneSegTraining.synthesis.samples import SAMPLES, write_thumbnail

import PedBoneSegLib
from PedBoneSegLib.anatomy import joint_table, known_joints
from PedBoneSegLib.formats.reading import read_volume

FOLDER = Path(PedBoneSegLib.__file__).parent / "samples"


def test_every_joint_has_one():
    assert sorted(sample.joint for sample in SAMPLES) == sorted(known_joints())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.joint)
def test_the_command_makes_it_again(sample, tmp_path):
    path = FOLDER / f"{sample.joint}.nii.gz"
    rendering, volume = sample.draw(), read_volume(path)
    assert path.stat().st_size < 1.5e6
    assert b"synthetic" in nibabel.load(path).header["descrip"].item()
    assert volume.array.dtype == np.int16 and volume.array.shape == rendering.volume.array.shape
    assert np.abs(volume.array.astype(int) - rendering.volume.array).mean() < 0.5  # rounding differs between machines
    assert np.allclose(volume.grid.affine, rendering.volume.grid.affine, atol=1e-3)
    bones = set(joint_table(sample.joint).labels.values())
    assert bones <= set(np.unique(rendering.labels))  # a demonstration shows all bones
    write_thumbnail(tmp_path / "thumbnail.png", rendering)
    assert (tmp_path / "thumbnail.png").read_bytes().startswith(b"\x89PNG")
