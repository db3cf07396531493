"""The streamed prediction against a naive one, and what happens when memory, device or the user say no."""

import numpy as np
import pytest
import torch
from tiny import make_tiny_bundle, random_network, tensors_of, tiny_config, tiny_manifest, write_bundle
from torch.nn import functional

from PedBoneSegLib.errors import BadInput, Cancelled, OutOfMemory
from PedBoneSegLib.inference import passes
from PedBoneSegLib.inference import predictor as room
from PedBoneSegLib.inference.devices import choose_device, faster_precisions
from PedBoneSegLib.inference.postprocess import clean
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.results.documents import segment_document
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def make_volume(size=(10, 60, 50), spacing=(4.0, 0.8, 1.0), seed=0, kind=np.int16):
    rng = np.random.default_rng(seed)
    array = rng.normal(300, 100, size)
    array[:, :6] = array[:, -5:] = array[:2] = 0
    return Volume(array.clip(0, 900).astype(kind), Grid(size, spacing, (0.0, 0.0, 0.0), EYE))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Random weights whose logits are large and centered, so that every bone occurs and few voxels are undecided."""
    config = tiny_config()
    network = strong_network(config)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_bundle(path, tiny_manifest(config), tensors_of(network))
    return Bundle.load(path)


def strong_network(config):
    network = random_network(config)
    stack = SliceStack(make_volume(), SliceSettings(1.0))
    images = torch.from_numpy(stack.images(stack.occupied))
    with torch.no_grad():
        network.head.weight.mul_(30)
        network.head.bias.zero_()
        for spec in config.domains:
            logits = network(images, [spec.name] * len(images)).logits[spec.name]
            network.head.bias[network.head.rows[spec.name]] = -logits.mean((0, 2, 3))
    return network


def naive(bundle, volume, joint):
    """All logits of the whole volume at once, by the unfolded network, pixel for pixel from their definition."""
    card = bundle.manifest.domain(joint)
    stack = SliceStack(volume, SliceSettings.from_dict(card.settings))
    with torch.inference_mode():
        images = torch.from_numpy(stack.images(range(stack.count)))
        logits = bundle.network()(images, [joint] * stack.count).logits[joint]
    rows, columns = (
        (np.arange(c.stop - c.start) + 0.5) / scale - 0.5 for c, scale in zip(stack.crop, stack.scale, strict=True)
    )
    window = logits[(..., *stack.window)]
    y, x = np.meshgrid(rows, columns, indexing="ij")
    size = np.array(window.shape[:1:-1])
    points = torch.from_numpy((np.stack([x, y], -1) + 0.5) / size * 2 - 1).float()
    points = points.expand(len(window), -1, -1, -1)
    own = functional.grid_sample(window, points, align_corners=False, padding_mode="border")
    chances = np.zeros((own.shape[1], *volume.array.shape), np.float32)
    chances[0] = 1
    stack_of = [stack.oriented(channel) for channel in chances]
    for index in stack.occupied:
        for channel, target in enumerate(stack_of):
            target[index][stack.crop] = own.softmax(1)[index, channel].numpy()
    return chances


@pytest.mark.parametrize("joint", ["ankle", "knee", "shoulder"])
def test_streaming_equals_the_whole_volume_at_once(bundle, joint, monkeypatch):
    monkeypatch.setattr(room, "clean", lambda *_: [])
    volume = make_volume()
    chances = naive(bundle, volume, joint)
    probabilities = np.zeros((len(chances) - 1, *volume.array.shape), np.uint8)
    uncertainty = np.zeros(volume.array.shape, np.uint8)
    result = Predictor(bundle, "cpu").segment(
        volume, joint, "left", new_probabilities=lambda bones: probabilities[:bones], uncertainty=uncertainty
    )
    assert np.count_nonzero(result.labels) > 1000
    assert np.mean(result.labels != chances.argmax(0)) < 2e-4  # rounding may decide between two equally likely bones
    assert np.abs(probabilities / 255 - chances[1:]).max() < 0.5 / 255 + 5e-4
    seen = uncertainty != 255
    assert not seen[:2].any() and seen[2:, 20:40, 20:40].all() and not result.labels[~seen].any()
    assert np.abs(uncertainty[seen] / 254 - (1 - chances.max(0)[seen])).max() < 1.5 / 254 + 5e-4  # rounded twice
    assert (result.domain, result.side, result.device, result.precision) == (joint, "left", "cpu", "float32")


def test_the_result_is_cleaned_and_the_doubt_follows(bundle, monkeypatch):
    maps = [np.zeros((10, 60, 50), np.uint8) for _ in range(2)]
    cleaned = Predictor(bundle, "cpu").segment(make_volume(), "knee", uncertainty=maps[0])
    monkeypatch.setattr(room, "clean", lambda *_: [])
    raw = Predictor(bundle, "cpu").segment(make_volume(), "knee", uncertainty=maps[1])
    expected = raw.labels.copy()
    assert cleaned.warnings == clean(expected, (4.0, 0.8, 1.0), raw.table.names)
    np.testing.assert_array_equal(cleaned.labels, expected)
    overruled = cleaned.labels != raw.labels
    assert overruled.any()
    np.testing.assert_array_equal(maps[0][~overruled], maps[1][~overruled])
    assert np.abs(maps[0][overruled] - (254.0 - maps[1][overruled])).max() <= 1


def test_the_batch_does_not_matter(bundle, monkeypatch):
    whole = Predictor(bundle, "cpu").segment(make_volume(), "knee").labels
    monkeypatch.setitem(passes.BATCH_PIXELS, "cpu", 1)
    single = Predictor(bundle, "cpu").segment(make_volume(), "knee").labels
    assert np.mean(single != whole) < 2e-4


def test_json(bundle):
    result = Predictor(bundle, "cpu").segment(make_volume(), "ankle")
    document = segment_document(result, "a.nii.gz")
    assert list(document) == [
        "output", "joint", "domain", "side", "device", "precision", "seconds", "bones", "detected_joint", "verdict",
        "in_distribution", "score", "scores", "warnings", "exam_statistics",
    ]  # fmt: skip
    ml = {name: np.count_nonzero(result.labels == label) * 3.2e-3 for name, label in result.table.labels.items()}
    assert {name: bone["volume_ml"] for name, bone in document["bones"].items()} == pytest.approx(ml, abs=1e-4)
    assert document["side"] is None and document["verdict"] is None and document["scores"] == {}


def test_a_network_in_training(bundle):
    config = tiny_config()
    network = strong_network(config)
    cards = tiny_manifest(config).domains
    found = Predictor.for_network(network, cards, "cpu").segment(make_volume(), "knee").labels
    np.testing.assert_array_equal(found, Predictor(bundle, "cpu").segment(make_volume(), "knee").labels)


class Scarce:
    """Wraps a folded network: more than `most` slices at once do not fit, as the CPU's or the GPU's allocator says."""

    def __init__(self, network, most, error):
        self.network, self.most, self.error, self.batches = network, most, error, []

    def __call__(self, images):
        if len(images) > self.most:
            raise self.error
        self.batches.append(len(images))
        return self.network(images)


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
])  # fmt: skip
def test_short_of_memory(bundle, monkeypatch, error):
    expected = Predictor(bundle, "cpu").segment(make_volume(), "knee").labels
    predictor = Predictor(bundle, "cpu")
    scarce = Scarce(bundle.folded("knee"), 3, error)
    monkeypatch.setattr(predictor, "network", lambda *_: scarce)
    result = predictor.segment(make_volume(), "knee")
    assert np.mean(result.labels != expected) < 2e-4
    assert max(scarce.batches) <= 3 and sum(scarce.batches) == 8
    assert [n.code for n in result.warnings].count("memory") == 1
    scarce.most = 0
    with pytest.raises(OutOfMemory, match="single slice"):
        predictor.segment(make_volume(), "knee")


def test_a_bug_is_not_taken_for_a_lack_of_memory(bundle, monkeypatch):
    predictor = Predictor(bundle, "cpu")
    monkeypatch.setattr(predictor, "network", lambda *_: Scarce(None, 0, RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        predictor.segment(make_volume(), "knee")


def test_cancel_is_heard_between_batches(bundle, monkeypatch):
    monkeypatch.setitem(passes.BATCH_PIXELS, "cpu", 1)
    predictor, folded = Predictor(bundle, "cpu"), bundle.folded("knee")
    batches = []

    def network(images):
        batches.append(len(images))
        return folded(images)

    monkeypatch.setattr(predictor, "network", lambda *_: network)

    def progress(*_):
        if len(batches) >= 3:
            raise Cancelled()

    with pytest.raises(Cancelled):
        predictor.segment(make_volume((40, 60, 50)), "knee", progress=progress)
    assert 3 <= len(batches) <= 4, "at most one more batch after the cancel"


def test_progress_rises(bundle):
    heard = []
    Predictor(bundle, "cpu").segment(make_volume(), "knee", progress=lambda *step: heard.append(step))
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions) and fractions[0] == 0
    assert {"segmenting", "cleaning up"} <= {stage for _, stage in heard}


def test_warnings(bundle):
    predictor = Predictor(bundle, "cpu")
    bad = make_volume(kind=np.float32)
    bad.array[5, 30, 20:23] = np.nan
    assert "non-finite" in [n.code for n in predictor.segment(bad, "knee").warnings]
    empty = predictor.segment(Volume(np.zeros((4, 20, 20)), Grid((4, 20, 20), (1, 1, 1), (0, 0, 0), EYE)), "knee")
    assert [n.code for n in empty.warnings] == ["no-signal"] + ["missing"] * 4 and not empty.labels.any()
    long = predictor.segment(make_volume((6, 60, 50), (90.0, 0.8, 40.0)), "knee")
    assert "field-cut" in [n.code for n in long.warnings]


def test_what_is_no_mr_is_told(bundle):
    def codes(volume):
        return [notice.code for notice in Predictor(bundle, "cpu").segment(volume, "knee").warnings]

    ct = make_volume()
    ct.array[ct.array == 0] = -1000
    assert "not-mr" in codes(ct)
    assert "not-mr" not in codes(make_volume()) and "not-mr" not in codes(make_volume(kind=np.uint16))
    few = make_volume()
    few.array[0, 0, :9] = -1000  # an interpolation's overshoot
    assert "not-mr" not in codes(few)
    named = make_volume()
    named.modality = "MR"
    assert "not-mr" not in codes(named)
    named.modality = "CT"
    assert "not-mr" in codes(named)


@pytest.mark.parametrize("mm", [*np.float32([0.8, 0.7, 0.9]).tolist(), 1 / 3, 0.1 + 0.2, 1.0000001, 1.05, 0.999])
def test_spacings_that_are_not_round(bundle, mm):
    """Headers hold float32: the network's pixels never fall a pixel short of the crop."""
    for rows in (50, 60, 35):
        volume = make_volume((3, rows, 40), (4.0, mm, mm))
        assert Predictor(bundle, "cpu").segment(volume, "knee").labels.shape == (3, rows, 40)


