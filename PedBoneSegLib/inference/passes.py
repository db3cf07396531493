"""A volume's slices through a network, a batch at a time, and the results back onto the volume's own voxels."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import OutOfMemory
from ..models.manifest import DomainCard
from ..volume import Notice, Volume
from .resampling import linear_matrix
from .review import raw_doubt
from .slices import SliceSettings, SliceStack

BATCH_PIXELS = {"cpu": 4 << 16, "mps": 8 << 16, "cuda": 32 << 16}  # 4, 8, 32 slices of 256 × 256


Stacks = Callable[[DomainCard], SliceStack]


def stacks_of(volume: Volume) -> Stacks:
    """The volume's slices by domain, made once for all domains with the same settings."""
    made = cache(lambda settings: SliceStack(volume, settings))
    return lambda card: made(SliceSettings.from_dict(card.settings))


class Pass:
    """Slices through the network of a domain; each step yields the fraction that is done.

    `place` gets a batch's indices and its logits; with `level`, the encoder's features up to that level instead. While
    the network works on a batch, a second thread puts the one before into place and resamples the one after.

    Where memory is short the batch is halved, and what cannot be done even singly on the device goes to the CPU; both
    are said in `warnings`. What was done before stays.
    """

    def __init__(
        self,
        predictor,
        card: DomainCard,
        stack: SliceStack,
        place: Callable,
        warnings: list,
        indices: np.ndarray,
        level: int | None = None,
    ):
        self.predictor, self.card, self.stack, self.place, self.warnings = predictor, card, stack, place, warnings
        self.indices, self.level = indices, level
        self._helper = ThreadPoolExecutor(1)
        self._use(predictor.device)

    def __enter__(self) -> "Pass":
        return self

    def __exit__(self, kind, *_) -> None:
        self._helper.shutdown()
        if kind is not None and self.device.type == "cuda":
            torch.cuda.empty_cache()  # a request that failed leaves the device's memory to others

    @property
    def network(self) -> nn.Module:
        return self.predictor.network(self.card.name, self.device, self.precision)

    def __iter__(self):
        total, done, begun = len(self.indices), 0, 0
        placing = images = None
        while done < total:
            try:
                results = None
                if begun < total:
                    images = images or self._prepare(begun)
                    now, images = images.result(), self._prepare(begun + self.batch)
                    results = self._run(now)
                if placing:
                    placing.result()
                    done = begun
                    yield done / total
                if results is not None:
                    begun = min(total, begun + self.batch)
                    placing = self._helper.submit(self._place, self.indices[done:begun], results)
                continue
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                fault = str(error)
                if placing and not placing.exception():  # the batch before the failed one is in its place
                    done = begun
                begun, now, results, placing, images = done, None, None, None, None
            self._back_off(fault)  # outside the handler, where the failed batch's tensors are let go

    def _prepare(self, begin: int) -> Future:
        return self._helper.submit(self.stack.images, self.indices[begin : begin + self.batch])

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> Tensor | list[Tensor]:
        pixels = torch.from_numpy(images).to(self.device, self.precision)
        if self.level is None:
            return self.network(pixels).float()
        return self.network.encoder_features(pixels, self.level)

    @torch.inference_mode()
    def _place(self, indices: np.ndarray, results: Tensor | list[Tensor]) -> None:
        self.place(indices, results)

    def _use(self, device: torch.device) -> None:
        rows, columns = self.stack.shape
        self.device, self.precision = device, self.predictor.precision(device)
        self.batch = max(1, BATCH_PIXELS[device.type] // (rows * columns))

    def _back_off(self, fault: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            message = f"memory is short on {self.device}: going on with {self.batch} slices at a time"
        elif self.device.type != "cpu":
            message = f"memory is too short on {self.device}: going on with the CPU, which is slower"
            self._use(torch.device("cpu"))
        else:
            rows, columns = self.stack.shape
            fault = f"memory is too short for a single slice of {rows} × {columns} pixels ({fault[:200]})"
            raise OutOfMemory(fault, "close other programs, or crop the volume")
        self.warnings[:] = [notice for notice in self.warnings if notice.code != "memory"] + [Notice("memory", message)]


def _is_out_of_memory(error: Exception) -> bool:
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


class Placing:
    """Puts a batch's labels and, where they are wanted, its probabilities and its raw doubt into volumes [i, j, k]."""

    def __init__(self, stack: SliceStack, labels, probabilities, uncertainty):
        self.stack, self.labels, self.probabilities, self.uncertainty = stack, labels, probabilities, uncertainty

    def __call__(self, indices: np.ndarray, logits: Tensor) -> None:
        chances = on_own_pixels(logits, self.stack)
        if self.probabilities is not None or self.uncertainty is not None:
            chances = chances.softmax(dim=1)
        best, highest = most_likely(chances)
        if self.uncertainty is not None:
            self._put(raw_doubt(highest), indices, self.uncertainty)
        if self.probabilities is not None:
            for bone, target in enumerate(self.probabilities, start=1):
                self._put((chances[:, bone] * 255).round(), indices, target)
        self._put(best, indices, self.labels)

    def _put(self, values: Tensor, indices: np.ndarray, target: np.ndarray) -> None:
        self.stack.place(values.to(torch.uint8).cpu().numpy(), indices, target)


def most_likely(chances: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the highest channels (uint8) and its value, of [n, c, rows, columns]: a channel's number is the
    count of channels before it, all of them lower. Eight times as fast on a CPU as torch's own maximum."""
    highest = chances.amax(dim=1)
    best, lower = torch.zeros_like(highest, dtype=torch.uint8), torch.ones_like(highest, dtype=torch.bool)
    for channel in chances.unbind(1)[:-1]:
        lower &= channel < highest
        best += lower
    return best, highest


def on_own_pixels(logits: Tensor, stack: SliceStack) -> Tensor:
    """Network pixels [n, c, rows, columns] → the input's own pixels in the crop, [n, c, crop rows, crop columns].

    Linear between pixel centers, so that where the input is finer the borders of bones are smooth.
    """
    logits = logits[(..., *stack.window)].contiguous()
    size = tuple(crop.stop - crop.start for crop in stack.crop)
    scales = [1.0 if abs(scale - 1) < 1e-6 else scale * (1 + 1e-6) for scale in stack.scale]  # torch rounds down
    if scales == [1.0, 1.0]:
        return logits[..., : size[0], : size[1]]
    if any(scale != 1 and int(n * scale) == n for n, scale in zip(logits.shape[-2:], scales, strict=True)):
        # torch's interpolation copies an axis whose length stays, whatever the scale
        rows, columns = (
            torch.from_numpy(linear_matrix(np.clip((np.arange(own) + 0.5) / scale - 0.5, 0, n - 1), 1, n)).to(logits)
            for own, n, scale in zip(size, logits.shape[-2:], stack.scale, strict=True)
        )
        return rows @ logits @ columns.T
    options = {"mode": "bilinear", "recompute_scale_factor": False}
    return functional.interpolate(logits, scale_factor=scales, **options)[..., : size[0], : size[1]]
