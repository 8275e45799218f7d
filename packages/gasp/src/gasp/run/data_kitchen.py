"""`gasp data collect kitchen`: minutes, so every few episodes are written as a block, and the same command goes on."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gasp import data, envs
from gasp.config import KITCHEN_SETS, CollectKitchenConfig
from gasp.demos.kitchen import Demonstrator, Part, play
from gasp.demos.scripts import SCRIPTS, Script, load_scripts
from gasp.kitchen_obs import SUBTASKS
from gasp.run.data_collect import finished, options_of, target
from gasp.run.stopping import stoppable
from rlcore.config import diff, to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, locked, read_json, sweep_temporaries, write_json
from rlcore.progress import progress


def collect_kitchen(cfg: CollectKitchenConfig) -> int:
    """Play, or go on playing, until all episodes are there; then write the file and a report.

    Raises: Preempted or Interrupted where a signal came, after writing the episodes that are whole.
    """
    path, options = target(cfg, cfg.task), options_of(cfg)
    scripts = load_scripts(cfg.scripts) if cfg.scripts else SCRIPTS
    options |= {"scripts": {subtask: to_dict(script) for subtask, script in scripts.items()}}
    if finished(path, options, cfg):
        return 0
    folder = path.with_name(f"{path.stem}.unfinished")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if cfg.overwrite:
                for old in folder.glob("[!.]*"):  # the lock stays: it is ours
                    old.unlink()
            same_options(folder, options)
            sweep_temporaries(folder)
            not_beyond(folder, cfg.episodes)
            _play_all(cfg, scripts, folder)
            demos = merged(folder, options)
            data.save(path, demos)
            shutil.rmtree(folder)
    if not cfg.quiet:
        print(f"{path}: {demos.episodes} stretches without a failure, {demos.transitions:,} steps of {cfg.task}")
        print(report(demos.meta["tries"], cfg.episodes))
    return 0


def same_options(folder: Path, options: dict[str, Any]) -> None:
    """Remember the options of a collection. UsageError where it was begun with others; only `episodes` may change."""
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", options)
    before = read_json(folder / "config.json")
    if changes := diff({**before, "episodes": 0}, {**options, "episodes": 0}):
        text = f"was begun with other options ({'; '.join(changes)}): use another --out, or --overwrite"
        raise UsageError(f"{folder} {text}")


def not_beyond(folder: Path, episodes: int) -> None:
    """UsageError where an unfinished collection holds more episodes than are asked for."""
    held = max((last for _, last, _ in blocks(folder)), default=0)
    if held > episodes:
        text = f"holds {held} episodes already, --episodes asks for {episodes}: ask for {held} or more"
        raise UsageError(f"{folder} {text}, or begin anew with --overwrite")


def _play_all(cfg: CollectKitchenConfig, scripts: Mapping[str, Script], folder: Path) -> None:
    """Write blocks until the last episode is in one."""
    begin = max((last for _, last, _ in blocks(folder)), default=0)
    if begin >= cfg.episodes:
        return
    with contextlib.ExitStack() as stack:
        env: Any = stack.enter_context(contextlib.closing(envs.single(cfg.task, obs_mode=cfg.obs_mode)))
        stop = stack.enter_context(stoppable())
        show = stack.enter_context(progress(f"kitchen-{cfg.set}", cfg.episodes, cfg.quiet))
        player = Demonstrator(env.unwrapped, scripts, cfg.noise, cfg.jitter)
        block = Block(cfg)
        for episode in range(begin, cfg.episodes):
            block.add(player, play(player, cfg, episode))
            ended = episode + 1
            show(ended, f"{block.rate:.0%} of the subtasks done")
            if ended % cfg.save_every == 0 or ended == cfg.episodes or stop.asked:
                block.write(folder / f"block_{begin:06d}_{ended:06d}.h5")
                begin, block = ended, Block(cfg)
            if ended < cfg.episodes:
                stop.say(f"{ended} of {cfg.episodes} episodes are in {folder}; the same command goes on")


class Block:
    """Some episodes' stretches, and how often each subtask was tried and done."""

    def __init__(self, cfg: CollectKitchenConfig) -> None:
        self.cfg = cfg
        self.found: list[tuple[Any, Any, Any]] = []
        self.tries: Counter[str] = Counter()

    def add(self, player: Demonstrator, parts: list[Part]) -> None:
        self.found += player.segments(parts)
        for part in parts:
            self.tries[f"tried {part.subtask}"] += 1
            self.tries[f"done {part.subtask}"] += part.success
            self.tries[f"steps {part.subtask}"] += (part.end - part.begin) * part.success

    @property
    def rate(self) -> float:
        """Share of the subtasks tried that were done."""
        sums = {kind: sum(n for key, n in self.tries.items() if key.startswith(kind)) for kind in ("tried", "done")}
        return sums["done"] / max(sums["tried"], 1)

    def write(self, path: Path) -> None:
        """A file of demonstrations; without any stretch, a file of one state that `merged` leaves out."""
        spec = envs.describe(self.cfg.task, obs_mode=self.cfg.obs_mode)
        meta = {
            "task": self.cfg.task, "obs_mode": self.cfg.obs_mode, "labels": SUBTASKS,
            "subtasks": KITCHEN_SETS[self.cfg.set], "tries": dict(self.tries),
        }  # fmt: skip
        nothing = [(np.zeros((1, spec.obs_dim)), np.zeros((0, spec.action_dim)), np.full(1, -1))]
        found = self.found or nothing
        data.save(path, data.Demos.of([(o, a) for o, a, _ in found], meta, [label for _, _, label in found]))


