"""Inference speed beside two rivals, and what the program adds to the network's own time.

    pip install --no-deps --target .venv-rivals dynamic-network-architectures
    PYTHONPATH=.venv-rivals python Testing/benchmarks/inference_speed.py --threads 1

Networks: milliseconds per 256×256 slice, batch 8, random weights, forward pass alone, the same threads for all, rounds
taken in turn so that a machine that drifts drifts for all; the median round counts.

    ours            the bundled model's network, folded for the knee, channels-last
    nnU-Net 2-D     PlainConvUNet as nnU-Net's planner sets it up for 256×256: seven stages, 32 to 512 channels,
                    two convolutions each, instance normalization; as nnU-Net runs it, without mirroring
    MONAI           FlexibleUNet with efficientnet-b0, in evaluation mode, as its users run it

Program: a warm session segments 64 slices of 256×256 file to file with the joint named; the bare network time is the
folded network over batches of the same pixels in the same process. Peak memory: a 512×512×256 volume, in a process of
its own, from file to file.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib import store
from PedBoneSegLib.bundle import Bundle
from PedBoneSegLib.predictor import Predictor
from PedBoneSegLib.verbs import SegmentOptions, Session

BATCH, SIDE = 8, 256
LARGE = (512, 512, 256)


def rivals() -> dict[str, torch.nn.Module]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from monai.networks.nets import FlexibleUNet

    planned = PlainConvUNet(
        1, 7, (32, 64, 128, 256, 512, 512, 512), torch.nn.Conv2d, 3, (1, 2, 2, 2, 2, 2, 2), 2, 5, 2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )
    return {"nnU-Net 2-D": planned, "MONAI FlexibleUNet b0": FlexibleUNet(1, 5, "efficientnet-b0", spatial_dims=2)}


def networks(precision: torch.dtype) -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    """Each with images of the channels it takes."""
    own = Bundle.load(store.resolve()).folded("knee").to(precision).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIDE, SIDE, dtype=precision).contiguous(memory_format=torch.channels_last)
    return {"ours": (own.eval(), images)}


def milliseconds(each: dict, rounds: int) -> dict[str, list[float]]:
    times = {name: [] for name in each}
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first warms up
            for name, (network, images) in each.items():
                began = time.perf_counter()
                network(images)
                if number:
                    times[name].append(1000 * (time.perf_counter() - began) / BATCH)
    return times


def compare_networks(rounds: int) -> None:
    plain = torch.randn(BATCH, 1, SIDE, SIDE)
    each = networks(torch.float32) | {name: (network.eval(), plain) for name, network in rivals().items()}
    if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)():
        each["ours, bfloat16"] = networks(torch.bfloat16)["ours"]
    times = milliseconds(each, rounds)
    print("\n| network | ms per slice: median (least – most) | ours is faster by | ours in bfloat16 by |")
    print("|---|---|---|---|")
    medians = {name: statistics.median(found) for name, found in times.items()}
    half = medians.get("ours, bfloat16")
    for name, found in times.items():
        by = f"{medians[name] / half:.1f}×" if half else "–"
        spread = f"{medians[name]:.1f} ({min(found):.1f} – {max(found):.1f})"
        print(f"| {name} | {spread} | {medians[name] / medians['ours']:.1f}× | {by} |")


def write_volume(path: Path, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """A bright body of noise in the middle three quarters of the field."""
    import SimpleITK as sitk

    array = np.random.default_rng(0).integers(0, 60, size[::-1], dtype=np.int16)
    inner = tuple(slice(n // 8, n - n // 8) for n in array.shape[1:])
    array[(slice(None), *inner)] += 400
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def compare_program(rounds: int) -> None:
    """File to file against the network alone on the same batches of pixels."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "exam.nii.gz"), Path(folder, "labels.nii.gz")
        write_volume(source, (SIDE, SIDE, 64), (0.9, 0.9, 3.0))
        options = SegmentOptions(str(source), str(output), joint="knee", device="cpu", overwrite=True)
        session, whole, bare = Session(), [], []
        predictor = Predictor(Bundle.load(store.resolve()), "cpu")
        network = predictor.network("knee", torch.device("cpu"), predictor.precision(torch.device("cpu")))
        images = torch.randn(4, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        for number in range(rounds + 1):
            began = time.perf_counter()
            session.segment(options)
            middle = time.perf_counter()
            with torch.inference_mode():
                for _ in range(16):
                    network(images)
            if number:
                whole.append(middle - began)
                bare.append(time.perf_counter() - middle)
    print(f"\n64 slices of 256×256, warm, file to file, joint named: {statistics.median(whole):.2f} s; "
          f"64 slices through the network alone: {statistics.median(bare):.2f} s")


def large_volume() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "large.nii.gz")
        write_volume(source, LARGE, (0.4, 0.4, 0.7))
        command = [sys.executable, "-m", "PedBoneSegLib", "segment", str(source), "--joint", "knee", "--device", "cpu"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"\n512×512×256, a process of its own: {time.perf_counter() - began:.0f} s, peak memory {peak:.2f} GiB")


def start_up(rounds: int) -> None:
    print()
    for words in (["--help"], ["models", "list"]):
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "PedBoneSegLib", *words], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        print(f"pedboneseg {' '.join(words)}: {statistics.median(times):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for processes started, and the session's choice
    print(f"torch {torch.__version__}, {args.threads} threads, {os.cpu_count()} cores; batch {BATCH}, random images")
    compare_networks(args.rounds)
    compare_program(args.rounds)
    start_up(args.rounds)
    large_volume()


if __name__ == "__main__":
    main()
