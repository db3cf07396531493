"""Distances against closed forms, random fields against what they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PedBoneSegTraining.synthesis.anatomy import shapes
from PedBoneSegTraining.synthesis.anatomy.draw import Average, Draw, digest, lattice
from PedBoneSegTraining.synthesis.anatomy.space import Space, finer


def at(*points):
    return [torch.tensor([float(p[i]) for p in points]) for i in range(3)]


coordinate = st.floats(-30, 30)
point = st.tuples(coordinate, coordinate, coordinate)


def test_hand_worked_distances():
    p = at((0, 0, 0), (10, 0, 0), (0, 0, 7))
    assert shapes.ball(p, (0, 0, 0), 4).tolist() == pytest.approx([-4, 6, 3], abs=1e-4)
    assert shapes.capsule(p, (0, 0, -5), (0, 0, 5), 2).tolist() == pytest.approx([-2, 8, 0], abs=1e-4)
    assert shapes.brick(p, (0, 0, 0), (3, 3, 5), 1).tolist() == pytest.approx([-3, 7, 2], abs=1e-4)
    assert shapes.disc(p, (0, 0, 0), 6, 2, 0).tolist() == pytest.approx([-2, 8, 1], abs=1e-4)
    triangle = ((-20, -20, 2), (20, -20, 2), (0, 30, 2))
    assert shapes.sheet(p, (triangle,), (1,)).tolist() == pytest.approx([1.5, 1.5, 4.5], abs=1e-4)


def test_ellipsoid_is_true_on_its_axes_and_first_order_at_its_surface():
    radii = (10, 6, 3)
    for k in range(3):
        p = [0.0, 0.0, 0.0]
        p[k] = radii[k] + 0.25
        assert float(shapes.ellipsoid(at(p), (0, 0, 0), radii)[0]) == pytest.approx(0.25, abs=0.02)


@given(point, point)
@settings(max_examples=60, deadline=None)
def test_unions_and_cuts_never_rise_faster_than_the_distance(a, b):
    """A distance that is 1-Lipschitz cannot hide a surface: joint spaces rely on it."""

    def solid(p):
        one = shapes.union(shapes.ball(p, (3, 0, 0), 9), shapes.capsule(p, (0, 0, 0), (0, 4, 20), 5), 6)
        return shapes.cut(one, shapes.ball(p, (0, 0, -9), 6), 4)

    rise = abs(float(solid(at(a))[0] - solid(at(b))[0]))
    assert rise <= math.dist(a, b) + 1e-3


def test_a_smooth_union_holds_both_parts_and_adds_only_at_the_seam():
    p = at((0, 0, 0), (40, 0, 0), (20, 0, 0))
    a, b = shapes.ball(p, (0, 0, 0), 18), shapes.ball(p, (40, 0, 0), 18)
    plain, smooth = shapes.union(a, b), shapes.union(a, b, 8)
    assert (smooth <= plain).all()
    assert smooth[:2].tolist() == plain[:2].tolist()
    assert float(plain[2]) == pytest.approx(2) and float(smooth[2]) == pytest.approx(0)  # 2 − 8²/(4·8)


def test_profile_passes_its_knots_and_stays_between_flat_ends():
    knots, values = [0.0, 10.0, 15.0, 40.0], [3.0, 8.0, 8.0, 1.0]
    assert shapes.profile(torch.tensor(knots), knots, values).tolist() == pytest.approx(values)
    assert shapes.profile(torch.tensor([-5.0, 99.0]), knots, values).tolist() == pytest.approx([3, 1])


def test_rotations_turn_the_way_anatomy_expects():
    assert shapes.rotation(x=-90) @ (0, 0, -1) == pytest.approx((0, -1, 0), abs=1e-12)  # flexion: the foot goes back
    assert shapes.rotation(z=90) @ (1, 0, 0) == pytest.approx((0, 1, 0), abs=1e-12)


def test_finer_is_linear_interpolation_between_cell_centres():
    ramp = torch.arange(6.0)[:, None, None].expand(6, 2, 2).contiguous()
    fine = finer(ramp)
    assert fine.shape == (12, 4, 4)
    assert fine[1:-1, 0, 0].tolist() == pytest.approx([0.25 + 0.5 * i for i in range(10)])


def test_axes_run_lateral_posterior_superior():
    space = Space((16, 24, 32), 2.0, (1.0, 2.0, 3.0), torch.device("cpu"))
    p = space.points(0)
    assert (p[0].diff(dim=0) == 2).all() and (p[1].diff(dim=1) == -2).all() and (p[2].diff(dim=2) == 2).all()
    assert p.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 2, 3], abs=1e-4)
    box = space.box((0, 1, 2), (2, 3, 4), 0)
    inside = p[(slice(None), *box)]
    assert inside[1].min() <= 1 and inside[1].max() >= 3 and box[1].stop - box[1].start <= 4


def test_noise_is_smooth_repeatable_and_about_one():
    space = Space((40, 40, 40), 1.0, (0.0, 0.0, 0.0), torch.device("cpu"))
    noise = space.noise(5, 12.0, 0)[0]
    assert torch.equal(noise, space.noise(5, 12.0, 0)[0])
    assert not torch.equal(noise, space.noise(6, 12.0, 0)[0])
    assert 0.15 < float(noise.std()) < 0.8 and float(noise.abs().max()) < 1.61
    assert float(noise.diff(dim=0).abs().max()) < 0.3
    coarse = space.noise(5, 12.0, 1)[0]  # levels show the same field
    assert torch.allclose(coarse, torch.nn.functional.avg_pool3d(noise[None, None], 2)[0, 0], atol=0.03)


def test_draws_are_bounded_exact_and_named():
    d = Draw("a", 1)
    values = [d.normal(10, 2) for _ in range(2000)]
    assert max(abs(v - 10) for v in values) <= 6 and np.mean(values) == pytest.approx(10, abs=0.2)
    assert np.std(values) == pytest.approx(2 * 1.5 / math.sqrt(3), rel=0.06)
    assert [Draw("a", 1).uniform(0, 1) for _ in range(2)] == [Draw("a", 1).uniform(0, 1)] * 2
    assert Draw("a", 2).uniform(0, 1) != Draw("a", 1).uniform(0, 1)
    assert Average().normal(3, 1) == 3 and Average().uniform(2, 4) == 3
    assert digest({"b": 1, "a": [1.5]}) == digest({"a": [1.5], "b": 1})


def test_the_lattice_is_the_same_everywhere():
    assert lattice(7, (2, 2)) == pytest.approx(np.array(LATTICE_7), abs=1e-6)


LATTICE_7 = [[0.9575939, 0.8997506], [0.5471876, 0.1277458]]
