"""Runs a volume's slices through a network, a batch at a time, and writes the results onto the volume's own voxels."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import OutOfMemory
from ..models.manifest import DomainCard
from ..models.slice_settings import SliceSettings
from ..network.fold import FoldedNetwork
from ..volume import Notice, Volume
from .resampling import linear_matrix
from .review import raw_doubt
from .slices import SliceStack

BATCH_PIXELS = {"cpu": 4 << 16, "mps": 8 << 16, "cuda": 32 << 16}  # 4, 8, 32 slices of 256 × 256

StacksByDomain = Callable[[DomainCard], SliceStack]


def stacks_by_domain(volume: Volume) -> StacksByDomain:
    """The volume's slices as a domain expects them. Domains with the same settings share one stack."""
    stack = cache(lambda settings: SliceStack(volume, settings))
    return lambda card: stack(SliceSettings.from_dict(card.settings))


class Networks(Protocol):
    """What a pass needs of the `Predictor`."""

    device: torch.device

    def network(self, domain: str, device: torch.device, precision: torch.dtype) -> FoldedNetwork: ...

    def precision(self, device: torch.device) -> torch.dtype: ...


class Pass:
    """Runs slices through the network of a domain. Iterating does the work and yields the part that is done.

    `write` is called with a batch's indices and its logits; with `level`, with the list of the encoder's features up to
    that level instead. While the network works on a batch, a second thread writes the batch before and resamples the
    batch after.

    If the memory is too short the batch is halved. What does not fit the device even as a single slice goes to the CPU.
    Both add a notice. Batches that were done before are kept.
    """

    def __init__(
        self,
        networks: Networks,
        card: DomainCard,
        stack: SliceStack,
        write: Callable[[np.ndarray, Any], None],
        notices: list[Notice],
        indices: np.ndarray,
        level: int | None = None,
    ) -> None:
        self.networks, self.card, self.stack, self.write, self.notices = networks, card, stack, write, notices
        self.indices, self.level = indices, level
        self._helper = ThreadPoolExecutor(1)
        self._use(networks.device)

    def __enter__(self) -> "Pass":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._helper.shutdown()
        if kind is not None and self.device.type == "cuda":
            torch.cuda.empty_cache()  # a request that failed leaves the device's memory to others

    @property
    def network(self) -> FoldedNetwork:
        return self.networks.network(self.card.name, self.device, self.precision)

    def __iter__(self) -> Iterator[float]:
        total, written, started = len(self.indices), 0, 0  # slices
        writing: Future[None] | None = None
        images: Future[np.ndarray] | None = None
        while written < total:
            try:
                results = None
                if started < total:
                    images = images or self._prepare(started)
                    current, images = images.result(), self._prepare(started + self.batch)
                    results = self._run(current)
                if writing:
                    writing.result()
                    written = started
                    yield written / total
                if results is not None:
                    started = min(total, started + self.batch)
                    writing = self._helper.submit(self._write, self.indices[written:started], results)
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                fault = str(error)
                if writing and not writing.exception():  # the batch before the failed one is written
                    written = started
                started, current, results, writing, images = written, None, None, None, None
            self._back_off(fault)  # after the handler, which keeps the failed batch's tensors alive

    def _prepare(self, start: int) -> "Future[np.ndarray]":
        return self._helper.submit(self.stack.images, self.indices[start : start + self.batch])

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> Tensor | list[Tensor]:
        pixels = torch.from_numpy(images).to(self.device, self.precision)
        if self.level is None:
            logits: Tensor = self.network(pixels)
            return logits.float()
        return self.network.encoder_features(pixels, self.level)

    @torch.inference_mode()
    def _write(self, indices: np.ndarray, results: Tensor | list[Tensor]) -> None:
        self.write(indices, results)

    def _use(self, device: torch.device) -> None:
        rows, columns = self.stack.shape
        self.device, self.precision = device, self.networks.precision(device)
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
        self.notices[:] = [notice for notice in self.notices if notice.code != "memory"] + [Notice("memory", message)]


def is_out_of_memory(error: Exception) -> bool:
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


class VolumeWriter:
    """Writes a batch's labels into a volume [i, j, k], and where they are wanted its probabilities and raw doubt."""

    def __init__(
        self, stack: SliceStack, labels: np.ndarray, probabilities: np.ndarray | None, doubt: np.ndarray | None
    ) -> None:
        self.stack, self.labels, self.probabilities, self.doubt = stack, labels, probabilities, doubt

    def __call__(self, indices: np.ndarray, logits: Tensor) -> None:
        scores = on_own_pixels(logits, self.stack)
        if self.probabilities is not None or self.doubt is not None:
            scores = scores.softmax(dim=1)
        label, highest = most_likely(scores)
        if self.doubt is not None:
            self._put(raw_doubt(highest), indices, self.doubt)
        if self.probabilities is not None:
            for bone, target in enumerate(self.probabilities, start=1):
                self._put((scores[:, bone] * 255).round(), indices, target)
        self._put(label, indices, self.labels)

    def _put(self, values: Tensor, indices: np.ndarray, target: np.ndarray) -> None:
        self.stack.place(values.to(torch.uint8).cpu().numpy(), indices, target)


def most_likely(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The channel with the highest score (uint8; of equals the first) and that score, of [n, c, rows, columns].

    A channel's number is counted up from the channels before it, all of which are lower. On a CPU this is eight times
    as fast as torch's own maximum.
    """
    highest = scores.amax(dim=1)
    channel_number, lower = torch.zeros_like(highest, dtype=torch.uint8), torch.ones_like(highest, dtype=torch.bool)
    for channel in scores.unbind(1)[:-1]:
        lower &= channel < highest
        channel_number += lower
    return channel_number, highest


def on_own_pixels(logits: Tensor, stack: SliceStack) -> Tensor:
    """Network pixels [n, c, rows, columns] → the input's own pixels in the crop, [n, c, crop rows, crop columns].

    Linear between pixel centers, so the borders of bones are smooth where the input is finer than the network.
    """
    rows_in, columns_in = stack.window
    logits = logits[..., rows_in, columns_in].contiguous()
    size = tuple(crop.stop - crop.start for crop in stack.crop)
    scales = [1.0 if abs(scale - 1) < 1e-6 else scale * (1 + 1e-6) for scale in stack.scale]  # torch rounds down
    if scales == [1.0, 1.0]:
        return logits[..., : size[0], : size[1]]
    if any(scale != 1 and int(n * scale) == n for n, scale in zip(logits.shape[-2:], scales, strict=True)):
        # torch's interpolation copies an axis whose length does not change, whatever the scale is
        rows, columns = (
            torch.from_numpy(linear_matrix(np.clip((np.arange(own) + 0.5) / scale - 0.5, 0, n - 1), 1, n)).to(logits)
            for own, n, scale in zip(size, logits.shape[-2:], stack.scale, strict=True)
        )
        return rows @ logits @ columns.T
    enlarged = functional.interpolate(logits, scale_factor=scales, mode="bilinear", recompute_scale_factor=False)
    return enlarged[..., : size[0], : size[1]]
