"""Spectral signatures and verdicts, by cases that can be worked out by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_network, tensors_of, tiny_config, tiny_manifest

from PedBoneSegLib.errors import BadModel, Undecided
from PedBoneSegLib.inference import passes
from PedBoneSegLib.inference.detection import candidates, decide
from PedBoneSegLib.inference.passes import stacks_by_domain
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import Apart, Moments, Reference, Whitened, nearest, spread_slices
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.results.documents import segment_document
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CONFIG = tiny_config()
NETWORK = random_network(CONFIG)
LAYER = 2


def moments_of(*features: np.ndarray) -> Moments:
    """Of batches [n, C, rows, columns]."""
    moments = Moments(features[0].shape[1])
    for each in features:
        moments.add(torch.from_numpy(np.asarray(each, np.float32)))
    return moments


def volume(seed: int, size=(12, 40, 40)) -> Volume:
    """Blobs of a size that depends on the seed, in noise."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in size), indexing="ij")
    array = random.normal(20, 3, size) + 200 * (y**2 + x**2 < (8 + seed % 5) ** 2) + 100 * (np.abs(x) < 14)
    return Volume(array.astype(np.float32), Grid(size, (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE), f"exam {seed}")


def test_singular_values_by_hand():
    # rows of X: (3, 0) and (0, 0.3): singular values 3 and 0.3, so log 1 = 0 and log 0.1
    features = np.zeros((1, 2, 1, 2))
    features[0, 0, 0, 0], features[0, 1, 0, 1] = 3, 0.3
    moments = moments_of(features)
    np.testing.assert_allclose(moments.gram, [[9, 0], [0, 0.09]], rtol=1e-6)
    np.testing.assert_allclose(moments.signature, [0, -1])
    # three channels, 3, 0.3 and nothing: log 1, log 0.1 and the floor log 0.01 = 2 · log 0.1
    moments = moments_of(np.concatenate([features, np.zeros((1, 1, 1, 2))], axis=1))
    np.testing.assert_allclose(moments.signature, np.array([0, -1, -2]) / 5**0.5, rtol=1e-6)


def test_pooled_values_by_hand():
    features = np.zeros((1, 2, 1, 4))
    features[0, 0, 0], features[0, 1, 0] = [1, 1, 3, 3], [5, 5, 5, 5]
    np.testing.assert_allclose(moments_of(features).pooled, [2, 5, 1, 0], atol=1e-9)


def test_the_matrix_of_all_slices_at_once():
    features = np.random.default_rng(0).normal(size=(6, 5, 7, 4))
    x = features.transpose(0, 2, 3, 1).reshape(-1, 5).astype(np.float32).astype(float)
    s = np.linalg.svd(x, compute_uv=False)
    expected = np.log(np.maximum(s / s[0], 1e-2))
    parts = moments_of(features[:1], features[1:4], features[4:])
    np.testing.assert_allclose(parts.signature, expected / np.linalg.norm(expected), atol=1e-12)
    assert parts.count == 6 * 28


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_gain_size_and_orientation_do_not_matter(seed, gain):
    features = np.random.default_rng(seed).normal(size=(2, 4, 5, 3)) * [[[[9]], [[3]], [[1]], [[0.2]]]]
    signature = moments_of(features).signature
    assert np.linalg.norm(signature) == pytest.approx(1)
    for other in (gain * features, np.concatenate([features] * 3), features[:, :, ::-1, :], features[:, ::-1]):
        assert nearest(moments_of(other).signature, signature[None]) < 1e-5


def test_features_of_nothing_and_of_all_directions_alike():
    nothing = Moments(4).signature
    np.testing.assert_allclose(nothing, [-0.5] * 4)
    alike = moments_of(np.eye(4).reshape(1, 4, 2, 2)).signature
    np.testing.assert_array_equal(alike, 0)


def test_number_formats_agree():
    """bfloat16 and float32 features against float64: far closer than the 0.01 and more between two exams."""
    random = np.random.default_rng(1)
    mixing = random.normal(size=(24, 24)) * np.geomspace(1, 1e-4, 24)
    exact = torch.from_numpy(np.einsum("oc,nchw->nohw", mixing, random.normal(size=(4, 24, 16, 16))))
    signatures = []
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        moments = Moments(24)
        moments.add(exact.to(kind))
        signatures.append(moments.signature)
    assert np.linalg.norm(signatures[1] - signatures[0]) < 1e-6
    assert np.linalg.norm(signatures[2] - signatures[0]) < 2e-3


def test_slices_are_spread_evenly():
    np.testing.assert_array_equal(spread_slices(np.arange(10, 26)), [11, 13, 15, 17, 19, 21, 23, 25])
    np.testing.assert_array_equal(spread_slices(np.array([3, 4, 9])), [3, 4, 9])
    assert len(spread_slices(np.array([], int))) == 0


def test_mahalanobis_with_many_exams_is_the_plain_one():
    rows = np.random.default_rng(0).normal(size=(20_000, 2)) @ [[2, 1], [0, 0.5]] + [5, -3]
    values = np.array([7.0, -1.0])
    away = values - rows.mean(0)
    plain = np.sqrt(away @ np.linalg.inv(np.cov(rows.T)) @ away / 2)
    assert Whitened(rows).distance(values) == pytest.approx(plain, rel=0.03)
    assert Whitened(rows).distance(rows.mean(0)) == pytest.approx(0, abs=1e-9)


def test_fewer_exams_than_values():
    rows = np.random.default_rng(0).normal(size=(9, 200))
    new = np.random.default_rng(1).normal(size=(50, 200))
    found = [Whitened(rows).distance(each) for each in new]
    assert 0.5 < np.mean(found) < 3 and Whitened(rows).distance(new[0] + 10) > 2 * max(found)


def test_the_place_between_own_and_others():
    random = np.random.default_rng(0)
    own, others = random.normal(0, 1, (300, 3)), random.normal(0, 1, (300, 3)) + [4, 0, 0]
    apart = Apart(own, others)
    assert apart.place(own.mean(0)) == pytest.approx(0, abs=1e-9)
    assert apart.place(others.mean(0)) == pytest.approx(1)
    assert apart.place([2.0, 50.0, -50.0]) == pytest.approx(0.5, abs=2.5)  # the direction is nearly the first axis
    assert apart.place(own.mean(0) - [4, 0, 0]) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(("scores", "joint", "found"), [
    ({"ankle": 2.0, "knee": 0.5, "shoulder": 0.9}, "knee", "joint"),
    ({"ankle": 0.54, "knee": 0.5, "shoulder": 3.0}, "knee", "ambiguous"),
    ({"ankle": 0.56, "knee": 0.5, "shoulder": 3.0}, "knee", "joint"),
    ({"ankle": 1.5, "knee": 1.01, "shoulder": 3.0}, None, "unlike"),
    ({"ankle": 1.5, "knee": 1.0, "shoulder": 3.0}, "knee", "joint"),
    ({"knee": 0.5}, "knee", "joint"),
    ({}, None, None),
])  # fmt: skip
def test_verdicts(scores, joint, found):
    answer = decide(scores, tiny_manifest(CONFIG).domains)
    assert (answer.joint, answer.verdict) == (joint, found)
    assert answer.score == (min(scores.values()) if scores else None)
    assert answer.in_distribution == (None if found is None else found != "unlike")
    assert list(answer.scores.values()) == sorted(scores.values())


def test_two_domains_of_one_joint_are_no_ambiguity():
    knee = tiny_manifest(CONFIG).domains[1]
    cards = (knee, replace(knee, name="knee-OWN"), tiny_manifest(CONFIG).domains[0])
    assert decide({"knee": 0.5, "knee-OWN": 0.51, "ankle": 0.9}, cards).verdict == "joint"


# ------------------------------------------------------------------------------------------------- with a model


def signed_bundle(path, references=8, pooled=True):
    """A model with random weights that takes exams 0 to 7 for knees and far from them for ankles."""
    manifest = tiny_manifest(CONFIG)
    predictor = Predictor.for_network(NETWORK, manifest.domains, "cpu")
    cards, tensors = [], tensors_of(NETWORK)
    for card in manifest.domains:
        moments = [
            predictor.observe(stacks_by_domain(volume(seed))(card), card, [LAYER])[LAYER] for seed in range(references)
        ]
        threshold = {"knee": 0.5, "ankle": 1e-6}.get(card.name, 0.05)
        entry = {"layer": LAYER, "threshold": threshold, "references": references}
        rows = np.stack([each.signature for each in moments])
        if card.name == "ankle":
            rows = -rows
        tensors[f"signatures.{card.name}"] = rows
        if pooled and card.name == "knee":
            entry["pooled"] = {"layer": LAYER, "threshold": 1e6, "others": 8, "apart": 1e6}
            tensors["pooled.knee"] = np.stack([each.pooled for each in moments])
            tensors["others.knee"] = tensors["pooled.knee"] + 5
        cards.append(replace(card, signature=entry if card.name != "shoulder" else None))
    del tensors["signatures.shoulder"]
    write_bundle(path, replace(manifest, domains=tuple(cards)), tensors)
    return Bundle.load(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return signed_bundle(tmp_path_factory.mktemp("model") / "signed.safetensors")


def test_a_reference_itself_has_distance_zero(bundle):
    found = Predictor(bundle, "cpu").detect(volume(3))
    assert found.joint == "knee" and found.verdict == "joint" and found.in_distribution
    assert found.score < 1e-4 and found.scores["ankle"] > 1 and set(found.scores) == {"knee", "ankle"}


def test_auto_takes_the_detected_joint_and_says_so_first(bundle):
    heard = []
    result = Predictor(bundle, "cpu").segment(
        volume(3), "auto", progress=lambda fraction, stage: heard.append(stage), on_detection=heard.append
    )
    first = heard.index("segmenting")
    assert result.domain == "knee" and result.detection == heard[first - 1] and set(heard[: first - 1]) == {"preparing"}
    assert "segmenting" in heard[2:]
    document = segment_document(result, None)
    assert document["verdict"] == "joint" and document["detected_joint"] == "knee"
    assert document["score"] == result.detection.scores["knee"]


def test_a_wrong_joint_is_segmented_with_a_warning(bundle):
    result = Predictor(bundle, "cpu").segment(volume(3), "ankle")
    assert result.domain == "ankle" and "wrong-joint" in [notice.code for notice in result.warnings]
    document = segment_document(result, None)
    assert document["detected_joint"] == "knee" and document["score"] == document["scores"]["ankle"]


def test_a_domain_without_signatures_has_no_verdict(bundle):
    document = segment_document(Predictor(bundle, "cpu").segment(volume(3), "shoulder"), None)
    assert document["verdict"] is None and document["scores"] == {} and document["in_distribution"] is None


@pytest.mark.parametrize("array", [np.zeros((12, 40, 40)), np.full((12, 40, 40), 7.0)])
def test_nothing_is_unlike_everything(bundle, array):
    empty = Volume(array.astype(np.float32), volume(0).grid, "empty.nii")
    predictor = Predictor(bundle, "cpu")
    found = predictor.detect(empty)
    assert found.verdict == "unlike" and found.scores["knee"] == pytest.approx(2**0.5 / 0.5, abs=1e-3)
    with pytest.raises(Undecided, match="empty.nii: the image is unlike") as caught:
        predictor.segment(empty, "auto")
    assert caught.value.verdict == "unlike" and caught.value.exit_code == 6 and set(caught.value.scores)
    assert "unlike" in [notice.code for notice in predictor.segment(empty, "knee").warnings]


def test_slices_count_once_where_memory_runs_short(bundle, monkeypatch):
    """The second batch fails while the first is still on its way into the sums."""
    monkeypatch.setitem(passes.BATCH_PIXELS, "cpu", 2 * 64 * 64)
    predictor, card = Predictor(bundle, "cpu"), bundle.manifest.domain("knee")
    expected = predictor.observe(stacks_by_domain(volume(3))(card), card, [LAYER])[LAYER]
    network, calls = predictor.network("knee", predictor.device, torch.float32), []

    def scarce(images, level):
        calls.append(len(images))
        if len(calls) == 2:
            raise MemoryError
        return network.encoder_features(images, level)

    short = SimpleNamespace(encoder=network.encoder, encoder_features=scarce)
    monkeypatch.setattr(predictor, "network", lambda *_: short)
    notices = []
    found = predictor.observe(stacks_by_domain(volume(3))(card), card, [LAYER], notices)[LAYER]
    assert calls == [2, 2, 1, 1, 1, 1, 1, 1] and [notice.code for notice in notices] == ["memory"]
    assert found.count == expected.count
    np.testing.assert_allclose(found.gram, expected.gram, rtol=1e-5)


def test_seven_exams_are_too_few(tmp_path):
    few = signed_bundle(tmp_path / "few.safetensors", references=7, pooled=False)
    assert Predictor(few, "cpu").detect(volume(3)).verdict is None
    assert Reference.of(few, few.manifest.domain("knee")) is None


def test_domains_of_a_joint_are_chosen_by_score_or_name():
    manifest = tiny_manifest(CONFIG)
    signature = {"layer": 0, "threshold": 1.0, "references": 9}
    ankle, knee, shoulder = manifest.domains
    signed = replace(manifest, domains=(replace(ankle, signature=signature), knee, shoulder))
    assert [card.name for card in candidates(signed, "auto")] == ["ankle"]
    assert [card.name for card in candidates(signed, "knee")] == ["knee"]


@pytest.mark.parametrize("change", [{"threshold": 0.0}, {"apart": -1.0}, {"layer": 9}, {"others": -1}, {"more": 1}])
def test_a_forged_signature_is_refused(tmp_path, bundle, change):
    card = bundle.manifest.domain("knee")
    entry = {**card.signature, "pooled": {**card.signature["pooled"], **change}}
    with pytest.raises(BadModel, match="pooled|layer"):
        cards = [replace(each, signature=entry if each is card else each.signature) for each in bundle.manifest.domains]
        forged = replace(bundle.manifest, domains=tuple(cards), sha256="")
        write_bundle(tmp_path / "forged.safetensors", forged, bundle.tensors)


def write_image(path, image: Volume) -> None:
    written = sitk.GetImageFromArray(image.array.transpose(2, 1, 0))
    written.SetSpacing(image.grid.spacing)
    sitk.WriteImage(written, str(path))


def test_the_command_line_says_it(bundle, tmp_path):
    write_image(tmp_path / "knee.nii.gz", volume(3))
    write_image(tmp_path / "empty.nii.gz", Volume(np.zeros((12, 40, 40), np.float32), volume(0).grid))

    def run(*words):
        options = ["--model", str(bundle.path), "--device", "cpu", "--json"]
        command = [sys.executable, "-m", "PedBoneSegLib", *words, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=500)

    found = json.loads(run("detect", str(tmp_path / "knee.nii.gz")).stdout)
    assert (found["joint"], found["verdict"]) == ("knee", "joint") and found["score"] == found["scores"]["knee"]
    refused = run("segment", str(tmp_path / "empty.nii.gz"))
    assert refused.returncode == 6 and refused.stdout == "" and not (tmp_path / "empty_bones.nii.gz").exists()
    assert refused.stderr.startswith("pedboneseg: empty: ") and "--joint ankle|knee|shoulder" in refused.stderr


def test_the_worker_tells_the_joint_before_it_is_done(bundle, tmp_path):
    write_image(tmp_path / "knee.nii.gz", volume(3))
    request = {"id": 1, "op": "segment", "input": str(tmp_path / "knee.nii.gz"), "joint": "ankle", "device": "cpu",
               "model": str(bundle.path)}  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-m", "PedBoneSegLib", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker.stdin.write(json.dumps(request) + "\n")
    worker.stdin.flush()
    answers = []
    while not answers or answers[-1]["event"] == "progress":
        answers.append(json.loads(worker.stdout.readline()))
    worker.stdin.close()
    worker.wait(30)
    told = [number for number, answer in enumerate(answers) if "detection" in answer]
    segmenting = [number for number, answer in enumerate(answers) if answer.get("stage") == "segmenting"]
    assert len(told) == 1 and told[0] < segmenting[0]
    assert answers[told[0]]["detection"]["joint"] == "knee" and answers[told[0]]["event"] == "progress"
    assert answers[-1]["event"] == "done" and answers[-1]["detected_joint"] == "knee"
    assert "wrong-joint" in [notice["code"] for notice in answers[-1]["warnings"]]
