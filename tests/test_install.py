"""Each method installs with plain pip, from its own wheel and the shared ones, into an empty environment, and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = sorted(p.name for p in (ROOT / "packages").iterdir() if (p / "pyproject.toml").exists())
# What comes before a first run, and its verb; the others' is train alone.
BEFORE = {"gasp": ["data", "collect", "toy"]}
FIRST_RUN = {
    "taskinfer": ["toy", "train"], "gasp": ["skills", "train", "--data", "data/toy.h5"],
    "collective": ["train-worker", "--tasks", "toy-reach"],
}  # fmt: skip
SCORED_BY = {"mpn": "eval", "prismatic": "eval"}
UV = shutil.which("uv") or str(ROOT / ".tools/bin/uv")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def shared(method: str) -> list[str]:
    """The workspace's shared packages that a method depends on."""
    wanted = tomllib.loads((ROOT / "packages" / method / "pyproject.toml").read_text())["project"]["dependencies"]
    return [name for name in ("rlcore", "rlblocks") if any(line.startswith(f"{name}==") for line in wanted)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder, cwd=ROOT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_installs_alone_with_plain_pip(method: str, wheels: Path, tmp_path: Path):
    """The form that the README gives: the shared wheels and the method's, as files."""
    constraints = tmp_path / "constraints.txt"  # today's versions: a newer torch would be another download of gigabytes
    locks = "".join((ROOT / "locks" / name).read_text() for name in ("base.txt", "torch.txt"))
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9._-]+==[^\\\n]+", locks, re.M)))  # with their markers
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python, command = tmp_path / "venv/bin/python", tmp_path / "venv/bin" / method
    files = [next(wheels.glob(f"{name}-*.whl")) for name in (*shared(method), method)]
    run(python, "-m", "pip", "install", "--quiet", "-c", constraints, *files)
    run(python, "-m", "pip", "check")
    assert "1.0.0" in run(command, "--version")
    if method in BEFORE:
        run(command, *BEFORE[method], cwd=tmp_path)
    run(command, *FIRST_RUN.get(method, ["train"]), "--preset", "debug", "--name", "first", cwd=tmp_path)
    assert [path for deep in ("*", "*/*") for path in tmp_path.glob(f"{deep}/first/checkpoints/final.pt")]
    if method in SCORED_BY:
        run(command, SCORED_BY[method], "--name", "first", cwd=tmp_path)
    run(command, "doctor", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_wheel_names_its_exact_shared_version_and_carries_only_itself(method: str, wheels: Path):
    with zipfile.ZipFile(next(wheels.glob(f"{method}-*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(n for n in names if n.endswith("METADATA"))).decode()
    for name in shared(method):
        assert f"Requires-Dist: {name}==1.0.0" in metadata
    assert {name.split("/")[0] for name in names} == {method, f"{method}-1.0.0.dist-info"}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_works_from_the_source_folders_alone(method: str, tmp_path: Path):
    """On a cluster with its own torch, PYTHONPATH is enough: nothing needs installed metadata."""
    site = [p for p in sys.path if p.endswith("site-packages")]
    sources = [
        *(str(ROOT / "shared" / name / "src") for name in shared(method)),
        str(ROOT / "packages" / method / "src"),
    ]
    code = f"import sys; sys.path[:0] = {sources + site!r}; from {method}.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-S", "-c", code]  # -S: no .pth files, so no editable installs
    assert "1.0.0" in run(*command, "--version", cwd=tmp_path)
    if method in BEFORE:
        run(*command, *BEFORE[method], cwd=tmp_path)
    run(*command, *FIRST_RUN.get(method, ["train"]), "--preset", "debug", "--name", "first", cwd=tmp_path)
