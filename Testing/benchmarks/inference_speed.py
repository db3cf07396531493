"""Inference speed beside two rivals, and what the program adds to the network's own time.

    pip install --no-deps --target .venv-rivals dynamic-network-architectures
    PYTHONPATH=.venv-rivals python Testing/benchmarks/inference_speed.py --threads 1

Networks: milliseconds per 256×256 slice, batch 8, random weights, forward pass alone, the same threads for all, rounds
taken in turn so that a machine that drifts drifts for all; the median round counts.

    ours            the bundled model's network, folded for the knee, channels-last
    nnU-Net 2-D     PlainConvUNet as nnU-Net's planner sets it up for 256×256: seven stages, 32 to 512 channels,
                    two convolutions each, instance normalization; as nnU-Net runs it, without mirroring
    MONAI           FlexibleUNet with efficientnet-b0, in evaluation mode, as its users run it

Request: a warm session segments 64 slices of 256×256 file to file with the joint named, as the worker does: reading,
slicing, the verdict, labels, cleaning up, the order of review, writing. Its bare network time is the folded network of
that joint over the very same batches of slices, made beforehand, and nothing else: the verdict's passes through the
encoders of the other joints are no part of it. The two in turn, so that both meet the same machine. The worker leaves
a core free (threads = cores − 1) and uses it for slicing and placing while the network works: for the table, give one
thread less than there are cores.

    python Testing/benchmarks/inference_speed.py --threads 1 --rounds 9 --only request

The same request is timed with a copy of the model without signatures, so without a verdict, and with a copy that mixes
an exam's own normalization statistics into every domain's.

Encoders: the whole folded network with each encoder that the bundled model might have, random weights, in float32 and,
where this processor is faster with it, in bfloat16.

With one thread, networks and encoders are timed by the processor's time, which other programs disturb less than the
clock.

Peak memory: a 512×512×256 volume, in a process of its own, from file to file.

Gates: on the three samples, how far the bundled model's logits move when its normalization is folded into its filters,
and the lowest Dice of a bone's labels between float32 and a cheaper number format.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.inference.devices import faster_precisions
from PedBoneSegLib.inference.passes import BATCH_PIXELS
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import spread_slices
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models import store
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.fold import fold
from PedBoneSegLib.network.segmenter import build_network
from PedBoneSegLib.program.demo import SAMPLE
from PedBoneSegLib.program.segment import SegmentOptions, segment
from PedBoneSegLib.program.session import Session

BATCH, SIDE = 8, 256
LARGE = (512, 512, 256)


def rivals() -> dict[str, torch.nn.Module]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from monai.networks.nets import FlexibleUNet

    planned = PlainConvUNet(
        1,
        7,
        (32, 64, 128, 256, 512, 512, 512),
        torch.nn.Conv2d,
        3,
        (1, 2, 2, 2, 2, 2, 2),
        2,
        5,
        2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return {"nnU-Net 2-D": planned, "MONAI FlexibleUNet b0": FlexibleUNet(1, 5, "efficientnet-b0", spatial_dims=2)}


def networks(precision: torch.dtype) -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    """Each with images of the channels it takes."""
    own = Bundle.load(store.resolve()).folded("knee").to(precision).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIDE, SIDE, dtype=precision).contiguous(memory_format=torch.channels_last)
    return {"ours": (own.eval(), images)}


def compare_encoders(rounds: int) -> None:
    domains = (DomainSpec("knee", "knee", ("femur", "tibia", "fibula", "patella")),)
    kinds = [torch.float32]
    if "bfloat16" in faster_precisions(torch.device("cpu")):
        kinds.append(torch.bfloat16)
    each = {}
    for encoder in ("b0", "lite0", "lite1", "lite2"):
        network = build_network(NetworkConfig(f"efficientnet-{encoder}", domains, in_channels=3))
        for kind in kinds:
            folded = fold(network, "knee").to(kind).to(memory_format=torch.channels_last)
            images = torch.randn(BATCH, 3, SIDE, SIDE, dtype=kind).contiguous(memory_format=torch.channels_last)
            each[f"EfficientNet-{encoder}", kind] = (folded, images)
    times = milliseconds(each, rounds)
    print("\n| encoder | number format | ms per slice: median (least – most) |\n|---|---|---|")
    for (encoder, kind), found in times.items():
        print(f"| {encoder} | {kind} | {statistics.median(found):.1f} ({min(found):.1f} – {max(found):.1f}) |")


def milliseconds(each: dict, rounds: int) -> dict[str, list[float]]:
    times = {name: [] for name in each}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first warms up
            for name, (network, images) in each.items():
                began = clock()
                network(images)
                if number:
                    times[name].append(1000 * (clock() - began) / BATCH)
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
    """A bright body of noise."""
    import SimpleITK as sitk

    array = np.random.default_rng(0).integers(0, 60, size[::-1], dtype=np.int16)
    inner = tuple(slice(n // 16, n - n // 16) for n in array.shape[1:])
    array[(slice(None), *inner)] += 400
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def write_exam(path: Path) -> None:
    """The bundled knee, stretched to 64 slices of 256×256: labels, doubts and packing as an exam's, not as noise's."""
    import SimpleITK as sitk

    sample = sitk.ReadImage(str(SAMPLE))
    array = sitk.GetArrayFromImage(sample)
    nearest = (np.arange(size) * old // size for size, old in zip((64, SIDE, SIDE), array.shape, strict=True))
    image = sitk.GetImageFromArray(array[np.ix_(*nearest)])
    image.SetSpacing((0.9, 0.9, 3.0))
    image.SetDirection(sample.GetDirection())
    sitk.WriteImage(image, str(path))


def compare_request(rounds: int) -> None:
    """File to file against the network alone on the same batches of pixels, with the verdict and by a copy of the model
    that has no signatures to give one by; in float32 and as the program chooses."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        names = ("exam.nii.gz", "labels.nii.gz", "unsigned.safetensors", "exam-statistics.safetensors")
        source, output, unsigned, adapting = (Path(folder, name) for name in names)
        write_exam(source)
        bundle = Bundle.load(store.resolve())
        write_changed(unsigned, bundle, signature=None)
        write_changed(adapting, bundle, exam_statistics=0.4)
        models = {"with the verdict": None, "without signatures": unsigned, "with exam statistics": adapting}
        sessions = {name: (Session(), path and str(path)) for name, path in models.items()}
        predictor = sessions["with the verdict"][0].model(None, "cpu").predictor
        stack = SliceStack(read_volume(source), SliceSettings.from_dict(bundle.manifest.domain("knee").settings))
        size = BATCH_PIXELS["cpu"] // int(np.prod(stack.shape))
        parts = [stack.occupied[start : start + size] for start in range(0, len(stack.occupied), size)]
        images = [torch.from_numpy(stack.images(part)) for part in parts]
        for precision in dict.fromkeys((torch.float32, predictor.precision(cpu))):
            works = [(predictor.network("knee", cpu, precision), [batch.to(precision) for batch in images])]
            for session, model in sessions.values():
                session.model(model, "cpu").predictor.precision = lambda device, precision=precision: precision
                options = SegmentOptions(str(source), str(output), "knee", model, device="cpu", overwrite=True)
                segment(session, options)  # warms up
                works.append((partial(segment, session), [options]))
            seconds = np.array([[_seconds(*work) for work in works] for _ in range(rounds)])
            bare = seconds[:, 0]
            print(
                f"\n{len(stack.occupied)} slices of {stack.shape[0]}×{stack.shape[1]}, {precision}, warm, file to "
                f"file, joint named; the network alone on these slices: {np.median(bare):.2f} s, at least "
                f"{bare.min():.2f}"
            )
            for name, whole in zip(sessions, seconds.T[1:], strict=True):
                more = 100 * (whole / bare - 1)
                print(
                    f"{name}: {np.median(whole):.2f} s, {np.median(more):.0f} % more ({more.min():.0f} – "
                    f"{more.max():.0f}); at least {whole.min():.2f} s, {100 * (whole.min() / bare.min() - 1):.0f} % "
                    f"more than the least of the other"
                )


