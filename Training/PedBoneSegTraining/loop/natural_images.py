"""A start from natural images: published EfficientNet weights for the encoder, from a local file.

Accepted are `.safetensors` files and `.npz` archives of plain arrays. The `.pth` files in which such weights are
published are pickles, which can run code when read, so they are not opened here; where they can be trusted, two lines
convert one:

    import torch, safetensors.torch
    safetensors.torch.save_file(torch.load("efficientnet-b0-355c32eb.pth", weights_only=True), "b0.safetensors")

The naming is found out by itself:

    monai      MONAI's EfficientNetBN, and the published files that MONAI downloads (EfficientNet-PyTorch: the same
               names, blocks numbered straight through)                             tested, outputs equal to MONAI's
    timm       tf_efficientnet_b0 … b4: the same variant (SAME padding, ε = 1e-3)   UNTESTED: written from its source

torchvision's weights belong to another variant (symmetric padding, ε = 1e-5) and are refused.

Every domain's copy of every normalization starts from the one in the file: scale, shift and running statistics. Our
images have no colors. The first convolution gets, in each of its c input channels, the sum over the file's three
divided by c: an image that is the same in all channels is answered as the gray photograph would be.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.efficientnet import EfficientNetEncoder, published_name
from PedBoneSegLib.network.segmenter import Segmenter

STEM = "stem.conv.weight"
_CLASSIFIER = re.compile(r"(_conv_head|_bn1|_fc|conv_head|bn2|classifier)\.\w+")  # of the photographs' 1000 classes


def load_natural_images(network: Segmenter, path: str | Path) -> dict[str, str]:
    """Sets the encoder of `network` from the file; returns what the run's provenance should say of it.

    Changes nothing unless all of it fits: BadInput for another architecture, a missing, unknown or misshapen tensor.
    """
    path = Path(path)
    if not isinstance(network.encoder, EfficientNetEncoder):
        raise BadInput(
            f"natural images: there are no published weights for the architecture {network.config.architecture!r}",
            "choose one of the EfficientNets",
        )
    published = read_arrays(path)
    naming, names = _naming(network.encoder, published, path)
    doubt = f"are these the weights of {network.config.architecture}?"
    state = network.encoder.state_dict()
    new = {}
    for name, ours in state.items():
        if names[name] not in published:
            raise BadInput(f"{path} lacks {names[name]!r}", doubt)
        theirs = torch.from_numpy(published.pop(names[name]))
        new[name] = _fitted(name, theirs, ours)
        if new[name].shape != ours.shape:
            raise BadInput(f"{path}: {names[name]!r} is {list(theirs.shape)}, not {list(ours.shape)}", doubt)
    for name in published:
        if not _CLASSIFIER.fullmatch(name) and not name.endswith("num_batches_tracked"):
            raise BadInput(f"{path} holds {name!r}, which the network does not have", doubt)
    network.encoder.load_state_dict(new)
    return {"file": path.name, "naming": naming, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a `.safetensors` or `.npz` file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except Exception as fault:  # both libraries raise kinds of their own for a damaged file
        raise BadInput(f"{path} cannot be read: {fault}", "name an undamaged .safetensors or .npz file") from None
    raise BadInput(f"{path} is neither .safetensors nor .npz", "convert it: see PedBoneSegTraining.loop.natural_images")


def _naming(encoder: EfficientNetEncoder, published: dict, path: Path) -> tuple[str, dict[str, str]]:
    """The naming's name, and the published name for each of ours."""
    ours = list(encoder.state_dict())
    if "_conv_stem.weight" in published:
        names = {name: published_name(name) for name in ours}
        if not any(re.match(r"_blocks\.\d+\.\d+\.", name) for name in published):
            names = {name: re.sub(r"^_blocks\.\d+\.", "_blocks.", theirs) for name, theirs in names.items()}
        return "monai", names
    if "conv_stem.weight" in published:
        return "timm (untested)", {name: timm_name(name, encoder) for name in ours}
    raise BadInput(f"{path} follows no naming known here", "known are MONAI's (EfficientNet-PyTorch's) and timm's")


def timm_name(name: str, encoder: EfficientNetEncoder) -> str:
    """UNTESTED. timm numbers the blocks within each stage, and the normalizations in the order of their use."""
    match = re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", name)
    if not match:
        return name.replace("stem.conv.", "conv_stem.").replace("stem.norm.", "bn1.")
    stage, rest = int(match[1]), match[3]
    block = list(encoder.stages[stage]).index(match[2])
    layers = ["depthwise", "project"] if stage == 0 else ["expand", "depthwise", "project"]
    convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pw" if stage == 0 else "conv_pwl"}
    for number, layer in enumerate(layers, start=1):
        rest = rest.replace(f"{layer}.conv.", f"{convolutions[layer]}.").replace(f"{layer}.norm.", f"bn{number}.")
    rest = rest.replace("squeeze.", "se.conv_reduce.").replace("excite.", "se.conv_expand.")
    return f"blocks.{stage}.{block}.{rest}"


def _fitted(name: str, theirs: Tensor, ours: Tensor) -> Tensor:
    theirs = theirs.to(ours.dtype)
    if name == STEM and theirs.ndim == 4 and theirs.shape[1] == 3:
        return theirs.sum(1, keepdim=True).repeat(1, ours.shape[1], 1, 1) / ours.shape[1]
    if ".norm." in name and theirs.ndim == 1:
        return theirs.repeat(len(ours), 1)
    return theirs
