"""Several devices and nodes: `torchrun … -m PedBoneSegLib train …`, plain DistributedDataParallel.

A step's micro-batches are numbered over all ranks, and each is a function of its number; ranks share them out. The
gradient is the mean over the micro-batches whoever computes them, so it does not depend on how many devices there
are. Normalization uses each micro-batch's own statistics; the running ones are averaged over the ranks after every
step, so that all ranks hold the same model. A rank that dies takes the others down; torchrun starts all again
(`--max-restarts`), and they resume from the newest checkpoint.
"""

import os
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist

# DDP imports this one too, but late: its functions' defaults would then hold the group, and with it gloo's threads,
# beyond `stop`. Such a thread may drop a step's tensor while the interpreter ends, which aborts the process.
import torch.distributed.nn.functional  # noqa: F401
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.inference.devices import choose_device


@dataclass(frozen=True)
class Ranks:
    rank: int
    count: int
    device: torch.device

    @classmethod
    def start(cls, device: str = "auto") -> "Ranks":
        """Joins the other ranks where torchrun started this process; alone otherwise."""
        count, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
        chosen = choose_device(device)
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", local)
        if count > 1:
            if chosen.type == "cuda":
                torch.cuda.set_device(chosen)
            # torchrun's store outlives a restart: without a prefix the new ranks would read the dead ones' addresses.
            store, rank, _ = next(dist.rendezvous("env://"))
            store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        return cls(int(os.environ.get("RANK", 0)), count, chosen)

    def stop(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own(self, micro_batches: int) -> range:
        """The numbers of this rank's micro-batches."""
        if micro_batches % self.count:
            raise BadInput(
                f"training.micro_batches = {micro_batches} cannot be shared by {self.count} ranks",
                f"set it to a multiple of {self.count}",
            )
        return range(self.rank, micro_batches, self.count)

    def wrap(self, model: nn.Module) -> nn.Module:
        if self.count == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        # The gradient of a 1×1 convolution may have either layout; DDP takes both and warns of it.
        warnings.filterwarnings("ignore", "Grad strides do not match")
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the newer name is not in torch 2.4
            return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def quiet(self, wrapped: nn.Module, last: bool):
        """Gradients are exchanged with a step's last micro-batch only."""
        return nullcontext() if self.count == 1 or last else wrapped.no_sync()

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """The ranks' running statistics become their mean, in one message."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.count == 1 or not buffers:
            return
        together = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.all_reduce(together)
        together /= self.count
        for buffer, part in zip(buffers, together.split([each.numel() for each in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The ranks' mean; one NaN makes it NaN everywhere."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def gather(self, own: list) -> list:
        """All ranks' items, in the order of rank, on every rank."""
        if self.count == 1:
            return own
        parts: list[list] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, own)
        return [item for part in parts for item in part]

    def from_first(self, value):
        """Rank 0's value, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
