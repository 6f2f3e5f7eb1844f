"""What a plan has to know of the machine: cores, memory, GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segweave.runtime.devices import choose_device


@dataclass(frozen=True)
class Machine:
    """The machine that will train.

    Attributes:
        device: "cpu" or "cuda:0".
        name: of the processor or GPU.
        threads: of torch.
        cores: that this process may use.
        memory: bytes that a training may take: what is free now, on the GPU where one is used.
        bf16: whether mixed precision pays there.
    """

    device: str
    name: str
    threads: int
    cores: int
    memory: int
    bf16: bool

    @property
    def gpu(self) -> bool:
        """Whether a GPU trains."""
        return self.device.startswith("cuda")

    def rows(self) -> dict[str, Any]:
        """Names and values, for people to read."""
        what = "GPU memory" if self.gpu else "memory"
        return {
            "device": f"{self.device} ({self.name})",
            "cores": f"{self.cores}, torch uses {self.threads} threads",
            what: f"{self.memory / 2**30:.1f} GiB free",
        }


def describe_machine(device: str = "auto") -> Machine:
    """The machine, with the device of that name; raises UsageError for a device that is not there.

    Names are those of `segweave.runtime.devices.choose_device`.
    """
    chosen = choose_device(device)
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    if chosen.type == "cuda":
        free, _ = torch.cuda.mem_get_info(chosen)
        name = torch.cuda.get_device_name(chosen)
        bf16 = torch.cuda.get_device_capability(chosen) >= (8, 0)
        return Machine(str(chosen), name, torch.get_num_threads(), cores, free, bf16)
    name = os.uname().machine if hasattr(os, "uname") else "cpu"
    return Machine("cpu", name, torch.get_num_threads(), cores, _free_memory(), bf16=False)


def has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16, which may or may not be faster."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def _free_memory() -> int:
    """Bytes of memory that a new program may take, within the limit of a container."""
    free = 4 * 2**30  # where nothing says it
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        free = int(kib) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue  # no limit, or another system
    return max(free, 0)
