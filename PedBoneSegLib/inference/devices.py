"""The devices of this machine, the number formats they calculate with, and how many cores are used."""

import os

import torch

from ..errors import BadInput


def choose_device(name: str) -> torch.device:
    """`auto` picks the fastest device that works. Any other name must exist on this machine, else BadInput."""
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if not _fault(kind)))
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise BadInput(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:N or mps")
    if fault := _fault(name):
        raise BadInput(f"the device {name} cannot be used: {fault}", "use --device cpu, or auto")
    return torch.device(name)


def available_devices() -> list[str]:
    """All devices that work here, the fastest first."""
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [name for name in (*cards, "mps", "cpu") if not _fault(name)]


def faster_precisions(device: torch.device) -> tuple[str, ...]:
    """Number formats below float32 with which the device itself calculates faster, the better first."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return ("bfloat16", "float16") if capability >= (8, 0) else ("float16",) if capability >= (7, 0) else ()
    if device.type == "mps":
        return ("float16",)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # without these bf16 is emulated, and slower
    return ("bfloat16",) if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes) else ()


def use_most_cores() -> None:
    """Uses all cores but one, so that the desktop stays responsive; OMP_NUM_THREADS is respected."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - 1))


def _fault(name: str) -> str:
    """Why a device cannot be used, in a few words; empty when it calculates."""
    if name == "cpu":
        return ""
    backend = torch.backends.mps if name == "mps" else torch.cuda
    if not backend.is_available():
        return "this PyTorch finds no such hardware"
    try:
        torch.ones(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0][:200]
    return ""
