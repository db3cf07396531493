"""The renderer: labels stay true under every effect, and every effect does what it says."""

import math

import numpy as np
import pytest
import torch
from PedBoneSegTraining.synthesis.anatomy import Tissue
from PedBoneSegTraining.synthesis.anatomy.draw import Average, Draw
from PedBoneSegTraining.synthesis.rendering import (
    HELD_OUT_PRESETS,
    PRESETS,
    RenderSettings,
    artifacts,
    draw_matter,
    draw_parameters,
    draw_strengths,
    render,
)
from PedBoneSegTraining.synthesis.rendering.acquisition import AXES, Acquisition, lay_out, sample
from PedBoneSegTraining.synthesis.rendering.contrasts import TISSUES, contrast, draw_contrast
from synthetic_phantom import ball, blank, limb

KEY = ("test", 5)
PLAIN = RenderSettings().without(*RenderSettings.names())
GEOMETRY = ("oblique", "field_cut", "padding")
TISSUE = tuple(draw_strengths(KEY, PLAIN))
INTENSITY = tuple(name for name in RenderSettings.names() if name not in GEOMETRY + TISSUE)


def exam(settings=PLAIN, anatomy=None, key=KEY, preset="T1", **options):
    anatomy = anatomy or limb()
    parameters = draw_parameters(key, settings, preset, **{"pixel_mm": (1.2, 1.5)} | options)
    return render(anatomy, draw_matter(anatomy, key, settings), key, parameters)


@pytest.fixture(scope="module")
def plain():
    return exam()


@pytest.mark.parametrize("name", INTENSITY + TISSUE)
def test_an_effect_on_intensities_moves_no_label(name, plain):
    changed = exam(PLAIN.only(name))
    assert np.array_equal(changed.labels, plain.labels)
    assert changed.volume.grid == plain.volume.grid
    assert not np.array_equal(changed.volume.array, plain.volume.array), f"{name} does nothing"


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("plane", AXES)
def test_a_geometric_effect_moves_labels_with_the_image(name, plane):
    """Marrow balls in air: what is bright is bone, wherever the effect puts it."""
    anatomy = ball(ball(blank(), (-9, 4, -20), 18, 1), (6, -7, 21), 15, 2)
    clean = exam(anatomy=anatomy, planes=[plane])
    strength = 0.5 if name == "padding" else None  # corners as large as that reach the balls
    for rendering in (clean, exam(PLAIN.only(name, strength=strength), anatomy, planes=[plane])):
        image, labels = rendering.volume.array.astype(float), rendering.labels
        bright = image > 0.5 * np.percentile(image[labels > 0], 50)
        assert 2 * (bright & (labels > 0)).sum() / (bright.sum() + (labels > 0).sum()) > 0.97
    assert rendering.labels.shape != clean.labels.shape or not np.array_equal(rendering.labels, clean.labels)


@pytest.mark.parametrize("plane", AXES)
@pytest.mark.parametrize("settings", [PLAIN, PLAIN.only("oblique", strength=25.0)])
def test_the_grid_puts_a_bone_where_the_anatomy_has_it(plane, settings):
    center = (-10.0, 7.0, 12.0)
    anatomy = ball(blank(fill=Tissue.FAT), center, 12, 3)
    for place in range(3):
        rendering = exam(settings, anatomy, key=("grid", place), planes=[plane])
        where = np.argwhere(rendering.labels == 3)
        found = rendering.volume.grid.affine @ np.append(where.mean(axis=0), 1)
        assert np.allclose(found[:3], center, atol=0.6)
        volume = len(where) * rendering.volume.grid.voxel_ml * 1000
        assert volume == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.08)
        rendering.volume.grid.check()


def acquisition(**changes) -> Acquisition:
    """Axial, 4 mm slices without a gap, nothing trimmed."""
    defaults = dict(
        plane="axial",
        isotropic=False,
        pixel_mm=2.0,
        slice_mm=4.0,
        thickness_mm=4.0,
        tilt=(0.0, 0.0, 0.0),
        trims=((0.0, 0.0),) * 3,
        reversed_slices=False,
        phase_rows=True,
        blank=(),
    )
    return Acquisition(**defaults | changes)


