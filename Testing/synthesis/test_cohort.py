"""Which exams there are: each a function of (seed, joint, number) alone, and the frozen ones as recorded."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PedBoneSegTraining.synthesis.anatomy.draw import digest
from PedBoneSegTraining.synthesis.cohort import COHORTS, FIRST_RESERVED_SEED, Recipe, check_seed, frozen_hashes
from PedBoneSegTraining.synthesis.rendering import HELD_OUT_PRESETS
from synthetic_phantom import Phantom

from PedBoneSegLib.errors import BadInput


def phantom(seed=1, **options) -> Recipe:
    return Recipe("knee", seed, (Phantom(),), pixel_mm=(1.2, 1.6), **options)


@pytest.mark.parametrize("name", COHORTS)
def test_frozen_cohorts_are_what_the_repository_records(name):
    assert COHORTS[name].hashes() == frozen_hashes()[name]


def test_parameters_are_json_and_the_same_in_another_process():
    code = (
        "from PedBoneSegTraining.synthesis.cohort import Recipe; "
        "from PedBoneSegTraining.synthesis.anatomy.draw import digest; "
        "print(digest(Recipe('ankle', 5).parameters(11)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    parameters = Recipe("ankle", 5).parameters(11)
    assert digest(parameters) == answer.stdout.strip()
    assert json.loads(json.dumps(parameters)).keys() == parameters.keys()


def test_an_exam_does_not_depend_on_what_was_made_before():
    recipe = phantom()
    alone = recipe.acquire(7, 0, recipe.body(7))
    for i in (3, 9):
        recipe.acquire(i, 0, recipe.body(i))
    again = recipe.acquire(7, 0, recipe.body(7))
    assert np.array_equal(alone.volume.array, again.volume.array) and np.array_equal(alone.labels, again.labels)
    assert alone.parameters == again.parameters


def test_every_number_seed_joint_and_variant_is_another_exam():
    one = Recipe("knee", 1)
    hashes = [
        digest(parameters)
        for parameters in (
            one.parameters(0),
            one.parameters(1),
            one.parameters(0, variant=1),
            Recipe("knee", 2).parameters(0),
            Recipe("ankle", 1).parameters(0),
        )
    ]
    assert len(set(hashes)) == 5


def test_variants_share_the_body():
    recipe = Recipe("shoulder", 3)
    first, second = recipe.parameters(4, 0), recipe.parameters(4, 1)
    assert first["anatomy"] == second["anatomy"] and first["tissue"] == second["tissue"]
    assert first["image"] != second["image"]


def test_a_rendering_is_one_of_its_recipe():
    recipe = phantom(preset="T2", planes=("coronal",))
    rendering = recipe.acquire(2, 1, recipe.body(2))
    assert rendering.parameters == recipe.parameters(2, 1)
    assert rendering.volume.sequence == "T2" and rendering.volume.side == "left"
    assert rendering.parameters["image"]["acquisition"]["plane"] == "coronal"
    assert rendering.volume.array.dtype == np.int16 and rendering.labels.shape == rendering.volume.array.shape


def test_exams_take_all_sources_in_turn():
    recipe = Recipe("knee", 1, (Phantom("one"), Phantom("two")))
    names = [recipe.parameters(i)["anatomy"]["source"] for i in range(40)]
    assert 8 < names.count("one") < 32 and names.count("one") + names.count("two") == 40


def test_held_out_seeds_cannot_be_trained_on():
    assert check_seed(0) == 0 and check_seed(FIRST_RESERVED_SEED - 1) == FIRST_RESERVED_SEED - 1
    for seed in {cohort.seed for cohort in COHORTS.values()} | {-1}:
        with pytest.raises(BadInput, match=str(seed)):
            check_seed(seed)
    assert len({cohort.seed for cohort in COHORTS.values()}) == len(COHORTS)
    assert COHORTS["held-out-sequence"].preset in HELD_OUT_PRESETS
