"""The distance between real and made images: what is alike is near, what differs is far and is told apart."""

import json
import sys

import numpy as np
import pytest
import torch
from PedBoneSegTraining.synthesis import realism
from PedBoneSegTraining.synthesis.realism import MEASURES, Looked, distances, telling_apart
from PedBoneSegTraining.synthesis.writer import write_nifti
from scipy import ndimage

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.volume import Grid, Volume

SIZE = (110, 110, 14)
GRID = Grid(SIZE, (1.0, 1.0, 4.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def volume(seed: int, grain: float = 2.0, gain: float = 1000.0) -> Volume:
    """A bright disk on dark ground, with noise whose bumps are `grain` pixels wide."""
    noise = np.random.default_rng(seed).normal(size=SIZE)
    smooth = ndimage.gaussian_filter(noise, (grain, grain, 0))
    x, y = np.meshgrid(np.arange(110) - 55, np.arange(110) - 52, indexing="ij")
    disk = (np.hypot(x, y) < 44)[..., None]
    air = 0.01 * np.abs(np.random.default_rng(seed + 1000).normal(size=SIZE))
    bright = disk * (1 + 0.15 * smooth / smooth.std())
    return Volume((gain * (air + bright)).clip(0).astype(np.int16), GRID, f"disk {seed}")


@pytest.fixture(scope="module")
def groups() -> dict[str, list[Looked]]:
    grains = {"real": (2.0, 0), "alike": (2.0, 10), "grainy": (0.6, 20)}
    return {name: [Looked.at(volume(first + i, grain)) for i in range(3)] for name, (grain, first) in grains.items()}


def test_a_volume_is_looked_at_without_its_gain():
    one, brighter = Looked.at(volume(1)), Looked.at(volume(1, gain=4000.0))
    assert np.percentile(one.images[one.body], 98) == pytest.approx(1.0, abs=1e-4)
    assert 0.9 < one.body.sum() / (len(one.images) * np.pi * 44**2) < 1.15
    for measure in MEASURES.values():
        assert np.allclose(measure(one), measure(brighter), atol=0.03)


def test_what_is_alike_is_as_near_as_the_real_ones_to_each_other(groups):
    near, far = (distances(groups["real"], groups[name]) for name in ("alike", "grainy"))
    assert set(near) == {*MEASURES, "all"}
    assert 0.5 < near["all"] < 2.0
    for name in ("edges", "power spectrum", "texture"):
        assert far[name] > 3 * near[name]
    assert near["all"] == pytest.approx(np.exp(np.mean([np.log(near[name]) for name in MEASURES])))


def test_the_classifier_tells_grain_apart_and_nothing_else(groups):
    assert min(telling_apart(groups["real"], groups["grainy"], steps=40)) > 0.95
    assert 0.3 < np.mean(telling_apart(groups["real"], groups["alike"], steps=40)) < 0.7


def test_the_area_counts_pairs_and_ties_half():
    assert realism._area(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])) == pytest.approx(3.5 / 4)


def test_the_command_prints_numbers_and_draws_a_picture(tmp_path, monkeypatch, capsys):
    real = tmp_path / "real"
    real.mkdir()
    for i in range(3):
        write_nifti(real / f"case{i}_MR_T1.nii.gz", volume(i).array, GRID)
    write_nifti(real / "case0_mask.nii.gz", volume(0).array, GRID, is_labels=True)
    monkeypatch.setattr(realism, "make", lambda recipe, exams: [volume(50 + i, 0.6) for i in range(exams)])
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "realism",
            str(real),
            "--match",
            "*_MR_*",
            "--joints",
            "knee",
            "--exams",
            "3",
            "--steps",
            "20",
            "--picture",
            str(tmp_path / "p.jpg"),
        ],
    )
    realism.main()
    told = json.loads(capsys.readouterr().out)
    assert len(told["real"]) == 3 and told["made"] == 3 and told["distances"]["all"] > 1
    assert (tmp_path / "p.jpg").read_bytes()[:2] == b"\xff\xd8"
    monkeypatch.setattr(sys, "argv", ["realism", str(real), "--match", "nothing*"])
    with pytest.raises(BadInput, match="0 images"):
        realism.main()
