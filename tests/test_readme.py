"""The documentation is true: its commands and Python blocks run, its names and links exist, its tables are current.

    ```sh        every line is run in order, in a folder of the page's own (see `run_line` for what "run" means)
    ```python    is executed there
    any block whose first line is `# name.ext` is first written to that file

Blocks without a language, or with `text`, are not looked at.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.errors import QuintetError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("*/*/README.md"))]
METHODS = sorted(p.parent.name for p in ROOT.glob("packages/*/pyproject.toml"))
MEMBERS = {p.parent.name: p.parent.relative_to(ROOT) for p in ROOT.glob("*/*/pyproject.toml")}

# Literal replacements that make what is written short. Applied to every line and every written file.
SHORTER = {
    "mpn train": "mpn train --preset debug",
    "prismatic train --preset cpu": "prismatic train --preset debug",
    "prismatic train --preset mt4": "prismatic train --preset debug --task mt4",
    "--steps 30000": "--steps 60 --dir logs",
    "--steps 48000": "--steps 80",
    "prismatic eval": "prismatic eval --episodes 1",
    "prismatic bench --preset cpu": "prismatic bench",
    "prismatic bench": "prismatic bench --preset debug --seconds 0.01",
    "toy train --preset toy1d-cpu": "toy train --preset debug",
    "bench toy --seeds 0-4 --workers 2": "bench toy --preset debug --seeds 0 --arms none oracle",
    "low train": "low train --preset debug",
    "low eval": "low eval --repeats 1",
    "transfer reuse": "transfer reuse --preset debug",
    "eval video": "eval video --steps 2",
    "data collect maze": "data collect toy --transitions 600",
    "skills train --preset maze/gasp": "skills train --preset debug",
    "skills train --preset maze/spirl": "skills train --preset debug --latent-prior gaussian",
    "rl train --preset maze/gasp": "rl train --preset debug",
    "rl train --preset maze/spirl": "rl train --preset debug --latent-prior gaussian",
    "rl train --preset maze/none": "rl train --preset debug --agent.regulariser entropy",
    "rl eval": "rl eval --episodes 2",
    "collective pipeline --benchmark mt5": "collective pipeline --preset debug",
    "collective record --preset cpu --benchmark mt5": "collective record --preset debug",
    "collective record --benchmark mt5 --policy mixed --p-scripted 0.6": "collective record --preset debug",
    "collective train-encoder --preset cpu": "collective train-encoder --preset debug",
    "collective distill --preset cpu": "collective distill --preset debug",
    "collective evaluate": "collective evaluate --episodes 2 --horizon 10 --quiet",
    "collective video": "collective video --help",  # needs a graphics library
    "train-student --preset cpu --task window-open-v3": "train-student --preset debug --task toy-push",
    "train-worker --preset cpu --tasks reach-v3": "train-worker --preset debug --tasks toy-reach",
    "compare-students": "compare-students --first 240",
    "finetune --preset cpu --task faucet-open-v3": "finetune --preset debug --task toy-lift",
    "main.py train": "main.py train --preset debug",
    "data collect kitchen --episodes 600": "data collect kitchen --episodes 3",
    "skills train --preset kitchen/gasp": "skills train --preset debug",
    "rl train --preset kitchen/gasp": "rl train --preset debug --task kitchen --num-envs 2 --steps 40 --warmup 20 "
    "--eval-episodes 1",
    "--preset tmaze": "--preset debug",
    "--total-steps 200000": "--total-steps 960",
    "total-steps = 20_000": "",
    "seed = [0, 1]": "seed = [0]",
    "python -m benchmarks --readme": "python -m benchmarks --list",  # would rewrite the README under test
    "python -m benchmarks --tier": "python -m benchmarks --list --tier",
    "python -m benchmarks.micro": "python -m benchmarks.micro --help",
    "python -m pytest": "python -m pytest --collect-only -q",
    "python docs/options.py": "python -m py_compile docs/options.py",  # would rewrite the pages
    "faults/interrupt.py": "faults/interrupt.py --help",
    "faults/longrun.py mpn 1000000": "faults/longrun.py mpn 1000",
    "faults/longrun.py prismatic 100000": "faults/longrun.py prismatic 80",
}
HARMLESS = {"source .venv/bin/activate"}  # the product's own Python is what runs this test
# The forms that tests/test_install.py and the lock files stand for: only files and folders of this checkout.
WHEELS = re.compile(r"pip install((?: dist/\w+-1\.0\.0-py3-none-any\.whl)+)")
FOLDERS = re.compile(r"(?:uv )?pip install((?: '?\./\w+/\w+(?:\[[\w,-]+\])?'?)+)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def shorter(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def lines(text: str) -> list[str]:
    """Commands of a sh block, without comments; a backslash joins two lines."""
    joined = (shlex.join(shlex.split(line, comments=True)) for line in text.replace("\\\n", " ").splitlines())
    return [line for line in joined if line]


def run_line(line: str, folder: Path) -> None:
    """Run one documented command in `folder`; AssertionError where it does not exist or fails."""
    words = shlex.split(shorter(line))
    if line in HARMLESS:
        return
    if "pip" in words[:2]:
        check_install(line)
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert targets, line
        done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    elif words[0] in METHODS:
        run_method(words)
    else:
        assert words[0] == "python", f"{line}: this test does not know how to run that"
        own = words[1:2] == ["main.py"] or (words[1] == "-m" and words[2] in METHODS)  # others belong to the checkout
        command = [sys.executable, *words[1:]]
        done = subprocess.run(command, cwd=folder if own else ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def run_method(words: list[str]) -> None:
    """In this process, because importing torch takes longer than all the rest."""
    before, sys.argv = sys.argv, words
    try:
        assert importlib.import_module(f"{words[0]}.cli").main(words[1:]) == 0, shlex.join(words)
    finally:
        sys.argv = before


def check_install(line: str) -> None:
    """An install line takes only what lies in the checkout, and all that it needs; it never asks a registry by name."""
    plain = line.replace("'", "")
    wheels, folders = WHEELS.fullmatch(plain), FOLDERS.fullmatch(plain)
    assert wheels or folders, f"{line}: not one of the forms that are known to work"
    if wheels:
        names = [Path(path).name.split("-")[0] for path in wheels[1].split()]
    else:
        parts = [re.fullmatch(r"\./([^\[]+)(?:\[(.*)\])?", path) for path in folders[1].split()]  # type: ignore[index]
        names = [Path(part[1]).name for part in parts if part]
        for part in parts:
            project = (ROOT / part[1] / "pyproject.toml").read_text()  # type: ignore[index]
            assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in (part[2] or "").split(",") if extra)
    assert set(names) <= MEMBERS.keys(), line
    assert plain.startswith("uv ") or "rlcore" in names, f"{line}: plain pip does not find rlcore by itself"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("main.py", "mpn_dqn.py"):  # the files that lie beside the package
        (tmp_path / name).write_text((ROOT / "packages/mpn" / name).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def follow(page: Path, folder: Path) -> None:
    """Do what a reader would do who types in the whole page."""
    space: dict[str, object] = {"__name__": "page"}
    for language, text in blocks(page):
        if named := re.match(r"# ([\w-]+\.\w+)\n", text):
            (folder / named[1]).write_text(shorter(text))
        if language == "python":
            exec(compile(text, f"{page.name}, a python block", "exec", dont_inherit=True), space)
        for line in lines(text) if language == "sh" else ():
            run_line(line, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_page_says_works(page: Path, folder: Path):
    follow(page, folder)


WRONG = [
    "mpn fly", "mpn train --no-such-option 1", "mpn eval --name nobody", "python -m mpn fly", "python nothing.py",
    "make no-such-target", "pip install mpn", "pip install ./packages/mpn", "uv pip install ./packages/nobody",
    "uv pip install './packages/mpn[nothing]'", "pip install --find-links dist mpn", "frobnicate",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_a_line_that_does_not_work_is_noticed(line: str, folder: Path):
    with pytest.raises((AssertionError, OSError)):
        run_line(line, folder)


def test_prismatics_glossary_names_every_key(folder: Path):
    run_line("prismatic train --preset debug --task toy-reach,toy-cross --name keys", folder)
    rows = [json.loads(line) for line in (folder / "logs/keys/metrics.jsonl").read_text().splitlines()]
    keys = {re.sub("^moe/rew/", "moe/dyn/", key) for row in rows for key in row}
    keys = {re.sub("load_[1-9]$", "load_0", re.sub("^return/.*", "return/TASK", key)) for key in keys}
    page = (ROOT / "docs/prismatic.md").read_text()
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_the_glossary_names_every_key(folder: Path):
    run_line("mpn train --env mpn/TMaze-v0 --name keys", folder)
    run_line("mpn eval --name keys", folder)
    run = folder / "experiments/keys"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {key for row in rows for key in row} | json.loads((run / "eval.json").read_text()).keys()
    keys |= json.loads((run / "training_history.json").read_text()).keys()
    page = (ROOT / "docs/mpn.md").read_text()
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_every_page_exists_that_is_linked_to():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_name_in_the_code_exists():
    """`mpn.plastic.mpn_sequence` is a function there; `tests/x.py::test_y` is a test there; files are files."""
    for page in PAGES:
        for name in re.findall(
            rf"`((?:{'|'.join(METHODS)}|rlcore|rlblocks|benchmarks)(?:\.\w+)+)(?:\(.*?\))?`", page.read_text()
        ):
            parts, depth = name.split("."), 0
            for depth in range(len(parts), 0, -1):
                try:
                    thing = importlib.import_module(".".join(parts[:depth]))
                    break
                except ModuleNotFoundError:
                    continue
            for part in parts[depth:]:
                assert hasattr(thing, part), f"{page.name}: {name}"
                thing = getattr(thing, part)
        for path, test in re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|c|json))(?:::(\w+))?", page.read_text()):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"
            assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{page.name}: {path}::{test}"


def test_generated_tables_are_current():
    """`python docs/options.py` and `python -m benchmarks --readme` bring them up to date."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import readme

        specification = importlib.util.spec_from_file_location("options", ROOT / "docs/options.py")
        options = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
        specification.loader.exec_module(options)  # type: ignore[union-attr]
    finally:
        sys.path.remove(str(ROOT))
    assert readme.page(ROOT / "benchmarks/results") == readme.PAGE.read_text()
    for path in options.PAGES:
        assert options.page(path) == path.read_text()
        assert options.BEGIN in path.read_text()
    assert readme.BEGIN in readme.PAGE.read_text()


def test_exit_codes_are_the_codes():
    """The table in docs/reliability.md is that of rlcore.errors."""
    page = (ROOT / "docs/reliability.md").read_text()
    written = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}
    assert {error.exit_code for error in QuintetError.__subclasses__()} | {0, 1} <= written


def test_no_page_is_empty():
    assert [page.name for page in PAGES if len(page.read_text()) < 500] == []
    assert os.path.getsize(ROOT / "README.md") < 20_000
