"""A small command line, treated well and badly: layers, spellings, exit codes, and one line for every error."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from rlcore.config import RunConfig, from_dict, to_dict

TOY = """
from __future__ import annotations
import os, signal, sys, time, warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar
import tyro
from rlcore import cli, errors
from rlcore.config import RunConfig

@dataclass(frozen=True)
class Net:
    lr: float = 1e-3  # The step size.
    layers: tuple[int, ...] = (64, 64)
    norm: bool = True

@dataclass(frozen=True, kw_only=True)
class Train(RunConfig):
    task: Annotated[str, tyro.conf.arg(aliases=("--env",))] = "easy"  # What to learn.
    eta: float | None = None  # How fast.
    net: Net = field(default_factory=Net)

    def __post_init__(self):
        super().__post_init__()
        if self.eta is not None and self.eta > 1:
            raise errors.UsageError(f"eta: must be at most 1, got {self.eta}")

@dataclass(frozen=True, kw_only=True)
class Practise(Train):
    PRESETS: ClassVar[dict[str, dict[str, int]]] = {"brief": {"seed": 4}}

@dataclass(frozen=True, kw_only=True)
class Show:
    run: tyro.conf.Positional[Path]  # Which run.
    size: int = 3
    debug: bool = False

@dataclass(frozen=True, kw_only=True)
class Break:
    PRESETS: ClassVar[dict[str, dict[str, str]]] = {"cry": {"how": "warn"}}
    how: str = ""
    debug: bool = False

SEEN = []

def train(cfg):
    SEEN.append(cfg)

def show(cfg):
    SEEN.append(cfg)
    return 7

def quit_(cfg):
    print("\\n" * 100_000)

def fail(cfg):
    if cfg.how == "warn":
        warnings.warn("mind the gap", errors.QuintetWarning)
    elif cfg.how == "preempt":
        raise errors.Preempted("saved at step 3")
    elif cfg.how == "interrupt":
        raise KeyboardInterrupt
    elif cfg.how == "missing":
        import no_such_simulator
    elif cfg.how == "disk":
        raise OSError(28, "No space left on device", "runs/a")
    elif cfg.how == "pipe":
        raise BrokenPipeError(32, "Broken pipe")  # a worker's, not standard output
    else:
        raise ZeroDivisionError("division\\nby zero")

VERBS = {
    "train": ("Learn.", "toycli:Train", "toycli:train"),
    "practise": ("Learn again.", "toycli:Practise", "toycli:train"),
    "show": ("Look.", "toycli:Show", "toycli:show"),
    "break": ("Fail.", "toycli:Break", "toycli:fail"),
    "plot training": ("Draw curves.", "toycli:Show", "toycli:show"),
    "plot memory": ("Draw states.", "toycli:Show", "toycli:show"),
    "flood": ("Print.", "toycli:Break", "toycli:quit_"),
    "gone": ("Import what is not there.", "toycli:Break", "no_such_module:run"),
}
PRESETS = {"fast": {"eta": 0.5, "net": {"lr": 3}, "eval-every": 7}, "slow": {"seed": 9}, "broken": {"etta": 1}}

def main(argv):
    suits = lambda cfg: "fast" if cfg.task == "maze" else None
    return cli.dispatch("toy", VERBS, argv, version="1.2.3", presets=PRESETS, auto_preset=suits)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toycli.py").write_text(TOY)
    return folder


@pytest.fixture
def toy(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("toycli")
    module.SEEN.clear()
    return module


@pytest.fixture
def train(toy):
    """Parse `toy train ...` and return the configuration that reached the verb."""

    def call(*words):
        toy.SEEN.clear()
        assert toy.main(["train", *words]) == 0
        return toy.SEEN[-1]

    return call


@pytest.fixture
def refused(toy, capsys):
    """Run a command that must fail; returns its code and its one line."""

    def call(*words):
        capsys.readouterr()
        code = toy.main(list(words))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return code, lines[0]

    return call


def shell(folder, code, *words, **more):
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
        **more,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--net.lr", "0.5", "--seed", "3", "--quiet", "--net.no-norm"],
        ["--net.lr=0.5", "--seed=3", "--quiet=true", "--net.norm=false"],
        ["net.lr=0.5", "seed=3", "quiet=True", "net.norm=false"],
        ["--seed", "3", "net.lr=5e-1", "--quiet", "net.norm=false"],
    ],
)
def test_spellings_agree(train, toy, words):
    assert train(*words) == toy.Train(seed=3, quiet=True, net=toy.Net(lr=0.5, norm=False))


