"""Who is held out where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PedBoneSegTraining.crossval.folds import k_folds, leave_one_out, read_folds

from PedBoneSegLib.errors import BadInput

EXAMS = {"ankle": ["a3", "a1", "a2"], "knee": ["k1", "k2"]}


def test_leaving_one_out_pairs_the_joints():
    assert leave_one_out(EXAMS) == [
        {"ankle": ("a1",), "knee": ("k1",)},
        {"ankle": ("a2",), "knee": ("k2",)},
        {"ankle": ("a3",), "knee": ()},  # the knee trains on both of its exams there
    ]


@given(
    st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 99).map(str), min_size=1), min_size=1),
    st.integers(2, 9),
    st.integers(0, 5),
)
def test_every_exam_is_held_out_exactly_once(exams, count, seed):
    exams = {domain: sorted(names) for domain, names in exams.items()}
    plans = [leave_one_out(exams)]
    if count <= max(map(len, exams.values())):
        plans.append(k_folds(exams, count, seed))
        assert len(plans[1]) == count
    for plan in plans:
        for domain, names in exams.items():
            assert sorted(name for fold in plan for name in fold[domain]) == names
            sizes = [len(fold[domain]) for fold in plan]
            assert max(sizes) - min(sizes) <= 1


def test_more_folds_than_exams_are_refused():
    with pytest.raises(BadInput, match="4 folds cannot be made of 3 exams"):
        k_folds(EXAMS, 4, 0)


def test_folds_of_a_file(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps([{"knee": ["k1"], "ankle": ["a1", "a2"]}, {"knee": ["k2"]}]))
    assert read_folds(path, EXAMS) == [{"ankle": ("a1", "a2"), "knee": ("k1",)}, {"ankle": (), "knee": ("k2",)}]


@pytest.mark.parametrize(
    "text, fault",
    [
        ("{", "cannot be read"),
        ("[]", "not a list of folds"),
        ('[{"hip": ["h1"]}]', "names the domain 'hip'"),
        ('[{"knee": ["k9"]}]', "no exam 'k9'"),
        ('[{"knee": ["k1"]}, {"knee": ["k1"]}]', "held out twice"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, text, fault):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(BadInput, match=fault):
        read_folds(tmp_path / "folds.json", EXAMS)
