"""Training speed in slices per second, beside a plain PyTorch loop.

    PYTHONPATH=Testing python Testing/benchmarks/training_speed.py --threads 2

Ours: one multi-domain network, a sub-batch of every joint in each step, exams in a bank on the device, batched
augmentation there. Plain: three networks of the same architecture in turn, each with a DataLoader of two workers that
augment slice by slice with MONAI's transforms of the same kinds, slices held in memory. Both see the same exams, batch
sizes per joint, loss and optimizer. Without a GPU both use `--threads` threads; the workers compete for the same cores,
as they do on a real machine. Each loop has a process of its own, for the trainer changes how memory is reused there.
"""

import argparse
import json
import subprocess
import sys
import time

import monai.transforms as mt
import numpy as np
import torch
from exam_phantoms import phantom
from PedBoneSegTraining.configuration import from_dict
from PedBoneSegTraining.configuration.extensions import AUGMENTATIONS, Context
from PedBoneSegTraining.data.bank import Bank
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.data.source import DatasetSource
from PedBoneSegTraining.loop.networks import build_model
from PedBoneSegTraining.loop.stages import stages
from PedBoneSegTraining.losses.segmentation import segmentation_loss
from PedBoneSegTraining.memory import keep_freed_memory
from torch.utils.data import DataLoader, Dataset

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.inference.slices import SliceSettings
from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.segmenter import build_network
from PedBoneSegLib.volume import Grid, Volume

JOINTS = ("ankle", "knee", "shoulder")
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def exams(joint: str, size: int) -> list[LoadedCase]:
    """Two exams of 12 slices of size × size pixels of 0.7 mm."""
    cases = []
    for number in range(2):
        image, labels = phantom(joint, number, (12, size, size))
        volume = Volume(image, Grid(image.shape, (4.0, 0.7, 0.7), (0.0, 0.0, 0.0), AXES))
        cases.append(LoadedCase(f"{joint}{number}", volume, labels, np.ones(1 + len(joint_table(joint).bones), bool)))
    return cases


def ours(options, device: torch.device) -> dict:
    config = from_dict(
        {
            "name": "speed",
            "domains": {joint: {"datasets": ["in memory"]} for joint in JOINTS},
            "network": {"architecture": options.architecture},
            "data": {"patch": [options.size, options.size]},
        }
    )
    specs = [DomainSpec(joint, joint, joint_table(joint).names) for joint in JOINTS]
    model = build_model(stages(config)[0], config, specs).to(device, memory_format=torch.channels_last)
    patch = config.data.patch
    settings = SliceSettings(pixel_mm=0.7)
    sources = {
        joint: DatasetSource(
            joint,
            Bank(exams(joint, options.size), settings, device),
            AUGMENTATIONS.defaults(),
            patch,
            0.7,
            0,
        )
        for joint in JOINTS
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    spent = {"data": 0.0, "network": 0.0, "optimizer": 0.0}
    keep_freed_memory()

    def step(number: int) -> None:
        clock = Clock(spent, device)
        batches = {joint: source.batch(number, options.batch) for joint, source in sources.items()}
        clock("data")
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = model(batches, Context(number, options.steps))
        loss.backward()
        clock("network")
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock("optimizer")

    return measure(step, options.steps, 3 * options.batch, spent)


class Slices(Dataset):
    """A joint's slices in memory, augmented one by one."""

    def __init__(self, joint: str, size: int, length: int) -> None:
        self.pairs = []
        for case in exams(joint, size):
            normalized = (case.volume.array - case.volume.array.mean()) / case.volume.array.std()
            self.pairs += [
                (image[None].astype(np.float32), truth[None])
                for image, truth in zip(normalized, case.labels, strict=True)
            ]
        self.length = length
        both, radians = ["image", "label"], np.pi * 25 / 180
        self.transform = mt.Compose(
            [
                mt.RandAffined(
                    both,
                    prob=1.0,
                    rotate_range=radians,
                    scale_range=0.25,
                    translate_range=0.15 * size,
                    mode=["bilinear", "nearest"],
                    padding_mode="border",
                ),
                mt.RandFlipd(both, prob=0.5, spatial_axis=1),
                mt.Rand2DElasticd(
                    both, prob=0.3, spacing=(32, 32), magnitude_range=(1, 3), mode=["bilinear", "nearest"]
                ),
                mt.RandAdjustContrastd("image", prob=0.5, gamma=(0.6, 1.6)),
                mt.RandBiasFieldd("image", prob=0.5),
                mt.RandGaussianNoised("image", prob=0.5, std=0.2),
                mt.RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.33, 1.0), upsample_mode="bilinear"),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int):
        image, label = self.pairs[number % len(self.pairs)]
        done = self.transform({"image": torch.from_numpy(image), "label": torch.from_numpy(label)})
        return torch.as_tensor(done["image"]).float(), torch.as_tensor(done["label"])[0].long()