def test_nested_booleans_none_and_lists(train, toy):
    assert train("net.norm=false").net == toy.Net(norm=False)
    assert train("--net.no-norm").net == toy.Net(norm=False)
    assert train("net.norm=false", "net.norm=true").net == toy.Net(norm=True)
    assert train("--preset", "fast", "eta=null").eta is None
    assert train("eta=-0.5").eta == -0.5
    assert train("net.layers=[1,2]").net.layers == train("--net.layers", "1", "2").net.layers == (1, 2)
    assert train("net.layers=[]").net.layers == ()
    assert train("--env", "a=b").task == "a=b"  # the value of an alias
    assert train("--task", "seed=4") == toy.Train(task="seed=4")
    assert train("--log_every", "3").log_every == 3


def test_order_is_defaults_preset_file_flags(train, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("eta = 0.25\neval-every = 11\n")
    cfg = train("--preset", "fast", "--config", str(file), "eta=0.125")
    assert (cfg.eta, cfg.eval_every, cfg.net.lr, cfg.net.layers) == (0.125, 11, 3.0, (64, 64))
    assert train("preset=fast", f"config={file}").eta == 0.25
    second = tmp_path / "d.yaml"
    second.write_text("eta: 0.75\n")
    assert train("--config", str(file), "--config", str(second)).eta == 0.75


def test_what_is_no_run_may_have_presets_of_its_own(toy, capsys):
    assert toy.main(["break", "--preset", "cry"]) == 0
    assert capsys.readouterr().err == "warning: mind the gap\n"
    assert toy.main(["break", "--preset", "fast"]) == 2
    assert "unknown preset 'fast' (known: cry)" in capsys.readouterr().err


def test_a_run_may_have_presets_of_its_own(toy, capsys):
    assert toy.main(["practise", "--preset", "brief", "--task", "maze"]) == 0
    assert (toy.SEEN[-1].seed, toy.SEEN[-1].eta) == (4, None)  # nor does the preset that suits others get in
    assert toy.main(["practise", "--preset", "fast"]) == 2
    assert "unknown preset 'fast' (known: brief)" in capsys.readouterr().err


def test_the_longest_verb_is_the_one_that_is_meant(toy, monkeypatch):
    monkeypatch.setitem(toy.VERBS, "plot memory whole", toy.VERBS["practise"])
    assert toy.main(["plot", "memory", "whole", "--preset", "brief"]) == 0
    assert toy.SEEN[-1].seed == 4
    assert toy.main(["plot", "memory", "half"]) == 7  # a run called half


def test_the_preset_that_suits_is_found_and_can_be_declined(train, tmp_path):
    assert train("task=maze").eta == 0.5
    assert train("task=maze", "eta=0.1").eta == 0.1
    assert train("task=maze", "--preset", "none").eta is None
    assert train("task=maze", "--preset", "slow") == replace(train("task=maze", "preset=none"), seed=9)
    (tmp_path / "c.json").write_text('{"task": "maze"}')
    assert train("--config", str(tmp_path / "c.json")).eta == 0.5


def test_required_values_may_come_from_a_file(toy, tmp_path):
    (tmp_path / "c.yaml").write_text("size: 5\n")
    assert toy.main(["show", "there", "--config", str(tmp_path / "c.yaml")]) == 7
    assert toy.SEEN[-1] == toy.Show(run=Path("there"), size=5)
    assert toy.main(["plot", "training", "here", "--debug"]) == 7


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "toy: error: unknown command 'trian'; did you mean train? (see `toy --help`)"),
        (["plot", "trainin"], 2, "toy: error: unknown command 'plot trainin'; did you mean plot training?"),
        (["train", "--sede", "1"], 2, "toy train: error: Unrecognized options: --sede, 1; did you mean --seed?"),
        (["train", "sede=1"], 2, "did you mean --seed?"),
        (["train", "--seed", "x"], 2, "toy train: error: Error parsing --seed: invalid literal"),
        (["train", "--seed"], 2, "Missing value for argument '--seed'"),
        (["train", "--resume", "q"], 2, "Expected one of ('auto', 'never', 'must')"),
        (["train", "--quiet=7"], 2, "toy train: error:"),
        (["train", "eta=2"], 2, "toy train: error: eta: must be at most 1, got 2.0"),
        (["train", "eta=nan"], 2, "command line: eta: expected a finite number, got nan"),
        (["train", "seed=-1"], 2, "toy train: error: seed: must be in"),
        (["train", "--preset", "fsat"], 2, "unknown preset 'fsat'; did you mean fast? (known: fast, slow, broken)"),
        (["train", "--preset", "broken"], 2, "preset broken: unknown key 'etta'; did you mean eta?"),
        (["train", "--preset"], 2, "--preset needs a value"),
        (["train", "--config", "no.toml"], 2, "no.toml: No such file or directory"),
        (["show"], 2, "toy show: error: Missing from toy show: PATH"),
        (["show", "r", "--preset", "fast"], 2, "unknown preset 'fast' (known: none for this command)"),
        (["break", "how=preempt"], 85, "toy break: stopped: saved at step 3"),
        (["break", "how=interrupt"], 130, "toy break: interrupted"),
        (["break", "how=missing"], 5, "No module named 'no_such_simulator' (`toy doctor` looks for what is missing)"),
        (["break", "how=disk"], 5, "[Errno 28] No space left on device: 'runs/a'"),
        (["break", "how=pipe"], 5, "Broken pipe"),
        (["break"], 1, "internal error: ZeroDivisionError: division by zero (run with --debug for the traceback)"),
        (["gone"], 5, "No module named 'no_such_module'"),
        (["train", "name=\udcff"], 2, "toy train: error: name"),
    ],
)
def test_every_error_is_one_line_with_its_code(refused, words, code, said):
    got, line = refused(*words)
    assert (got, said in line) == (code, True), line


