"""What a run leaves to look at: a JSON line a step or so, TensorBoard where it is installed, pictures now and then, and
a progress bar with the time left on a terminal."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from PedBoneSegLib.files import whole_file


class RunLog:
    """One stage's log, of rank 0. Lines of steps that a resumed run does again are dropped first."""

    def __init__(self, folder: Path, name: str, step: int, steps: int) -> None:
        self.folder = folder
        self.path = folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
            with whole_file(self.path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept))
        self._stream = open(self.path, "a", encoding="utf-8")
        self._board = _tensorboard(folder, step)
        self._bar = tqdm(total=steps, initial=step, desc=name, unit="step", disable=None, file=sys.stderr)
        self._began, self._from = time.monotonic(), step

    def advance(self) -> None:
        self._bar.update()

    def write(self, step: int, values: dict[str, float]) -> None:
        """A line; numbers go to TensorBoard too. `seconds` is the mean time of a step since the last start."""
        seconds = (time.monotonic() - self._began) / max(1, step - self._from)
        record = {"step": step, "seconds": round(seconds, 4)} | values
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        if "loss" in values:
            self._bar.set_postfix_str(f"loss {values['loss']:.3f}", refresh=False)
        if self._board:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        self._bar.clear()
        print(text, file=sys.stderr)

    def picture(self, step: int, domain: str, images: torch.Tensor, truth: torch.Tensor, found: torch.Tensor) -> None:
        """A row of slices, below it the reference, below that the prediction."""
        row = [
            np.concatenate([_painted(image, labels) for image, labels in zip(images, which, strict=True)], 1)
            for which in (torch.zeros_like(truth), truth, found)
        ]
        pixels = np.concatenate(row, 0)
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        import SimpleITK

        with whole_file(folder / f"{domain}-{step:08d}.png") as temporary:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(temporary))
        if self._board:
            self._board.add_image(domain, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._bar.close()
        self._stream.close()
        if self._board:
            self._board.close()


COLORS = np.array([(230, 80, 60), (70, 150, 240), (90, 200, 90), (240, 200, 60), (190, 100, 220), (60, 200, 200)])


def _painted(image: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """uint8 [rows, columns, 3]: the slice in gray, bones tinted."""
    gray = image.float().cpu().numpy()
    low, high = np.percentile(gray, [1, 99])
    gray = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)[..., None] * 255
    labels = labels.cpu().numpy()
    tint = COLORS[(labels - 1) % len(COLORS)]
    return np.where(labels[..., None] > 0, 0.6 * gray + 0.4 * tint, gray).astype(np.uint8)


def _step(line: str) -> int:
    """A line's step; one that a kill cut short belongs to no step that stays."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


def _tensorboard(folder: Path, step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