@pytest.mark.parametrize(("top", "expected"), [(33, 4), (35, 5)])
def test_a_voxel_is_the_bone_that_fills_most_of_it(top, expected):
    """64 layers of 1 mm: slice k spans layers 4k … 4k + 3, and slice 8 is a quarter or three quarters bone."""
    anatomy = blank(spacing=1.0, fill=Tissue.MUSCLE)
    anatomy.bones[:, :, 16:top] = 1
    layout = lay_out(acquisition(), anatomy, 10**7)
    assert layout.size[0] == 16
    # the field of a body that fills its array is trimmed by nothing: slice k is centered on layer 4k + 1.5
    signal = torch.ones(1, 64, 64, 64)
    _, labels = sample(layout, anatomy, signal, (slice(0, 64),) * 3)
    filled = [k for k in range(16) if labels[k, 16, 16] == 1]
    assert len(filled) == expected and filled[0] == 4


def test_a_thick_slice_averages_the_signal():
    anatomy = blank(spacing=1.0, fill=Tissue.MUSCLE)
    signal = torch.zeros(1, 64, 64, 64)
    signal[:, :, :, 34:] = 1.0
    values, _ = sample(lay_out(acquisition(), anatomy, 10**7), anatomy, signal, (slice(0, 64),) * 3)
    assert values[0, 8, 16, 16] == pytest.approx(0.5, abs=1e-4)
    thin, _ = sample(lay_out(acquisition(thickness_mm=1.0), anatomy, 10**7), anatomy, signal, (slice(0, 64),) * 3)
    assert thin[0, 7, 16, 16] == 0 and thin[0, 9, 16, 16] == pytest.approx(1.0, abs=1e-5)


def test_neighbours_are_background(plain):
    assert set(np.unique(plain.labels)) == {0, 1, 2}


def test_pixels_grow_rather_than_the_memory():
    anatomy = limb()
    for number in range(6):
        size = lay_out(Acquisition(**draw_parameters(("size", number), PLAIN)["acquisition"]), anatomy, 200_000).size
        assert math.prod(size) < 260_000


def test_switching_one_effect_off_leaves_the_others_as_they_were():
    everything = RenderSettings()
    for name in INTENSITY:
        mine, theirs = (draw_parameters(KEY, one)["effects"] for one in (everything, everything.without(name)))
        assert theirs.pop(name) is None
        mine.pop(name)
        assert mine == theirs


def test_strengths_stay_in_their_range_and_act_as_often_as_they_say():
    settings = RenderSettings()
    drawn = [
        draw_parameters(("range", i), settings)["effects"] | draw_strengths(("range", i), settings) for i in range(300)
    ]
    for name in INTENSITY + TISSUE:
        effect = getattr(settings, name)
        acted = [one[name] for one in drawn if one[name] is not None]
        assert all(effect.low <= strength <= effect.high for strength in acted)
        assert abs(len(acted) / len(drawn) - effect.probability) < 0.12


def test_protocols_stay_in_their_range():
    protocols = [draw_parameters(("protocol", i), RenderSettings())["acquisition"] for i in range(300)]
    assert {one["plane"] for one in protocols} == set(AXES)
    for one in protocols:
        if not one["isotropic"]:
            assert 0.3 <= one["pixel_mm"] <= 1.0 and 1.5 <= one["slice_mm"] <= 5.0
        assert one["thickness_mm"] <= one["slice_mm"] + 1e-4
        assert all(abs(angle) <= 25 for angle in one["tilt"])


def test_the_same_key_gives_the_same_image_and_another_another():
    one, again, other = exam(RenderSettings()), exam(RenderSettings()), exam(RenderSettings(), key=("test", 6))
    assert np.array_equal(one.volume.array, again.volume.array) and np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.volume.array, other.volume.array)


def signal(preset: str) -> np.ndarray:
    """Mean signal of each tissue over draws of a preset."""
    made = [contrast(*draw_contrast(Draw("contrast", i), preset)) for i in range(30)]
    return np.mean([one.water + one.fat for one in made], axis=0)


def test_presets_look_as_readers_expect():
    t1, t2, t2_fs, pd_fs, gre = (signal(name) for name in ("T1", "T2", "T2-FS", "PD-FS", "GRE"))
    assert t1[Tissue.FAT] > 2 * t1[Tissue.MUSCLE] > 2 * t1[Tissue.FLUID]
    assert t1[Tissue.MARROW] > t1[Tissue.MARROW_RED] > t1[Tissue.MUSCLE] > t1[Tissue.CORTEX] * 4
    assert t2[Tissue.FLUID] > t2[Tissue.FAT] > t2[Tissue.MUSCLE] > t2[Tissue.TENDON]
    assert t2_fs[Tissue.FLUID] > 3 * max(t2_fs[Tissue.FAT], t2_fs[Tissue.MARROW])
    assert pd_fs[Tissue.CARTILAGE] > pd_fs[Tissue.MARROW] and pd_fs[Tissue.FLUID] > pd_fs[Tissue.CARTILAGE]
    assert gre[Tissue.VESSEL] > gre[Tissue.MUSCLE] and gre[Tissue.MARROW] < gre[Tissue.FAT]
    assert signal("STIR")[Tissue.FAT] < 0.2 * signal("STIR")[Tissue.FLUID]
    for name in PRESETS:
        assert signal(name)[Tissue.CORTEX] < 0.15 and signal(name)[Tissue.AIR] == 0


