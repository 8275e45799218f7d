"""Where tensors live and how many threads work on them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlcore.errors import QuintetWarning, UsageError


def resolve(device: str) -> Any:
    """`auto`, `cpu`, `cuda` or `cuda:i` as a torch.device. Asking for CUDA where there is none is an error, not CPU."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:0") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: this torch ({torch.__version__}) sees no GPU; use --device auto or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    return chosen


def set_threads(threads: int) -> None:
    """Let torch use `threads` CPU threads. More than one makes results depend on the count, and small nets slower."""
    import torch

    available = os.cpu_count() or 1
    if threads > available:
        warnings.warn(f"--threads {threads} on {available} cores will be slow", QuintetWarning, stacklevel=2)
    torch.set_num_threads(threads)


def free_bytes(device: Any) -> int:
    """Memory that can still be allocated on the torch.device `device`; on Linux at most the container's limit."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [2**63]
    with contextlib.suppress(OSError):
        limits += [1024 * int(k) for k in re.findall(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())]
    with contextlib.suppress(OSError, ValueError):  # no container, or the word "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def compile_if(wanted: bool, function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile(function)` when wanted and a C++ compiler is at hand; otherwise `function`, with a warning."""
    if not wanted:
        return function
    import torch

    if not torch.cuda.is_available() and not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        warnings.warn("--compile needs a C++ compiler (g++): running uncompiled", QuintetWarning, stacklevel=2)
        return function
    return torch.compile(function, dynamic=False)