def write_changed(path: Path, bundle: Bundle, **changes) -> None:
    """The same model with some fields of every domain's card changed."""
    cards = tuple(replace(card, **changes) for card in bundle.manifest.domains)
    without = "signature" in changes
    tensors = {name: tensor for name, tensor in bundle.tensors.items() if name.startswith("network.") or not without}
    write_bundle(path, replace(bundle.manifest, domains=cards), tensors)


def _seconds(work: Callable, inputs: list) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        for each in inputs:
            work(each)
    return time.perf_counter() - began


def large_volume(_rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "large.nii.gz")
        write_volume(source, LARGE, (0.4, 0.4, 0.7))
        command = [sys.executable, "-m", "PedBoneSegLib", "segment", str(source), "--joint", "knee", "--device", "cpu"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"\n512×512×256, a process of its own: {time.perf_counter() - began:.0f} s, peak memory {peak:.2f} GiB")


def gates(_rounds: int) -> None:
    cpu = torch.device("cpu")
    predictor = Predictor(Bundle.load(store.resolve()), "cpu")
    segmenter = predictor.bundle.network().eval()
    print()
    for card in predictor.bundle.manifest.domains:
        volume = read_volume(SAMPLE.with_name(f"{card.joint}.nii.gz"))
        stack = SliceStack(volume, SliceSettings.from_dict(card.settings))
        images = torch.from_numpy(stack.images(spread_slices(stack.occupied)))
        with torch.inference_mode():
            whole = segmenter(images, [card.name] * len(images)).logits[card.name] / card.temperature
            moved = (whole - predictor.network(card.name, cpu, torch.float32)(images)).abs().max().item()
        labels = {}
        for kind in (torch.float32, torch.bfloat16, torch.float16):
            predictor.precision = lambda device, kind=kind: kind
            labels[kind] = predictor.segment(volume, card.name).labels
        for kind in (torch.bfloat16, torch.float16):
            pairs = [(labels[torch.float32] == bone.label, labels[kind] == bone.label) for bone in card.table.bones]
            least = min(2 * (one & two).sum() / max(1, one.sum() + two.sum()) for one, two in pairs if one.any())
            print(f"{card.joint}: folding moves logits by {moved:.1e} at most; {kind}: lowest Dice {least:.4f}")


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
    parts = {
        "networks": compare_networks,
        "encoders": compare_encoders,
        "request": compare_request,
        "start": start_up,
        "large": large_volume,
        "gates": gates,
    }
    parser.add_argument("--only", choices=parts, help="one part of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for processes started, and the session's choice
    print(f"torch {torch.__version__}, {args.threads} threads, {os.cpu_count()} cores; batch {BATCH}, random images")
    for name, part in parts.items():
        if args.only in (None, name):
            part(args.rounds)


if __name__ == "__main__":
    main()
