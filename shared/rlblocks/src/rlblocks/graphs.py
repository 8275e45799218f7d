"""A function of CUDA tensors, recorded once and then replayed as a CUDA graph: one launch in place of hundreds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 3  # calls that run as they are before one is recorded: libraries and allocators set themselves up in them


class Graphed:
    """Calls `function(tensors, *flags)`, a graph for each set of flags and of shapes.

    What it changes must be changed in place, by itself and by everybody else, and never be replaced by other tensors.
    It may not wait for the device, nor draw random numbers. It returns a dictionary of tensors of one shape, which are
    copied.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]]) -> None:
        self.function, self.stream = function, torch.cuda.Stream()
        self.calls: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, tuple[Any, list[Tensor], list[str], Tensor]] = {}

    def __call__(self, tensors: Sequence[Tensor], *flags: Hashable) -> dict[str, Tensor]:
        key = (flags, *((x.shape, x.dtype) for x in tensors))
        if key not in self.graphs:
            self.calls[key] += 1
            if self.calls[key] <= WARM_UPS:
                return self._aside(tensors, flags)
            self.graphs[key] = self._record(tensors, flags)
        graph, inputs, names, outputs = self.graphs[key]
        for mine, given in zip(inputs, tensors):
            mine.copy_(given, non_blocking=True)
        graph.replay()
        return dict(zip(names, outputs.clone().unbind()))

    def _aside(self, tensors: Sequence[Tensor], flags: tuple[Hashable, ...]) -> dict[str, Tensor]:
        """Run it on another stream, as recording will."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = self.function(tensors, *flags)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def _record(self, tensors: Sequence[Tensor], flags: tuple[Hashable, ...]) -> Any:
        """The graph, its input buffers, the names of its outputs and their buffer. Nothing is computed yet."""
        inputs, graph = [x.clone() for x in tensors], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = self.function(inputs, *flags)
            outputs = torch.stack([*result.values()])
        return graph, inputs, [*result], outputs
