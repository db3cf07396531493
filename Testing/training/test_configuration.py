"""A study's file: unknown keys, overrides, senseless combinations, and what counts as the same study."""

from pathlib import Path

import pytest
from PedBoneSegTraining import configuration
from PedBoneSegTraining.configuration import changes, from_dict, load

from PedBoneSegLib.errors import BadInput

CONFIGS = sorted((Path(__file__).parents[2] / "Training" / "configs").glob("*.toml"))


def study(**sections) -> dict:
    return {
        "name": "study",
        "domains": {"knee": {"datasets": ["a"]}, "ankle": {"datasets": ["b"]}},
        **sections,
    }


@pytest.mark.parametrize(
    "sections, key, nearest",
    [
        ({"trainng": {}}, "trainng", "training"),
        ({"training": {"learning_rat": 1.0}}, "training.learning_rat", "training.learning_rate"),
        ({"loss": {"contrastiv": {"weight": 1.0}}}, "loss.contrastiv", "loss.contrastive"),
        ({"loss": {"contrastive": {"temperatur": 1.0}}}, "loss.contrastive.temperatur", "loss.contrastive.temperature"),
        ({"domains": {"knee": {"dataset": ["a"]}}}, "domains.knee.dataset", "domains.knee.datasets"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(sections, key, nearest):
    with pytest.raises(BadInput) as caught:
        from_dict(study(**sections))
    assert f"unknown key {key};" in str(caught.value)
    assert f"did you mean {nearest}?" in caught.value.hint


@pytest.mark.parametrize(
    "sections, words",
    [
        ({"scheme": "multidomain"}, "did you mean multi-domain?"),
        ({"training": {"steps": 2.5}}, "training.steps = 2.5 is of the wrong kind; it takes a whole number"),
        ({"training": {"batch": True}}, "training.batch = True is of the wrong kind"),
        ({"data": {"patch": [64, 64, 64]}}, "it takes a list of 2 whole numbers"),
        ({"data": {"patch": [64, 50]}}, "multiples of 32"),
        ({"data": {"validation": 0.6, "reserved": 0.4}}, "leave nothing to train on"),
        ({"data": {"selection": 0.2}}, "training.validate_every"),
        ({"slices": {"pixel_mm": 1.0, "plane": "saggital"}}, "sagittal"),
        ({"slices": {"context": 1}}, "pixel_mm"),
        ({"domains": {"knee": {}}}, "domain knee has no data"),
        ({"network": {"architecture": "unet", "natural_images": "w.safetensors"}}, "EfficientNets only"),
        ({"loss": {"segmentation": {"weight": 0.0}}}, "every term of the loss has weight 0"),
        ({"loss": {"prior": {"weight": 0.1}}}, "the shape prior has no model"),
        ({"training": {"prior_steps": 10}}, "a prior that no loss uses"),
        ({"training": {"pretraining_steps": 10}}, "has no pre-training"),
        ({"training": {"pretraining": "jigsaw"}}, "'jigsaw' is not known"),
        ({"augmentation": {"gama": {"share": 1.0}}}, "did you mean augmentation.gamma?"),
        (
            {"loss": {"segmentation": {"clip": 1.0}}, "training": {"precision": "float16"}},
            "loss.segmentation.clip does not work with float16",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(sections, words):
    with pytest.raises(BadInput) as caught:
        from_dict(study(**sections))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["individual", "transfer"])
def test_contrast_needs_two_domains_in_a_step(scheme):
    contrast = {"loss": {"contrastive": {"weight": 0.1}}}
    from_dict(study(scheme="multi-domain", **contrast))
    with pytest.raises(BadInput, match="without negatives"):
        from_dict(study(scheme=scheme, **contrast))
    with pytest.raises(BadInput, match="without negatives"):
        from_dict({**study(**contrast), "domains": {"knee": {"datasets": ["a"]}}})


def test_transfer_needs_another_joint():
    with pytest.raises(BadInput, match="no other joint"):
        from_dict({"name": "x", "scheme": "transfer", "domains": {"knee": {"datasets": ["a"]}}})


def test_overrides_are_toml_and_a_bare_word_is_a_string(tmp_path):
    path = tmp_path / "my-study.toml"
    path.write_text('[domains.knee]\ndatasets = ["a"]\n')
    config = load(
        path,
        [
            "training.steps=7",
            "scheme=shared",
            "data.patch=[64, 96]",
            "domains.knee.datasets=['c', 'd']",
            "augmentation.affine.rotation=5",
        ],
    )
    assert config.name == "my-study"
    assert (config.training.steps, config.scheme, config.data.patch) == (7, "shared", (64, 96))
    assert config.domains["knee"].datasets == ("c", "d")
    assert config.domains["knee"].joint == "knee"
    rotation = config.augmentation["affine"].rotation
    assert rotation == 5.0 and isinstance(rotation, float)
    wrongs = {"training.steps": "KEY=VALUE", "training.stepz=1": "did you mean", "name.x=1": "section"}
    for wrong, words in wrongs.items():
        with pytest.raises(BadInput, match=words):
            load(path, [wrong])


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.toml").write_text("steps = = 3")
    with pytest.raises(BadInput, match="not TOML"):
        load(tmp_path / "broken.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_identity_leaves_out_where_things_lie_and_how_often_they_are_written():
    same = from_dict(study(run={"checkpoint_every": 3, "device": "cpu"}))
    moved = from_dict({**study(), "domains": {"knee": {"datasets": ["/x/a"]}, "ankle": {"datasets": ["/x/b"]}}})
    other = from_dict(study(augmentation={"gamma": {"strength": 0.1}}))
    assert same.hash() == moved.hash() == from_dict(study()).hash() != other.hash()
    assert changes(same.identity(), other.identity()) == ["augmentation.gamma.strength was 0.5, now 0.1"]


@pytest.mark.parametrize(
    "name, off, unused",
    [
        ("gamma", {"share": 0.0}, {"strength": 0.1}),
        ("flip", {"slices": 0.0, "columns": 0.0}, {}),
        ("affine", {"rotation": 0.0, "scale": 0.0, "aspect": 0.0, "shift": 0.0}, {}),
    ],
)
def test_settings_of_an_augmentation_that_is_off_are_not_part_of_the_identity(name, off, unused):
    on, without = from_dict(study()), from_dict(study(augmentation={name: off}))
    assert any(key.startswith(f"augmentation.{name}.") for key in on.identity())
    assert not any(key.startswith(f"augmentation.{name}.") for key in without.identity())
    assert from_dict(study(augmentation={name: off | unused})).hash() == without.hash() != on.hash()


def test_the_resolved_configuration_reads_back_as_itself():
    config = from_dict(study(slices={"pixel_mm": 0.5}, augmentation={"flip": {"rows": 1.0}}))
    assert from_dict(config.to_dict()) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_that_comes_with_the_software_is_valid(path):
    assert configuration.load(path).name == path.stem


def test_the_bundled_models_study_differs_from_the_parametric_one_in_its_shapes_alone():
    one, other = (load(CONFIGS[0].parent / f"{name}.toml") for name in ("bundled", "bundled-parametric"))
    differs = {line.partition(" was ")[0] for line in changes(one.identity(), other.identity())}
    assert differs == {"name"} | {f"domains.{joint}.shapes" for joint in ("ankle", "knee", "shoulder")}
    assert all(domain.synthetic == 1 and not domain.datasets for domain in one.domains.values())
    assert (one.slices.pixel_mm, one.slices.channels, one.data.patch) == (0.9, 3, (192, 192))


def test_every_arm_of_the_study_is_valid():
    """The overrides are read from the file's own comments, so that what a reader would copy is what is tested."""
    path = next(path for path in CONFIGS if path.stem == "boutillon2022")
    arms = [line.split("--set ")[1].split() for line in path.read_text().splitlines() if "--set " in line]
    resolved = {load(path, arm).hash() for arm in arms}
    assert len(arms) == len(resolved) == 8