def blocks(folder: Path) -> list[tuple[int, int, Path]]:
    """First episode, the one after the last, file, in order. DataError where one is missing."""
    found = []
    for path in folder.glob("block_*.h5"):
        first, last = path.stem.removeprefix("block_").split("_")
        found.append((int(first), int(last), path))
    found.sort()
    for (_, expected, _), (begin, _, path) in zip([(0, 0, folder), *found], found):
        if begin != expected:
            raise DataError(f"{path}: expected a block from episode {expected} on; begin anew with --overwrite")
    return found


def merged(folder: Path, options: dict[str, Any]) -> data.Demos:
    """All blocks as one."""
    parts = [data.load(path) for _, _, path in blocks(folder)]
    kept = [part for part in parts if part.transitions]
    if not kept:
        raise DataError(f"{folder}: no subtask was done in any episode; look at --scripts and --noise")
    tries: Counter[str] = Counter()
    for part in parts:
        tries.update(part.meta["tries"])
    lengths = np.concatenate([part.lengths for part in kept])
    meta = {**kept[0].meta, "tries": dict(tries), "options": options}
    return data.Demos(
        np.concatenate([part.obs for part in kept]), np.concatenate([part.action for part in kept]),
        np.concatenate(([0], np.cumsum(lengths))), np.concatenate([part.label for part in kept]), meta,
    )  # fmt: skip


def report(tries: dict[str, int], episodes: int) -> str:
    """A table: how often each subtask was tried, done, and in how many steps; how many were done in an episode."""
    lines = [f"{'subtask':14}  tried   done  steps"]
    for subtask in SUBTASKS:
        if tried := tries.get(f"tried {subtask}", 0):
            done = tries[f"done {subtask}"]
            steps = tries[f"steps {subtask}"] / done if done else float("nan")
            lines.append(f"{subtask:14} {tried:6} {done / tried:6.0%} {steps:6.0f}")
    sums = {kind: sum(n for key, n in tries.items() if key.startswith(kind)) / episodes for kind in ("done", "tried")}
    return "\n".join([*lines, f"an episode did {sums['done']:.2f} of {sums['tried']:.2f} subtasks, mean"])