def test_a_terminal_with_colours_and_few_columns_changes_no_message(refused, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    _, line = refused("train", "--sede", "1")
    assert line.startswith("toy train: error: Unrecognized options: --sede, 1; did you mean --seed?")


def test_debug_shows_where(toy):
    with pytest.raises(ZeroDivisionError):
        toy.main(["break", "--debug"])


def test_a_warning_is_one_line(folder):
    done = shell(folder, "import sys, toycli; sys.exit(toycli.main(sys.argv[1:]))", "break", "how=warn")
    assert (done.returncode, done.stderr) == (0, "warning: mind the gap\n")


def test_listing(toy, capsys):
    assert toy.main([]) == 2
    assert "plot memory    Draw states." in capsys.readouterr().err
    assert toy.main(["--help"]) == 0
    assert "train          Learn." in capsys.readouterr().out
    assert toy.main(["plot"]) == 2
    shown = capsys.readouterr().err
    assert "plot training" in shown
    assert "Learn." not in shown
    assert toy.main(["--version"]) == 0
    assert capsys.readouterr().out == "toy 1.2.3\n"


def test_a_verbs_help_tells_options_presets_and_docs(toy, capsys):
    assert toy.main(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "--net.lr FLOAT The step size.",
        "--preset NAME",
        "fast, slow",
        "--config FILE",
        "--env",
        "Decides every random draw",
    ):
        assert part in shown, part
    assert not toy.SEEN


def test_every_common_option_has_a_help_text(toy, capsys):
    toy.main(["train", "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    undocumented = [
        line
        for line, below in itertools.pairwise(lines)
        if line.startswith("--") and "  " not in line and below.startswith("(default")
    ]
    assert undocumented == ["--net.layers [INT [INT ...]]", "--net.norm, --net.no-norm"]


def test_help_and_parsing_import_nothing_heavy(folder):
    code = """
        import sys, toycli
        toycli.main(sys.argv[1:])
        print(sorted({"torch", "matplotlib", "gymnasium", "rich", "wandb", "numpy", "imageio"} & set(sys.modules)))
    """
    for words in (["--help"], ["train", "--help"], ["gone", "--help"], ["train"]):
        done = shell(folder, textwrap.dedent(code), *words)
        assert done.stdout.splitlines()[-1:] == ["[]"]
        assert done.stderr == ""  # the module of `gone` is not there, and was not asked for
    done = shell(folder, "import sys, rlcore.cli; print('tyro' in sys.modules, 'yaml' in sys.modules)")
    assert done.stdout == "False False\n"


def test_a_reader_that_leaves_is_no_error(folder):
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys, toycli; sys.exit(toycli.main(['flood']))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )
    assert child.stdout is not None
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (141, b"")


# Mutated input: 0 and a value that survives a round trip, or 2 and one line. Never a traceback.

FILES = {
    "yaml": "seed: 3\neta: 1.0e-1\nname: a\nquiet: true\nlog_every: 5\nnet:\n  lr: 0.1\n  layers: [1, 2]\n",
    "toml": 'seed = 3\neta = 1e-1\nname = "a"\nquiet = true\nlog_every = 5\n[net]\nlr = 0.1\nlayers = [1, 2]\n',
    "json": '{"seed": 3, "eta": 0.1, "name": "a", "quiet": true, "log_every": 5, "net": {"lr": 0.1, "layers": [1, 2]}}',
}
JUNK = [
    b"nan",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"\xff\xfe",
    b"\x00",
    b"[[[[",
    b"{",
    b"'",
    b"!!python/name:os.system ",
    b"&a *a",
]
JUNK += [
    b"null",
    b"true",
    b'"x"',
    b"-1",
    b"2020-01-01",
    b"1:30",
    b"0x10",
    b"",
    b"zzz: 1",
    b"zzz = 1",
    b"\r\n\t",
    b"${seed}",
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return {
        "truncate": lambda: data[:at],
        "flip": lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        "insert": lambda: data[:at] + rng.choice(JUNK) + data[at:],
        "replace": lambda: data[:at] + rng.choice(JUNK) + data[at + rng.randrange(8) :],
        "repeat": lambda: data[:at] + data,
    }[rng.choice(["truncate", "flip", "insert", "replace", "replace", "repeat"])]()


def accepted_or_explained(toy, capsys, words):
    toy.SEEN.clear()
    capsys.readouterr()
    code = toy.main(words)
    said = capsys.readouterr().err.splitlines()
    if code == 0 and toy.SEEN:
        assert (
            from_dict(toy.Train, json.loads(json.dumps(to_dict(toy.SEEN[0]), allow_nan=False)), "again") == toy.SEEN[0]
        )
    elif code != 0:
        assert (code, len(said)) == (2, 1), (words, code, said)
        assert "internal error" not in said[0]
        assert len(said[0]) < 600
    return code


@pytest.mark.parametrize("kind", FILES)
def test_100_mutated_files(toy, capsys, tmp_path, kind):
    rng, path, codes = random.Random(kind), tmp_path / f"c.{kind}", []
    for _ in range(100):
        path.write_bytes(mutate(FILES[kind].encode(), rng))
        codes.append(accepted_or_explained(toy, capsys, ["train", "--config", str(path)]))
    assert 20 < codes.count(2) < 100  # the mutations do bite, and not always


def test_100_mutated_command_lines(toy, capsys):
    rng, codes = random.Random(0), []
    words = ["train", "--seed", "3", "eta=0.1", "--net.lr=0.2", "net.layers=[1,2]", "--quiet", "name=a", "--env", "x"]
    for _ in range(100):
        line = list(words)
        for _ in range(rng.choice([1, 2])):
            at = rng.randrange(1, len(line))
            line[at : at + 1] = rng.choice(
                [[], [""], [line[at], line[at]], ["--"], ["-x"], ["--help="], ["=3"], ["a.b.c=1"], ["--net"], ["net=1"]]
                + [[os.fsdecode(mutate(os.fsencode(line[at]) or b"x", rng))]] * 10
            )
        codes.append(accepted_or_explained(toy, capsys, line))
    assert 20 < codes.count(2) < 100


def test_the_table_of_common_options_is_frozen():
    """Users' scripts rely on these names: removing one is a breaking change."""
    assert list(to_dict(RunConfig())) == [
        *("name", "dir", "seed", "device", "threads", "resume", "overwrite", "log_every", "eval_every", "save_every"),
        *("keep_checkpoints", "keep_every", "on_save_error", "wandb", "tensorboard", "quiet", "debug"),
    ]
