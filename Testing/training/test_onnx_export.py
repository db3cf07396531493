"""The network as ONNX gives the logits of the folded network, under another runtime."""

import json
import os
from dataclasses import replace

import pytest
import torch
from PedBoneSegTraining.models.onnx_export import check_onnx_folder, metadata, write_onnx
from PedBoneSegTraining.program.commands import main
from tiny import make_tiny_bundle, random_network, tensors_of, tiny_config, tiny_manifest

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.models.bundle import Bundle, write_bundle

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("architecture", ["unet", "attention-unet", "efficientnet-b0", "efficientnet-lite0"])
def test_another_runtime_gives_the_same_logits(architecture, tmp_path):
    config = tiny_config(("knee", "ankle"), architecture=architecture)
    cards = tuple(replace(card, temperature=1.7) for card in tiny_manifest(config).domains)
    write_bundle(
        tmp_path / "m.safetensors", replace(tiny_manifest(config), domains=cards), tensors_of(random_network(config))
    )
    bundle = Bundle.load(tmp_path / "m.safetensors")
    written = write_onnx(bundle, tmp_path / "onnx")
    assert [path.relative_to(tmp_path / "onnx").as_posix() for path in written] == [
        "knee/model.onnx",
        "ankle/model.onnx",
    ]
    for path, card in zip(written, bundle.manifest.domains, strict=True):
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for size in ((1, 1, 32, 32), (3, 1, 160, 96)):
            images = torch.randn(*size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                expected = bundle.folded(card.name)(images)
            (found,) = session.run(None, {"image": images.numpy()})
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


def test_the_metadata_say_what_goes_in_and_comes_out(tmp_path):
    bundle = Bundle.load(make_tiny_bundle(tmp_path / "m.safetensors"))
    write_onnx(bundle, tmp_path / "onnx")
    document = json.loads((tmp_path / "onnx" / "knee" / "metadata.json").read_text(encoding="utf-8"))
    inputs, outputs = (document["network_data_format"][key] for key in ("inputs", "outputs"))
    assert inputs["image"]["num_channels"] == 1 and inputs["image"]["channel_def"] == {"0": "slice +0"}
    assert outputs["pred"]["channel_def"] == {
        "0": "background",
        "1": "femur",
        "2": "tibia",
        "3": "fibula",
        "4": "patella",
    }
    assert document["pedboneseg"]["slices"] == bundle.manifest.domain("knee").settings
    assert "differ" not in document["pedboneseg"]["normalization"]
    mixed = replace(bundle.manifest.domain("knee"), exam_statistics=0.4)
    assert "0.4 of the exam's own" in metadata(bundle.manifest, mixed)["pedboneseg"]["normalization"]


def test_a_folder_in_use_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(BadInput, match="not an empty folder"):
            check_onnx_folder(taken)
    assert main(["export", str(tmp_path / "no-run"), "--onnx", str(tmp_path)]) == 2
    assert "--onnx" in capsys.readouterr().err
    check_onnx_folder(tmp_path / "new")
