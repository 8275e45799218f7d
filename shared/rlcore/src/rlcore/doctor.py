"""What is installed, whether it works, and what to do if not. Every import happens in a child: a crash is a finding."""

from __future__ import annotations

import contextlib
import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

GIB = 2**30
NEEDED = dict(numpy="1.26", torch="2.11", gymnasium="0.29.1", tyro="1.0", rich="13", yaml="6", matplotlib="3.8")  # noqa: C408
RECREATE = "parts of another mujoco were left behind: recreate the environment (delete .venv, then `make`)"
TORCH = (
    "f'cuda {torch.cuda.is_available()}, threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}'"
)
RENDER = "mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16)"
CHILD = """import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
name = sys.argv[2]
module = globals()[name] = importlib.import_module(name)
print("\\n" + json.dumps([str(getattr(module, "__version__", "")), str(module.__file__), str(eval(sys.argv[3]))]))"""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation."""

    json: bool = False  # Print JSON.
    env: str | None = None  # An environment to check as well.


@dataclass(frozen=True)
class Check:
    """One finding, and what to do about it."""

    level: Literal["ok", "warn", "fail"]
    what: str
    advice: str = ""


def _judge(fine: bool, what: str, advice: str, otherwise: Literal["warn", "fail"] = "fail") -> Check:
    return Check("ok", what) if fine else Check(otherwise, what, advice)


def check(
    package: str,
    extras: Mapping[str, Sequence[str]],
    run_checks: Sequence[Callable[[], Check]] = (),
    folder: Path = Path("experiments"),
) -> list[Check]:
    """All findings about `package`. `extras`: the modules each extra brings; `folder`: where its runs go."""
    python = ".".join(map(str, sys.version_info[:3]))
    checks = [_judge(sys.version_info >= (3, 11), f"Python {python}", "3.11 or newer is needed")]
    checks += [_ours(name) for name in dict.fromkeys((package, "rlcore"))]
    for name, floor in NEEDED.items():
        checks.append(_module(name, f"pip install '{'pyyaml' if name == 'yaml' else name}>={floor}'", floor))
    checks += _machine(folder)
    for extra, modules in extras.items():
        install = f"in a checkout: uv pip install './packages/{package}[{extra}]'"
        if absent := [name for name in modules if not _found(name)]:
            checks.append(Check("ok", f"extra {extra} is not installed ({', '.join(absent)})", f"if wanted, {install}"))
        else:
            checks += [_module(name, install) for name in modules]
    if _found("mujoco"):
        checks.append(_mujoco())
    if _found("wandb"):
        netrc = Path.home() / ".netrc"
        key = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(errors="replace"))
        checks.append(Check("ok", f"wandb key: {'set' if key else 'not set, so --wandb online records offline'}"))
    return checks + [run() for run in run_checks]


def report(checks: Sequence[Check], as_json: bool = False) -> int:
    """Print the findings; returns the exit code: 5 when something needed is broken."""
    if as_json:
        print(json.dumps([asdict(item) for item in checks], indent=2))
    for item in () if as_json else checks:
        print(f"{item.level:5} {item.what}" + (f"\n      {item.advice}" if item.advice else ""))
    return 5 if any(item.level == "fail" for item in checks) else 0


def probe(module: str, expression: str = "''", **env: str) -> tuple[bool, list[str]]:
    """Import `module` in a child: True, [version, file, value of `expression`], or False, [what went wrong]."""
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), module, expression]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=120, env={**os.environ, **env}
        )
        if child.returncode == 0:
            return True, list(json.loads(child.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return False, ["the import does not end within 120 s"]
    except (ValueError, IndexError):
        return False, ["the import ends Python"]
    if child.returncode < 0:
        return False, [f"the import crashes Python (signal {-child.returncode})"]
    return False, [
        (child.stderr.strip().splitlines() or [f"the import ends Python (code {child.returncode})"])[-1][:200]
    ]


def _module(name: str, advice: str, floor: str = "0") -> Check:
    """Whether `name` imports and is at least version `floor`."""
    works, (first, *more) = probe(name, TORCH if name == "torch" else "''")
    if not works:
        return Check("fail", f"{name}: {first}", advice)
    numbers, least = ([int(n) for n in re.findall(r"\d+", text.partition("+")[0])[:3]] for text in (first, floor))
    if numbers and numbers < least:
        return Check("fail", f"{name} {first} is older than {floor}", advice)
    return Check("ok", " ".join(filter(None, (name, first, more[1]))))


def _found(name: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(name) is not None
    return False


def _ours(name: str) -> Check:
    """Strangers own packages of our names on the public registry: is the one that Python finds ours?"""
    works, (first, *more) = probe(name)
    where = "shared" if name == "rlcore" else "packages"
    advice = f"pip uninstall {name}; then in a checkout: uv pip install ./{where}/{name}"
    if not works or not first:  # ours says its version
        return Check("fail", f"{name}: {first or f'{more[0]} is a package of the same name by somebody else'}", advice)
    what = f"{name} {first} in {Path(more[0]).parent}"
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return Check("ok", f"{what}, on the path only")
    ours = any(line.startswith("tyro" if name == "rlcore" else "rlcore") for line in installed.requires or [])
    beside = f"{what}, but {name} {installed.version}{'' if ours else ' by somebody else'} is installed as well"
    return Check("ok", what) if ours and installed.version == first else Check("warn", beside, advice)


def _machine(folder: Path) -> list[Check]:
    """Whether runs can be written to `folder`, and how much disk and memory are free."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            checks = [Check("ok", f"{place} takes new runs")]
    except OSError as error:
        checks = [Check("fail", f"{place} takes no runs: {error.strerror}", "give access, or choose another --dir")]
    disk = shutil.disk_usage(place).free / GIB
    checks.append(_judge(disk > 1, f"{disk:.1f} GiB of disk free", "make room for checkpoints", "warn"))
    with contextlib.suppress(OSError, IndexError):  # Linux only
        free = re.findall(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        memory = int(free[0]) * 1024 / GIB
        checks.append(_judge(memory > 1, f"{memory:.1f} GiB of memory free", "choose a smaller replay buffer", "warn"))
    return checks


def _mujoco() -> Check:
    """mujoco 4 keeps its library in mujoco-core: going back to 3 in place leaves that behind, and imports may die."""
    versions: dict[str, str] = {}
    for name in ("mujoco", "mujoco-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    works, (first, *_) = probe("mujoco")
    if len(set(versions.values())) > 1:
        return Check("fail", " beside ".join(f"{name} {version}" for name, version in versions.items()), RECREATE)
    if not works:
        return Check("fail", f"mujoco: {first}", RECREATE if "libmujoco" in first else "install mujoco again")
    drawing = next((b for b in ("egl", "osmesa") if probe("mujoco", RENDER, MUJOCO_GL=b)[0]), None)
    advice = "for videos: apt install libosmesa6 (training needs none)"
    return _judge(drawing is not None, f"mujoco {first}: rendering by {drawing or 'nothing'}", advice, "warn")
