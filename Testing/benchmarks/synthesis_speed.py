"""What a stack of synthetic slices, and a sample drawn from it, cost: seconds of one core, medians.

    python Testing/benchmarks/synthesis_speed.py

A stack is an anatomy's share (an anatomy gives several stacks) and its acquisition; a sample is 256×256 pixels of
3 channels, cut from one of its slices, as `train` draws them without worker processes.
"""

import statistics
import time

import torch
from PedBoneSegTraining.synthesis.source import Ring, SyntheticSource

from PedBoneSegLib.inference.slices import SliceSettings

JOINTS = ("ankle", "knee", "shoulder")
STACKS, SAMPLES = 12, 40


def measure(joint: str) -> tuple[float, float]:
    """(seconds a stack, seconds a sample)."""
    settings = SliceSettings(pixel_mm=0.9, context=1, context_mm=4)
    source = SyntheticSource(joint, joint, settings, 0, ring=Ring(STACKS, 0))
    began = time.process_time()
    for number in source.ring.members(0):
        source._stack(number)
    stack = (time.process_time() - began) / STACKS
    samples = []
    for step in range(SAMPLES):
        began = time.process_time()
        source.batch(step, 1)
        samples.append(time.process_time() - began)
    return stack, statistics.median(samples)


def main() -> None:
    torch.set_num_threads(1)
    for joint in JOINTS:
        stack, sample = measure(joint)
        print(f"{joint}: a stack {stack:.2f} s, a sample {sample:.4f} s")


if __name__ == "__main__":
    main()