def plain(options, device: torch.device) -> dict:
    spent, total = {"data": 0.0, "network": 0.0, "optimizer": 0.0}, []
    for joint in JOINTS:
        spec = DomainSpec(joint, joint, joint_table(joint).names)
        network = build_network(NetworkConfig(options.architecture, (spec,))).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        slices = Slices(joint, options.size, options.batch * (options.steps + WARM_UP))
        loader = iter(DataLoader(slices, options.batch, shuffle=True, num_workers=2, persistent_workers=True))
        known = torch.ones(options.batch, 1 + len(spec.bones), dtype=torch.bool, device=device)

        def step(number: int, network=network, optimizer=optimizer, loader=loader, known=known, joint=joint) -> None:
            clock = Clock(spent, device)
            images, labels = (each.to(device) for each in next(loader))
            clock("data")
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                output = network(images, [joint] * len(images))
                entropy, dice = segmentation_loss(output.logits[joint], labels, known)
            (entropy + dice).backward()
            clock("network")
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clock("optimizer")

        total.append(measure(step, options.steps, options.batch, spent))
    seconds = sum(each["seconds"] for each in total)
    return summary(seconds, 3 * options.batch * options.steps, spent)


WARM_UP = 4


class Clock:
    """Adds the time since the last call to a share; on a GPU that waits for the work."""

    def __init__(self, spent: dict[str, float], device: torch.device) -> None:
        self.spent, self.device, self.last = spent, device, time.perf_counter()

    def __call__(self, name: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.spent[name] += now - self.last
        self.last = now


def measure(step, steps: int, slices: int, spent: dict[str, float]) -> dict:
    before = dict(spent)
    for number in range(WARM_UP):
        step(number)
    spent.update(before)
    start = time.perf_counter()
    for number in range(WARM_UP, WARM_UP + steps):
        step(number)
    return summary(time.perf_counter() - start, slices * steps, spent)


def summary(seconds: float, slices: int, spent: dict[str, float]) -> dict:
    whole = sum(spent.values())
    shares = {name: round(part / whole, 3) for name, part in spent.items()}
    return {"slices_per_second": round(slices / seconds, 2), "seconds": round(seconds, 2), "shares": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--architecture", default="efficientnet-b0")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loop", choices=("ours", "plain"), help="one of the two, in this process")
    options = parser.parse_args()
    if options.loop:
        torch.set_num_threads(options.threads)
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(automatic if options.device == "auto" else options.device)
        print(json.dumps({"ours": ours, "plain": plain}[options.loop](options, device) | {"device": str(device)}))
        return
    rows = {}
    for loop in ("ours", "plain"):
        done = subprocess.run([sys.executable, *sys.argv, "--loop", loop], check=True, stdout=subprocess.PIPE)
        rows[loop] = json.loads(done.stdout)
    times = rows["ours"]["slices_per_second"] / rows["plain"]["slices_per_second"]
    print(json.dumps({"torch": torch.__version__, **vars(options), **rows, "times": round(times, 2)}, indent=1))


if __name__ == "__main__":
    main()
