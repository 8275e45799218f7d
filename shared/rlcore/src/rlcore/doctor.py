"""What is installed, whether it works, and what to do if not. Every import happens in a child: a crash is a finding."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rlcore.errors import EnvironmentProblem, renderer_fix

NEEDED = dict(numpy="1.26", torch="2.11", gymnasium="0.29.1", tyro="1.0", rich="13", yaml="6", matplotlib="3.8")  # noqa: C408
RECREATE = "parts of another mujoco were left behind: recreate the environment (delete .venv, then `make`)"
TORCH = "f'cuda {torch.cuda.is_available()}, threads {torch.get_num_threads()}'"
RENDER = "mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16)"
CHILD = """import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
name = sys.argv[2]
module = globals()[name] = importlib.import_module(name)
print("\\n" + json.dumps([str(getattr(module, "__version__", "")), str(module.__file__), str(eval(sys.argv[3]))]))"""


@dataclass(frozen=True)
class Check:
    """One finding, and what to do about it."""

    level: Literal["ok", "warn", "fail"]
    what: str
    advice: str = ""


def check(
    package: str, extras: Mapping[str, Sequence[str]], run_checks: Sequence[Callable[[], Check]] = ()
) -> list[Check]:
    """All findings about `package`. `extras`: the modules each extra brings."""
    checks = [Check("ok", f"Python {platform.python_version()}"), *map(_ours, dict.fromkeys((package, "rlcore")))]
    for name, floor in NEEDED.items():
        checks.append(_module(name, f"pip install '{'pyyaml' if name == 'yaml' else name}>={floor}'", floor))
    for extra, modules in extras.items():
        install = f"in a checkout: uv pip install './packages/{package}[{extra}]'"
        absent = Check("ok", f"extra {extra} is not installed ({', '.join(modules)})", f"if wanted, {install}")
        checks += [_module(name, install) for name in modules] if all(map(find_spec, modules)) else [absent]
    if find_spec("mujoco"):
        checks.append(_mujoco())
    return checks + [run() for run in run_checks]


def report(checks: Sequence[Check], as_json: bool = False) -> int:
    """Print the findings; returns the exit code: 5 when something needed is broken."""
    if as_json:
        print(json.dumps([asdict(item) for item in checks], indent=2))
    else:
        print(*(f"{c.level:5} {c.what}" + (f"\n      {c.advice}" if c.advice else "") for c in checks), sep="\n")
    return EnvironmentProblem.exit_code if any(item.level == "fail" for item in checks) else 0


def probe(module: str, expression: str = "''", **env: str) -> tuple[bool, list[str]]:
    """Import `module` in a child: True, [version, file, value of `expression`], or False, [what went wrong]."""
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), module, expression]
    try:
        child = subprocess.run(command, capture_output=True, errors="replace", timeout=120, env=os.environ | env)
    except subprocess.TimeoutExpired:
        return False, ["the import does not end within 120 s"]
    code, said = child.returncode, child.stderr if child.returncode else child.stdout
    last = said.rstrip().rpartition("\n")[2]
    if code == 0 and last.startswith("["):
        return True, list(json.loads(last))
    end = f"crashes Python (signal {-code})" if code < 0 else f"ends Python (code {code})"
    return False, [last[:200] if code > 0 and last else f"the import {end}"]


def _module(name: str, advice: str, floor: str = "0") -> Check:
    """Whether `name` imports and is at least version `floor`."""
    works, (first, *more) = probe(name, TORCH if name == "torch" else "''")
    if not works:
        return Check("fail", f"{name}: {first}", advice)
    numbers, least = ([int(n) for n in re.findall(r"\d+", text.partition("+")[0])[:3]] for text in (first, floor))
    if numbers and numbers < least:
        return Check("fail", f"{name} {first} is older than {floor}", advice)
    return Check("ok", " ".join(filter(None, (name, first, more[1]))))


def _version(name: str) -> str | None:
    return next((found.version for found in metadata.distributions(name=name)), None)


def _ours(name: str) -> Check:
    """Strangers own packages of our names on the public registry: is the one that Python finds ours?"""
    works, (first, *more) = probe(name)
    where = "shared" if name == "rlcore" else "packages"
    advice = f"pip uninstall {name}; then in a checkout: uv pip install ./{where}/{name}"
    if not works or not first:  # ours says its version
        return Check("fail", f"{name}: {first or f'{more[0]} is a package of the same name by somebody else'}", advice)
    what = f"{name} {first} in {Path(more[0]).parent}"
    installed = _version(name)
    if installed in (None, first):
        return Check("ok", what if installed else f"{what}, on the path only")
    return Check("warn", f"{what}, but {name} {installed} is installed as well", advice)


def _mujoco() -> Check:
    """mujoco 4 keeps its library in mujoco-core: going back to 3 in place leaves that behind, and imports may die."""
    versions = {name: version for name in ("mujoco", "mujoco-core") if (version := _version(name))}
    if len(set(versions.values())) > 1:
        return Check("fail", " beside ".join(f"{name} {version}" for name, version in versions.items()), RECREATE)
    works, (first, *_) = probe("mujoco")
    if not works:
        again = RECREATE if "libmujoco" in first else "install mujoco again"
        return Check("fail", f"mujoco: {first}", renderer_fix(first) or again)
    for backend in ("egl", "osmesa"):
        if probe("mujoco", RENDER, MUJOCO_GL=backend)[0]:
            return Check("ok", f"mujoco {first}: rendering by {backend}")
    return Check("warn", f"mujoco {first}: no rendering", "for videos: apt install libosmesa6 (training needs none)")
