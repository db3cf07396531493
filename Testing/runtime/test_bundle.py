"""A model on disk: what is written comes back, and nothing else is let in."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_tiny_bundle, random_network, tensors_of, tiny_config, tiny_manifest

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference import review, slices
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models import manifest as manifests
from PedBoneSegLib.models import slice_settings
from PedBoneSegLib.models.bundle import FILE_LIMIT, HEADER_LIMIT, Bundle, read_manifest, verify, write_bundle
from PedBoneSegLib.network.fold import fold
from PedBoneSegLib.volume import Grid, Volume

CONFIG = tiny_config(("knee", "ankle"), width=1)  # the smallest network there is, so that fuzzing is quick
NETWORK = random_network(CONFIG)
GRID = Grid((4, 30, 30), (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    write_bundle(path, tiny_manifest(CONFIG), tensors_of(NETWORK))
    return path


def split(data: bytes) -> tuple[dict, bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def canonical(document: dict) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def signed(header: dict, body: bytes, change=lambda document: None) -> bytes:
    """A file with that header and body whose manifest, changed at will, states the right hash; written from the
    description in the bundle's docstring, not from its code."""
    header = json.loads(json.dumps(header))
    document = json.loads(header.pop("__metadata__")["pedboneseg"])
    del document["sha256"]
    change(document)
    digest = hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode() + b"\n")
        digest.update(body[slice(*entry["data_offsets"])])
    digest.update(canonical(document).encode())
    document["sha256"] = digest.hexdigest()
    text = json.dumps({"__metadata__": {"pedboneseg": canonical(document)}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + body


def refused(path, data: bytes, message: str | None = None, by=(Bundle.load,)) -> None:
    path.write_bytes(data)
    for function in by:
        with pytest.raises(BadModel, match=message) as caught:
            function(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


# ------------------------------------------------------------------------------------------------ back and forth


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_what_is_written_comes_back(tmp_path, storage):
    manifest = tiny_manifest(
        CONFIG,
        storage=storage,
        precisions=("float32", "bfloat16"),
        review={"knee": {"bone": [1e-30] * 255, "background": [0.1] * 255, "changed": 0.5, "exams": 3}},
        provenance={"author": "Zoë"},
    )
    signature = {"layer": 2, "threshold": 0.25, "references": 9}
    knee = replace(manifest.domains[0], temperature=1.5, signature=signature, metrics={"dice": {"femur": 0.9}})
    manifest = replace(manifest, domains=(knee, manifest.domains[1]))
    references = np.random.default_rng(0).random((9, 4))
    path = tmp_path / "model.safetensors"
    written = write_bundle(path, manifest, {**tensors_of(NETWORK), "signatures.knee": references})
    bundle = Bundle.load(path)

    assert bundle.manifest == manifest == written == read_manifest(path) == verify(path)
    assert bundle.manifest.sha256 == written.sha256 and len(written.sha256) == 64
    assert bundle.manifest.domain("knee") == knee and bundle.manifest.domains_of("ankle") == manifest.domains[1:]
    np.testing.assert_array_equal(bundle.tensors["signatures.knee"], references.astype(np.float32))
    for name, tensor in bundle.network().state_dict().items():
        original = NETWORK.state_dict()[name]
        half = storage == "float16" and tensor.ndim == 4
        assert tensor.dtype == torch.float32 and torch.equal(tensor, original.half().float() if half else original)
    x = torch.randn(2, 1, 16, 16)
    expected = fold(bundle.network(), "knee", 1.5)(x)
    assert torch.equal(bundle.folded("knee")(x), expected)


def test_networks_of_a_bundle_are_independent_and_loading_draws_nothing(model):
    state = torch.get_rng_state()
    bundle = Bundle.load(model)
    first, second = bundle.network(), bundle.network()
    assert torch.equal(state, torch.get_rng_state())
    next(first.parameters()).data.zero_()
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    assert torch.equal(next(second.parameters()), next(bundle.network().parameters()))
    assert not first.training and next(first.parameters()).requires_grad


def test_the_same_model_is_the_same_file(tmp_path):
    files = [
        make_tiny_bundle(tmp_path / f"{name}.safetensors", seed=seed).read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert files[0] == files[1] != files[2]


def test_the_hash_is_as_described(model):
    data = model.read_bytes()
    assert (
        json.loads(split(signed(*split(data)))[0]["__metadata__"]["pedboneseg"])["sha256"]
        == Bundle.load(model).manifest.sha256
    )


def test_safetensors_own_reader_opens_it(model):
    from safetensors import safe_open

    with safe_open(model, "np") as file:
        assert set(file.keys()) == set(tensors_of(NETWORK))
        assert json.loads(file.metadata()["pedboneseg"])["name"] == "tiny"


def test_the_manifest_needs_the_standard_library_alone(model):
    program = (
        "import sys\n"
        "from PedBoneSegLib.models.bundle import read_manifest\n"
        f"print(read_manifest({str(model)!r}).domains[0].table.names)\n"
        "standard = set(sys.stdlib_module_names) | {'__main__', 'PedBoneSegLib'}\n"
        "print({name.split('.')[0] for name in sys.modules} - standard)\n"
    )
    folder = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["('femur', 'tibia', 'fibula', 'patella')", "set()"], done.stderr


def test_joints_and_domains_are_found_by_name(model):
    manifest = read_manifest(model)
    knee, ankle = manifest.domains
    lab = replace(knee, name="knee-lab")
    specs = manifest.network.domains
    network = replace(manifest.network, domains=(*specs, replace(specs[0], name="knee-lab")))
    manifest = replace(manifest, network=network, domains=(knee, ankle, lab))
    assert manifest.domains_of("knee") == (knee, lab)  # the joint, not the domain of that name alone
    assert manifest.domains_of("knee-lab") == (lab,)
    with pytest.raises(BadModel, match="does not know the joint 'hip'; it knows knee, ankle, knee-lab"):
        manifest.domains_of("hip")
    with pytest.raises(BadModel, match="no domain 'hip'"):
        manifest.domain("hip")


# ------------------------------------------------------------------------------------------------ what is refused


def test_every_flipped_bit_of_the_header_is_noticed(model, tmp_path):
    """All bits of the length and of what follows it, then one bit of every eleventh byte and the ends of the body."""
    data = model.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    target = tmp_path / "flipped.safetensors"
    places = [(byte, bit) for byte in range(80) for bit in range(8)]
    places += [(byte, byte * 5 % 8) for byte in range(80, end, 11)] + [(end + 1, 0), (len(data) - 1, 7)]
    for byte, bit in places:
        flipped = bytearray(data)
        flipped[byte] ^= 1 << bit
        target.write_bytes(flipped)
        with pytest.raises(BadModel):
            verify(target)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(model, tmp_path, place, bit):
    data = bytearray(model.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    refused(tmp_path / "flipped.safetensors", bytes(data), by=(Bundle.load, verify))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(model, tmp_path, place):
    data = model.read_bytes()
    refused(tmp_path / "cut.safetensors", data[: int(place * len(data))], by=(Bundle.load, verify, read_manifest))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=200), length=st.none() | st.integers(0, 2**64 - 1), body=st.binary(max_size=50))
def test_rubbish_is_refused(tmp_path, header, length, body):
    start = struct.pack("<Q", len(header) if length is None else length)
    refused(tmp_path / "rubbish.safetensors", start + header + body, by=(Bundle.load, verify, read_manifest))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([0, -1, 1e-300, 1e308, 10**9, 10**400, "x" * 300, "\x1b[31m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_manifest_is_refused_or_harmless(model, tmp_path, data):
    """One value anywhere in a manifest becomes another, rightly signed: it is refused by name or stays a model."""
    header, body = split(model.read_bytes())

    def change(document):
        here = document
        while True:
            key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            if not here[key] or not isinstance(here[key], dict | list) or data.draw(st.booleans()):
                here[key] = data.draw(json_values)
                return
            here = here[key]

    path = tmp_path / "forged.safetensors"
    path.write_bytes(signed(header, body, change))
    try:
        bundle = Bundle.load(path)
    except BadModel as fault:
        assert str(path) in str(fault)
    else:
        assert bundle.folded("knee")(torch.zeros(1, 1, 4, 4)).shape == (1, 5, 4, 4)
        image = Volume(np.arange(4 * 30 * 30, dtype=np.int16).reshape(4, 30, 30), GRID)
        labels = Predictor(bundle, "cpu").segment(image, "knee").labels
        assert labels.shape == image.array.shape and labels.max() <= 4


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.update(schema=2), "its schema is 2.*; update PedBoneSeg"),
        (lambda d: d.update(schema=True), "its schema is True"),
        (lambda d: d.update(extra=1), "unknown key 'extra'"),
        (lambda d: d.pop("licence"), "lacks 'licence'"),
        (lambda d: d.update(name="../../x"), "no name for a model"),
        (lambda d: d.update(card=None), "no proper 'card'"),
        (lambda d: d.update(precisions=["float32", "int4"]), "precisions"),
        (lambda d: d.update(storage="float8"), "storage 'float8'"),
        (lambda d: d.update(storage="float16"), "it must be F16"),
        (lambda d: d["network"].update(width=2), r"it must be F32 \["),
        (lambda d: d["network"].update(width=10**9), "width 1000000000"),
        (lambda d: d["network"].update(head="union"), "it must be F32"),
        (lambda d: d["domains"].reverse(), "not those of its network"),
        (lambda d: d["domains"].pop(), "not those of its network"),
        (lambda d: d["domains"][0].update(temperature=0.0), "temperature 0.0"),
        (lambda d: d["domains"][0].update(temperature=1e-300), "temperature 1e-300"),
        (lambda d: d["domains"][0]["settings"].update(isotropy="x"), "isotropy is x"),
        (lambda d: d["domains"][0]["settings"].update(margin_mm=1e308), "margin_mm is 1e"),
        (lambda d: d["domains"][0]["settings"].update(pixel_mm=0.01), "pixel_mm is 0.01"),
        (lambda d: d["domains"][0]["settings"].update(pixel_mm=0.1, field_mm=2000), "more than 4096 pixels"),
        (lambda d: d["domains"][0]["settings"].update(context=10**9), "context is 1000000000"),
        (lambda d: d["domains"][0]["settings"].update(context=1.0), "context is 1.0"),
        (lambda d: d["domains"][0]["settings"].update(context=1), "slices of 3 channels for a network of 1"),
        (lambda d: d["domains"][0]["settings"].update(plane=["axial"]), "the plane"),
        (lambda d: d["domains"][0]["settings"].update(other=1), "not those that this PedBoneSeg knows"),
        (lambda d: d["domains"][0].update(settings={}), "not those that this PedBoneSeg knows"),
        (lambda d: d["domains"][0].update(settings=[]), "no proper 'settings'"),
        (lambda d: d["domains"][0].update(signature=[1]), "signature or metrics"),
        (lambda d: d["domains"][0].update(metrics="x"), "signature or metrics"),
        (lambda d: d["domains"][0].update(table="LabelValue,Name\n" + "x" * 200_000), "field larger|line"),
        (lambda d: d["domains"][0].update(table="x" * 200_000), "field"),
        (lambda d: d.update(review={"knee": {"bone": [0.1]}}), "lacks 'background'"),
        (
            lambda d: d.update(
                review={"knee": {"bone": [2] * 255, "background": [0] * 255, "changed": 0.5, "exams": 3}}
            ),
            "no probabilities",
        ),
        (lambda d: d.update(review=[1]), "calibration of the review is not an object"),
        (lambda d: d.update(provenance="x"), "no proper 'provenance'"),
        (lambda d: d.update(provenance={"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}), "manifest is not readable"),
        (lambda d: d["domains"][0].update(temperature="1"), "no proper 'temperature'"),
        (lambda d: d["domains"][0].update(table="nonsense"), "label table"),
        (
            lambda d: d["domains"][0].update(signature={"layer": 1, "threshold": 0.1, "references": 8}),
            "signatures.knee is missing",
        ),
        (
            lambda d: d["domains"][0].update(signature={"layer": 9, "threshold": 0.1, "references": 8}),
            "none of the encoder's",
        ),
        (lambda d: d["domains"][0].update(signature={"layer": 1, "references": 8}), "threshold None"),
    ],
)
def test_wrong_manifests_rightly_signed_are_refused_by_name(model, tmp_path, change, message):
    refused(tmp_path / "forged.safetensors", signed(*split(model.read_bytes()), change), message)


def with_tensor(header: dict, body: bytes, name: str, array: np.ndarray) -> tuple[dict, bytes]:
    entry = {"dtype": {"f": "F32", "e": "F16", "d": "F64"}[array.dtype.char], "shape": list(array.shape)}
    return {**header, name: {**entry, "data_offsets": [len(body), len(body) + array.nbytes]}}, body + array.tobytes()


def test_what_the_manifest_knows_of_rooms_above_it_is_true():
    assert manifests.REVIEW_CURVE == review.LEVELS + 1 and slice_settings.PLANE_NAMES == tuple(slices.PLANES)


def test_wrong_tensors_rightly_signed_are_refused_by_name(model, tmp_path):
    path = tmp_path / "forged.safetensors"
    header, body = split(model.read_bytes())
    path.write_bytes(signed(header, body))
    Bundle.load(path)  # the forge itself is sound

    extra = np.zeros(3, np.float32)
    refused(path, signed(*with_tensor(header, body, "network.more", extra)), "network.more does not belong")
    refused(path, signed(*with_tensor(header, body, "signatures.knee", extra)), "signatures.knee does not belong")
    refused(path, signed(*with_tensor(header, body, "x", extra.astype(float))), "x is of type F64")

    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    without = {name: entry for name, entry in header.items() if name != last}
    rest = body[: header[last]["data_offsets"][0]]
    refused(path, signed(without, rest), f"{last} is missing")
    flat = {**header, last: {**header[last], "shape": [int(np.prod(header[last]["shape"]))]}}
    refused(path, signed(flat, body), f"{last} is F32")

    for name, value, message in (
        ("network.head.bias", float("nan"), "head.bias holds numbers"),
        ("network.head.bias", float("inf"), "head.bias holds numbers"),
        ("network.encoder.levels.0.first.norm.running_var", -1.0, "running_var holds numbers"),
    ):
        begin = header[name]["data_offsets"][0]
        changed = body[:begin] + struct.pack("<f", value) + body[begin + 4 :]
        refused(path, signed(header, changed), message, by=(Bundle.load, verify))


def test_wrong_containers_are_refused_by_name(model, tmp_path):
    path = tmp_path / "forged.safetensors"
    data = model.read_bytes()
    header, body = split(data)
    everywhere = (Bundle.load, verify, read_manifest)
    refused(path, data + b"\0", "its header promises", by=everywhere)
    refused(path, data[:-1], "its header promises", by=everywhere)
    refused(path, b"", "cut off", by=everywhere)

    def raw(text: bytes, body: bytes = body) -> bytes:
        return struct.pack("<Q", len(text)) + text + body

    text = json.dumps(header).encode()
    refused(path, raw(text + b" " * HEADER_LIMIT), "more than the 1048576 allowed", by=everywhere)
    refused(path, raw(b"[" * 100_000), "header is not readable", by=everywhere)
    refused(path, raw(b'{"a":' * 100_000), "header is not readable", by=everywhere)
    refused(path, raw(text.replace(b'"network.head.bias"', b'"network.head.weight"')), "not readable", by=everywhere)
    metadata = header["__metadata__"]
    refused(path, raw(json.dumps({**header, "__metadata__": {**metadata, "more": "x"}}).encode()), "no manifest")
    refused(path, raw(json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()), "no manifest")
    loose = {"pedboneseg": metadata["pedboneseg"] + " "}
    refused(path, raw(json.dumps({**header, "__metadata__": loose}).encode()), "not in the form")
    infinite = {"pedboneseg": metadata["pedboneseg"].replace('"temperature":1.0', '"temperature":Infinity')}
    refused(path, raw(json.dumps({**header, "__metadata__": infinite}).encode()), "manifest is not readable")
    infinite = {"pedboneseg": metadata["pedboneseg"].replace('"temperature":1.0', '"temperature":1e999')}
    refused(path, raw(json.dumps({**header, "__metadata__": infinite}).encode()), "manifest is not readable")
    surrogate = {"pedboneseg": "\ud800"}
    refused(path, raw(json.dumps({**header, "__metadata__": surrogate}).encode()), "manifest is not readable")

    name = "network.head.bias"
    begin, end = header[name]["data_offsets"]
    shifted = ([begin - 4, end - 4], [begin + 4, end], [begin - 4, end], [begin, end + 4], [end, begin])
    for offsets in (*shifted, [begin], [-4, end], [begin, 2**70], [0.0, 4]):
        entry = {**header[name], "data_offsets": offsets}
        refused(path, raw(json.dumps({**header, name: entry}).encode()), "tensor", by=everywhere)
    for shape in ([2**40, 2**40], [-1], [True], ["9"], [9.0], [0, 2**47, 2**47], [0], [1] * 9):
        refused(path, raw(json.dumps({**header, name: {**header[name], "shape": shape}}).encode()), name)


def test_what_is_no_file_is_refused(tmp_path):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)  # opened, it would wait for ever
    huge = tmp_path / "huge.safetensors"
    with open(huge, "wb") as stream:
        stream.truncate(FILE_LIMIT + 1)
    for path, message in (
        (tmp_path / "none.safetensors", "cannot be read: No such file"),
        (tmp_path, "not a file"),
        (pipe, "not a file"),
        (huge, "more than the 1073741824 allowed"),
    ):
        with pytest.raises(BadModel, match=message):
            Bundle.load(path)


# -------------------------------------------------------------------------------------------------------- writing


def test_what_could_not_be_loaded_is_not_written(tmp_path):
    path = tmp_path / "model.safetensors"
    write_bundle(path, tiny_manifest(CONFIG), tensors_of(NETWORK))
    before = path.read_bytes()
    tensors = tensors_of(NETWORK)
    name = "network.head.weight"
    for storage, change, message in (
        ("float32", {name: tensors[name][:2]}, "it must be F32"),
        ("float32", {name: tensors[name] * float("nan")}, "holds numbers"),
        ("float16", {name: tensors[name] * 1e6}, "holds numbers"),  # beyond the range of float16
        ("float32", {"network.more": torch.zeros(1)}, "does not belong"),
    ):
        with pytest.raises(BadModel, match=message):
            write_bundle(path, tiny_manifest(CONFIG, storage=storage), {**tensors, **change})
    with pytest.raises(BadModel, match="more than the 1048576 allowed"):
        write_bundle(path, tiny_manifest(CONFIG, card="x" * HEADER_LIMIT), tensors)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