def test_random_contrasts_keep_cortex_dark_and_reach_every_order_of_muscle_and_marrow():
    signals = {"signals": list(np.linspace(0.01, 0.99, TISSUES))}
    made = [contrast("random", draw_contrast(Draw("random", i))[1] | signals) for i in range(3)]
    assert all((one.water + one.fat)[Tissue.CORTEX] < 0.2 for one in made)
    ratios = []
    for i in range(200):
        name, numbers = draw_contrast(Draw("mix", i))
        if name == "random":
            total = contrast(name, numbers)
            total = total.water + total.fat
            ratios.append(total[Tissue.MARROW] / total[Tissue.MUSCLE])
    assert min(ratios) < 0.7 and max(ratios) > 1.5


def test_no_training_draw_uses_a_held_out_sequence():
    for i in range(500):
        name, numbers = draw_contrast(Draw("held-out", i))
        assert not {name, numbers.get("first"), numbers.get("second")} & set(HELD_OUT_PRESETS)


def test_noise_in_air_is_rayleigh():
    effects = dict.fromkeys(INTENSITY) | {"noise": 0.05}
    air = artifacts.spectrum(torch.zeros(8, 64, 64), (1, 1), True, effects, {"noise": Draw("noise in air")})
    assert float(air.mean()) == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.02)
    assert float(air.std()) == pytest.approx(0.05 * math.sqrt(2 - math.pi / 2), rel=0.03)


@pytest.mark.parametrize("name", ["blur", "zero_fill", "gibbs", "motion", "ghosting"])
def test_what_happens_in_k_space_keeps_a_point_in_its_place(name):
    image = torch.zeros(1, 64, 64)
    image[0, 26:31, 35:40] = 1.0
    strength = getattr(RenderSettings(), name).high
    for number in range(4):
        effects = dict.fromkeys(INTENSITY) | {name: strength}
        out = artifacts.spectrum(image, (1, 1), bool(number % 2), effects, {name: Draw("point", number)})[0]
        peak = divmod(int((out * (out > 0)).argmax()), 64)
        assert abs(peak[0] - 28) <= 2 and abs(peak[1] - 37) <= 2


def test_fat_is_shifted_by_parts_of_pixels():
    line = torch.tensor([[[0.0, 4.0, 0.0, 0.0]]])
    assert artifacts.shift_fat(line, 0.75, 0.5, along_rows=False).tolist() == [[[0.0, 0.0, 2.0, 2.0]]]


def test_what_lies_outside_folds_to_the_other_side_and_is_weaker_the_further_outside_it_lies():
    line = torch.tensor([[[2.0, 4.0, 10.0, 20.0, 30.0, 6.0, 8.0]]])
    folded = artifacts.fold(line, (0, 2), Average())  # 0.75 of what is next to the field, 0.2 of the furthest
    assert folded[0, 0].tolist() == pytest.approx([10 + 0.75 * 6, 20 + 0.2 * 8 + 0.2 * 2, 30 + 0.75 * 4])
    assert torch.equal(artifacts.fold(line.mT, (2, 0), Average()), folded.mT)


def test_a_coil_around_the_limb_shows_the_skin_brighter_than_the_middle():
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    radius = torch.hypot(rows - 48, columns - 48)
    image = (radius < 36).float().repeat(2, 1, 1)
    artifacts.skin_gain(image, 0.5, Average())
    middle, skin = image[0, 48, 48], image[0, 48, 14]
    assert 1.4 < float(skin / middle) < 2.2
    assert not image[:, radius > 40].any()


def test_padding_is_blank_in_image_and_labels():
    settings = PLAIN.only("padding", strength=0.3)
    rendering = exam(settings, blank(fill=Tissue.FAT), key=("padding", 1))
    assert (rendering.volume.array == 0).any()
    labels = exam(settings, ball(blank(fill=Tissue.FAT), (0, 0, 0), 40, 1), key=("padding", 1)).labels
    assert not labels[rendering.volume.array == 0].any() and labels.any()
