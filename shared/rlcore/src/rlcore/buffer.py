"""Replay memory: one preallocated tensor, one gather a batch, valid starts without search, append-only files.

All float32, bool and int64 fields of a step lie side by side in one float32 row, the rows of one env follow each other,
and the first `window - 1` rows are repeated behind the last one: any window of at most `window` steps is one run of
memory, and a batch of windows is one `index_select` on an overlapping view. Each uint8 field has its own such tensor.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rlcore.device import free_bytes
from rlcore.errors import DataError, UsageError
from rlcore.files import write_atomic
from rlcore.seeding import numpy_state, set_numpy_state

FILE = "segment_{}_{}.bin"  # first step, last step + 1


@dataclass(frozen=True)
class Field:
    """What one env stores a step. int64 is for small numbers (actions, task ids): magnitudes up to 2**24."""

    shape: tuple[int, ...] = ()
    dtype: Literal["float32", "bool", "int64", "uint8"] = "float32"


def predicted_bytes(
    fields: Mapping[str, Field], capacity: int, num_envs: int = 1, *, window: int = 1, within_episode: bool = False
) -> int:
    """Memory of a `ReplayBuffer` with these arguments, batches apart, before there is one."""
    slots = capacity // num_envs
    row = sum(int(np.prod(field.shape)) * (1 if field.dtype == "uint8" else 4) for field in fields.values())
    return num_envs * (slots + window - 1) * row + within_episode * 8 * (num_envs * slots + slots + num_envs)


class ReplayBuffer:
    """Ring of `slots = capacity // num_envs` vector steps; `cursor` is the slot that the next one goes to.

    Args:
        fields: what is stored. Whoever learns from single transitions stores `next_obs` as a field of its own.
        capacity: transitions over all envs.
        window: the longest window that will be sampled, in steps.
        within_episode: no row of a window but possibly the last is `terminated` or `truncated`, and none but possibly
            the first has `is_init` (a bool field, first step of an episode; needed only where an episode can be
            abandoned, as after a resume). Otherwise windows are any consecutive steps.
        rng: draws the starts; its state is saved and restored with the data.

    Batches are reused: a returned tensor is valid until the next batch of the same shape is drawn.
    Raises UsageError where memory does not suffice or the ring is shorter than a window.
    """

    def __init__(
        self, fields: Mapping[str, Field], capacity: int, num_envs: int = 1, *, window: int = 1,
        within_episode: bool = False, device: str | torch.device = "cpu", rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.fields, self.num_envs, self.window = dict(fields), num_envs, window
        self.within_episode, self.device, self.rng = within_episode, torch.device(device), rng
        self.slots, self.total, self.cursor = capacity // num_envs, 0, 0  # total: vector steps ever added
        if not 1 <= window <= self.slots:
            raise UsageError(f"replay capacity {capacity} over {num_envs} envs cannot hold a window of {window} steps")
        if within_episode and not fields.get("terminated") == fields.get("truncated") == Field((), "bool"):
            raise UsageError("within_episode needs bool fields 'terminated' and 'truncated' of shape ()")
        self.nbytes = predicted_bytes(fields, capacity, num_envs, window=window, within_episode=within_episode)
        if self.nbytes > (free := free_bytes(self.device)):
            sizes = f"{self.nbytes / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free on {self.device}"
            raise UsageError(f"a replay buffer of {capacity} transitions needs {sizes}: lower its capacity")
        self._rows = self.slots + window - 1
        self._data: list[Tensor] = []  # (num_envs, rows, width) each: the packed rows, then one a uint8 field
        self._writes: list[tuple[Any, Any]] = []  # the same, and (num_envs, width): one vector step on its way in
        self._cells: dict[str, np.ndarray] = {}  # field -> its part of the latter, (num_envs, *shape)
        self._place: dict[str, tuple[int, slice]] = {}  # field -> index into _data, columns
        pixels = sorted(name for name in fields if fields[name].dtype == "uint8")  # sorted: dict order must not matter
        for store, names in enumerate([sorted(fields.keys() - set(pixels)), *([name] for name in pixels)]):
            ends = np.cumsum([0, *(int(np.prod(fields[name].shape)) for name in names)]).tolist()
            dtype = torch.uint8 if store else torch.float32
            data = torch.zeros(num_envs, self._rows, ends[-1], dtype=dtype, device=self.device)
            stage = torch.zeros(num_envs, ends[-1], dtype=dtype)
            self._data.append(data)
            # numpy copies a row several times faster than torch
            self._writes.append((data.numpy(), stage.numpy()) if self.device.type == "cpu" else (data, stage))
            for name, begin, end in zip(names, ends, ends[1:]):
                self._place[name] = store, slice(begin, end)
                self._cells[name] = stage.numpy()[:, begin:end].reshape(num_envs, *fields[name].shape)
        self._batch = functools.lru_cache(maxsize=8)(self._make_batch)  # bounded, whatever sizes are asked for
        self._starts = np.full(num_envs * self.slots * within_episode, -1)  # ring of env * rows + slot, oldest first
        self._starts_at = np.full(self.slots * within_episode, 0)  # how many of them begin at each slot
        self._position = np.full(num_envs * within_episode, 0)  # age of the episode at the next row
        self._head = self._tail = 0  # ends of the ring of starts, counted for ever
        self._folder, self._segments = Path(), list[list[Any]]()  # saved so far: [start, stop, sha256] in steps

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return min(self.total, self.slots) * self.num_envs

    def add(self, **values: Any) -> None:
        """Store one vector step: for every field an array or tensor (num_envs, *shape)."""
        if values.keys() != self._cells.keys():
            raise ValueError(f"add() wants {sorted(self._cells)}, got {sorted(values)}")
        for name, cell in self._cells.items():
            dtype, value = self.fields[name].dtype, values[name]
            if not isinstance(value, np.ndarray):
                value = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            fits = np.can_cast(value.dtype, dtype, "safe" if dtype == "uint8" else "same_kind")
            if value.shape != cell.shape or not fits:
                raise ValueError(f"{name}: expected {dtype} {cell.shape}, got {value.dtype} {value.shape}")
            if dtype == "int64" and (value.max() > 2**24 or value.min() < -(2**24)):  # float32 has gaps beyond
                raise ValueError(f"{name}: int64 fields hold magnitudes up to 2**24, got {value}")
            cell[...] = value
        for data, stage in self._writes:
            data[:, self.cursor] = stage
            if self.cursor < self.window - 1:
                data[:, self.slots + self.cursor] = stage
        if self.within_episode:
            self._track(self.cursor)
        self.total += 1
        self.cursor = self.total % self.slots

    def _track(self, slot: int) -> None:
        """Drop the starts at the overwritten slot; append those of the windows that end with the row just written."""
        self._tail += int(self._starts_at[slot])
        self._position *= self._cells.get("is_init", 0) == 0
        envs = np.flatnonzero(self._position >= self.window - 1)
        start = (slot - self.window + 1) % self.slots
        np.put(self._starts, np.arange(self._head, self._head + envs.size), envs * self._rows + start, mode="wrap")
        self._starts_at[start] = envs.size
        self._head += envs.size
        self._position = (self._position + 1) * (self._cells["terminated"] + self._cells["truncated"] == 0)

    def sample(self, batch: int) -> dict[str, Tensor]:
        """`batch` transitions, uniform with replacement: (B, *shape) a field."""
        return self._gather(self._draw(batch, 1, 1), (batch,))

    def sample_windows(self, batch: int, length: int, stride: int = 1) -> dict[str, Tensor]:
        """`batch` windows of `length` steps at uniform `starts`: time-major (T, B, *shape) a field."""
        return self._gather(self._draw(batch, length, stride), (length, batch))

    def starts(self, batch: int, length: int, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(slot, env), each (B,), uniform over the windows that hold no write head; slots are multiples of `stride`."""
        env, slot = np.divmod(self._draw(batch, length, stride), self._rows)
        return slot, env

    def windows(self, slot: np.ndarray, env: np.ndarray, length: int) -> dict[str, Tensor]:
        """The windows that begin at (slot, env), each (B,): time-major (T, B, *shape) a field."""
        assert ((slot >= 0) & (slot < self.slots)).all(), slot  # rows beyond are another env's
        return self._gather(env * self._rows + slot, (length, len(slot)))

    def _draw(self, batch: int, length: int, stride: int) -> np.ndarray:
        """Row numbers env * rows + slot of valid starts, uniform, (B,)."""
        by_episode = self.within_episode and length > 1
        assert not by_episode or (length, stride) == (self.window, 1), "within_episode draws whole windows, stride 1"
        first = self.cursor if self.total > self.slots and length > 1 else 0  # single steps: any slot will do
        last = first + min(self.total, self.slots) - length  # may lie behind the ring's end
        each = max(0, min(last, self.slots - 1) // stride - (first - 1) // stride)  # valid starts an env
        each += max(0, (last - self.slots) // stride + 1)
        count = self._head - self._tail if by_episode else each * self.num_envs
        if not count:
            raise UsageError(f"replay holds no window of {length} steps yet: collect more steps before learning")
        pick: np.ndarray[Any, np.dtype[np.int64]] = self.rng.integers(count, size=batch)
        if by_episode:
            return self._starts.take(pick + self._tail, mode="wrap")
        if stride == self.num_envs == 1 and first == 0:
            return pick
        env, pick = pick // each, pick % each
        return (pick - -first // stride) % -(-self.slots // stride) * stride + env * self._rows

    def _gather(self, rows: np.ndarray, lead: tuple[int, ...]) -> dict[str, Tensor]:
        """Copy the windows that begin at `rows` into the batch whose leading shape is `lead`: (B,) or (T, B)."""
        gathers, casts, batch = self._batch(lead)
        index = torch.from_numpy(rows).to(self.device)
        for view, out in gathers:
            torch.index_select(view, 0, index, out=out)
        for source, target in casts:
            target.copy_(source)
        return dict(batch)

    def _make_batch(self, lead: tuple[int, ...]) -> tuple[Any, Any, dict[str, Tensor]]:
        """(view, out) pairs to gather, (float, cast) pairs to copy, and the fields of the finished batch."""
        length, size = (1, *lead)[-2:]
        assert 1 <= length <= self.window, (length, self.window)
        gathers, outs, casts, batch = [], [], [], dict[str, Tensor]()
        for data in self._data:
            width = data.shape[-1]
            view = data.as_strided((self.num_envs * self._rows - length + 1, length * width), (width, 1))
            gathers.append((view, data.new_empty(size, length * width)))
            outs.append(gathers[-1][1].view(size, length, width).transpose(0, 1).view(*lead, width))
        for name, (store, columns) in self._place.items():
            batch[name] = part = outs[store][..., columns].view(*lead, *self.fields[name].shape)
            if (dtype := getattr(torch, self.fields[name].dtype)) != part.dtype:
                batch[name] = torch.empty(part.shape, dtype=dtype, device=self.device)
                casts.append((part, batch[name]))
        return gathers, casts, batch

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what is new since the last save as one file; return the JSON-able cursor for `load`. May be retried."""
        if folder != self._folder:
            self._folder, self._segments = folder, []
        oldest = max(0, self.total - self.slots)
        segments = [segment for segment in self._segments if segment[1] > oldest]
        start = max([oldest, *(stop for _, stop, _ in segments)])
        if start < self.total:
            pieces = self._pieces(start, self.total)
            segments.append([start, self.total, _digest(pieces)])
            contents: list[Any] = [self._header(segments[-1]), *(piece.cpu().numpy().data for piece in pieces)]
            write_atomic(folder / FILE.format(*segments[-1]), lambda file: file.writelines(contents))
        self._segments = segments
        return {"total": self.total, "rng": numpy_state(self.rng), "segments": [[*segment] for segment in segments]}

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described by `cursor`; DataError, and an empty buffer, where anything does not match."""
        self.total = self.cursor = self._head = self._tail = self._starts_at[:] = self._position[:] = 0
        self._folder, self._segments = folder, []
        try:
            total = int(cursor["total"])
            segments: list[list[Any]] = [[int(a), int(b), str(c)] for a, b, c in cursor["segments"]]
            set_numpy_state(self.rng, cursor["rng"])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{folder}: the replay cursor in the checkpoint cannot be read: {error!r}") from None
        for segment in segments:
            self._read(folder / FILE.format(*segment), segment)
        starts = [*(start for start, _, _ in segments), total]
        if starts[1:] != [stop for _, stop, _ in segments] or starts[0] > max(0, total - self.slots):
            raise DataError(f"{folder}: the replay cursor does not name the last {self.slots} of {total} steps")
        for data in self._data:
            data[:, self.slots :] = data[:, : self.window - 1]
        for step in range(max(0, total - self.slots), total) if self.within_episode else ():
            self._writes[0][1][:] = self._writes[0][0][:, step % self.slots]  # fills the cells that _track looks at
            self._track(step % self.slots)
        self._segments, self.total, self.cursor = segments, total, total % self.slots

    def _read(self, path: Path, segment: list[Any]) -> None:
        """Read a segment into the ring, where nothing counts before `load` has seen that all are whole."""
        header, pieces = self._header(segment), self._pieces(*segment[:2])
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path} is missing or not a plain file")
        try:
            with open(path, "rb") as file:
                if (found := file.readline(2**16)) != header:
                    raise DataError(f"{path} does not fit: {_difference(found, header)}")
                for piece in pieces:
                    file.readinto((host := piece.cpu()).numpy().data)
                    piece.copy_(host)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        if path.stat().st_size != len(header) + sum(p.nbytes for p in pieces) or _digest(pieces) != segment[2]:
            raise DataError(f"{path} is damaged: its size or checksum is not what the checkpoint says")

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the segments that neither this buffer's next save nor a cursor in `keep` needs."""
        segments = [*self._segments, *(segment for cursor in keep for segment in cursor["segments"])]
        for path in set(folder.glob("segment_*.bin")) - {folder / FILE.format(*segment) for segment in segments}:
            path.unlink(missing_ok=True)

    def _header(self, segment: list[Any]) -> bytes:
        about: dict[str, Any] = {f"field {k}": f"{v.dtype}{list(v.shape)}" for k, v in self.fields.items()}
        about |= {"num_envs": self.num_envs, "slots": self.slots} | dict(zip(("start", "stop", "sha256"), segment))
        return json.dumps({"format": "quintet replay 1"} | about, sort_keys=True).encode() + b"\n"

    def _pieces(self, start: int, stop: int) -> list[Tensor]:
        """The memory of steps `start` to `stop` as 1-d views in file order: store by store, env by env, by time."""
        first, last = start % self.slots, start % self.slots + stop - start
        runs = [slice(first, min(last, self.slots)), slice(0, max(0, last - self.slots))]
        return [data[env, run].view(-1) for data in self._data for env in range(self.num_envs) for run in runs]


def _digest(pieces: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.cpu().numpy().data)
    return digest.hexdigest()


def _difference(found: bytes, header: bytes) -> str:
    """In words, why the header `found` is not `header`."""
    try:
        theirs, ours = json.loads(found), json.loads(header)
        wrong = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    except (ValueError, AttributeError, RecursionError):
        return "no replay segment, or damaged"
    return ", ".join(f"{key} is {theirs.get(key)!r:.80}, expected {ours.get(key)!r:.80}" for key in wrong) or "damaged"