@pytest.mark.parametrize("size", [(1, 40, 40), (40, 40, 1), (3, 9, 7), (1, 1, 1)])
def test_small_volumes(bundle, size):
    assert Predictor(bundle, "cpu").segment(make_volume(size), "ankle").labels.shape == size


def test_the_joint(bundle, tmp_path):
    predictor = Predictor(bundle, "cpu")
    with pytest.raises(BadInput, match=r"--joint ankle\|knee\|shoulder"):
        predictor.segment(make_volume(), "auto")
    single = Predictor(Bundle.load(make_tiny_bundle(tmp_path / "knee.safetensors", ("knee",))), "cpu")
    assert single.segment(make_volume(), "auto").domain == "knee"


def test_devices():
    assert choose_device("cpu").type == "cpu"
    for wrong in ("gpu", "cuda:x", "cpu:1", "", "cuda:99"):
        with pytest.raises(BadInput, match="device"):
            choose_device(wrong)


def test_bfloat16_only_where_it_is_faster_and_validated(tmp_path, monkeypatch):
    config = tiny_config(("knee",))
    tensors = tensors_of(random_network(config))
    for name, precisions in (("both", ("float32", "bfloat16")), ("one", ("float32",))):
        write_bundle(tmp_path / f"{name}.safetensors", tiny_manifest(config, precisions=precisions), tensors)
    both, one = (Predictor(Bundle.load(tmp_path / f"{n}.safetensors"), "cpu") for n in ("both", "one"))
    for faster in ((), ("bfloat16",)):
        monkeypatch.setattr(room, "faster_precisions", lambda device, faster=faster: faster)
        assert both.precision(torch.device("cpu")) == (torch.bfloat16 if faster else torch.float32)
        assert one.precision(torch.device("cpu")) == torch.float32
    result = both.segment(make_volume(), "knee")
    assert result.precision == "bfloat16"
    exact = one.segment(make_volume(), "knee")
    assert np.mean(result.labels != exact.labels) < 0.1


def test_processor_without_bfloat16_stays_with_float32(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert faster_precisions(torch.device("cpu")) == ()
