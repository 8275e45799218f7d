"""The CPU's own layers against torch's: values, gradients, extremes, and where they must not be used."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from prismatic import cpu
from prismatic.layers import Linear, NormedLinear, StackedLinear, StackedNormedLinear, mish, simnorm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("act", "reference"), [(cpu.Mish, F.mish), (cpu.SimNorm, simnorm)])
def test_activations_and_their_gradients(act: Any, reference: Any):
    y = torch.linspace(-60, 60, 2_400).view(-1, 16).requires_grad_()
    gradient = torch.randn(y.shape, generator=generator())
    expected = reference(y)
    (slope,) = torch.autograd.grad(expected, y, gradient)
    out, *kept = act.forward(y.detach())
    assert_close(out, expected.detach(), rtol=1e-5, atol=2e-6)
    assert_close(act.backward(gradient, *kept), slope, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("act", [cpu.Mish, cpu.SimNorm])
def test_activations_stay_finite(act: Any):
    y = torch.tensor([[1e4, -1e4, 500.0, -500.0, 90.0, -90.0, 0.0, 1e6]])
    out, *kept = act.forward(y)
    assert out.isfinite().all()
    assert act.backward(torch.ones_like(y), *kept).isfinite().all()
    assert act.forward(y * float("nan"))[0].isnan().all()  # not hidden


def test_a_short_softmax_is_torchs():
    x = torch.randn(50, 4, generator=generator()) * 30
    x[:4] = torch.tensor(
        [[1e5, 0.0, -1e5, 1e5], [-3e38, -3e38, -3e38, 3e38], [-1e9] * 4, [float("nan"), 0.0, 0.0, 0.0]]
    )
    with torch.no_grad():
        assert_close(cpu.softmax(x), x.softmax(-1), rtol=1e-6, atol=1e-7, equal_nan=True)
    wanted = x.clone().requires_grad_()
    assert cpu.softmax(wanted).requires_grad


def layers() -> dict[str, tuple[torch.nn.Module, tuple[int, ...]]]:
    g = generator()
    return {
        "linear": (Linear(7, 5, g), (3, 4, 7)),
        "one output": (Linear(7, 1, g), (4, 7)),
        "one input": (NormedLinear(1, 16, mish, g), (4, 1)),
        "mish": (NormedLinear(7, 16, mish, g), (3, 4, 7)),
        "simnorm": (NormedLinear(7, 16, simnorm, g), (4, 7)),
        "stack, shared": (StackedNormedLinear(3, 7, 16, g), (4, 7)),
        "stack": (StackedNormedLinear(3, 7, 16, g), (3, 4, 7)),
        "heads": (StackedLinear(3, 7, 5, g), (3, 4, 7)),
    }


@pytest.mark.parametrize("name", layers())
def test_layers_do_what_torch_does(name: str, monkeypatch: pytest.MonkeyPatch):
    layer, shape = layers()[name]
    with torch.no_grad():
        for p in layer.parameters():
            p += torch.randn(p.shape, generator=generator(1))
    x = torch.randn(shape, generator=generator(2)).requires_grad_()
    results: list[list[Tensor]] = []
    for usable in (True, False):
        monkeypatch.setattr(cpu, "HAS_ONEDNN", usable and cpu.HAS_ONEDNN)
        out = layer(x)
        gradient = torch.randn(out.shape, generator=generator(3))
        with torch.no_grad():
            assert_close(layer(x), out.detach(), rtol=1e-5, atol=1e-5)  # the pass without a graph is another one
        results.append([out, *torch.autograd.grad(out, [x, *layer.parameters()], gradient)])
    for fast, plain in zip(*results):
        assert_close(fast, plain, rtol=1e-4, atol=2e-5)


def test_dropout_acts_between_product_and_norm(monkeypatch: pytest.MonkeyPatch):
    layer, x = StackedNormedLinear(2, 7, 16, generator()), torch.randn(4, 7, generator=generator(1))
    dropped = torch.randint(2, (2, 4, 16), generator=generator(2)) / 0.9
    fast = layer(x, dropped=dropped)
    monkeypatch.setattr(cpu, "HAS_ONEDNN", False)
    assert_close(fast, layer(x, dropped=dropped), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(fast, layer(x))


def test_they_are_left_alone_under_autocast_and_in_other_types():
    x = torch.zeros(2, 3)
    assert cpu.usable(x) == cpu.HAS_ONEDNN
    assert not cpu.usable(x.double())
    assert not cpu.usable(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not cpu.usable(x)


FAULTS = """
import resource, torch
from prismatic import cpu
cpu.reuse_memory()
for _ in range(50):
    torch.ones(1_000_000)
    if _ == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
cpu.return_memory()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such limits")
def test_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500  # 977 pages each, or 38,000 in all, without
