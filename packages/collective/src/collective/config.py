"""What all commands share: sizes, tasks and benchmarks by name, checks; options of the small ones. Loads no torch.

The comments behind the options are their --help.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tyro.conf

from rlcore.config import nearest
from rlcore.errors import QuintetWarning, UsageError

SEEDS = 2**63
Unused = tyro.conf.Suppress[tyro.conf.Fixed[int]]  # what every run has and would do nothing here
OBS_DIM, ACTION_DIM, STATE_DIM, WINDOW = 39, 4, 21, 20
STATE_COLUMNS = (*range(18), 36, 37, 38)  # of the observation: this frame and the goal, not the frame before

MT10 = tuple(
    f"{name}-v3"
    for name in """reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side
    window-open window-close""".split()
)
MT25 = MT10 + tuple(
    f"{name}-v3"
    for name in """coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull button-press-wall
    faucet-open door-lock lever-pull sweep-into faucet-close coffee-button button-press-topdown-wall
    dial-turn""".split()
)
MT50 = tuple(
    f"{name}-v3"
    for name in """assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close""".split()
)
FIVE = ("reach-v3", "push-v3", "drawer-close-v3", "button-press-topdown-v3", "window-open-v3")
TOY_TASKS = ("toy-reach", "toy-push", "toy-lift")
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "mt5": FIVE, "mt10": MT10, "mt25": MT25, "mt50": MT50, "toy": TOY_TASKS,
}  # fmt: skip


def check_range(config: object, *keys: str, low: float = 1, high: float = 2**40) -> None:
    """UsageError for the first of the options `keys` outside [low, high); None passes."""
    for key in keys:
        if (value := getattr(config, key)) is not None and not low <= value < high:
            last = high - 1 if isinstance(value, int) else high
            raise UsageError(f"{key}: must be in {low:,} .. {last:,}, got {value}")


def task_name(name: str) -> str:
    """The task that is meant by `name`: -v1 and -v2 become -v3, with a warning. UsageError with the nearest one."""
    known = {*MT50, *TOY_TASKS}
    if name in known:
        return name
    newer = name[:-3] + "-v3" if name.endswith(("-v1", "-v2")) else f"{name}-v3"
    if newer in known:
        if name != newer[:-3]:  # a bare name needs no remark
            warnings.warn(f"{name} is {newer} here: rewards and observations differ", QuintetWarning, stacklevel=2)
        return newer
    raise UsageError(f"unknown task {name!r}{nearest(name, known)} (see `collective doctor --tasks`)")


def resolve_tasks(
    tasks: Sequence[str] = (), benchmark: str | None = None, exclude: Iterable[str] = ()
) -> tuple[str, ...]:
    """The tasks that are meant, each once: those of a benchmark, or the ones listed, less `exclude`."""
    if benchmark is not None and benchmark.lower() not in BENCHMARKS:
        raise UsageError(
            f"unknown benchmark {benchmark!r}{nearest(benchmark, BENCHMARKS)} (known: {', '.join(BENCHMARKS)})"
        )
    named = [*(BENCHMARKS[benchmark.lower()] if benchmark else ()), *(task_name(name) for name in tasks)]
    without = {task_name(name) for name in exclude}
    chosen = tuple(dict.fromkeys(name for name in named if name not in without))
    if not chosen:
        raise UsageError("no task: give --tasks a,b or --benchmark mt10")
    if len({name.startswith("toy-") for name in chosen}) > 1:
        raise UsageError(f"toy and Meta-World tasks cannot be mixed: {', '.join(chosen)}")
    return chosen


@dataclass(frozen=True, kw_only=True)
class TasksConfig:
    """Which tasks a command is about."""

    tasks: tuple[str, ...] = ()  # Task names: reach-v3 push-v3 ...; a -v1 or -v2 name means -v3.
    benchmark: str | None = None  # mt5, mt10, mt25, mt50, toy: instead of a list, or besides it.
    exclude: tuple[str, ...] = ()  # Tasks of the benchmark to leave out.

    @property
    def chosen(self) -> tuple[str, ...]:
        """The tasks meant. UsageError where there is none or an unknown one."""
        return resolve_tasks(self.tasks, self.benchmark, self.exclude)
