"""Strict dictionaries and files: what is accepted survives a round trip, what is not is one line that says why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcore.config import FREE_ON_RESUME, RunConfig, diff, from_dict, load_file, to_dict
from rlcore.errors import UsageError


@dataclass(frozen=True)
class Net:
    lr: float = 1e-3
    layers: tuple[int, ...] = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    task: str = "CartPole-v1"
    eta: float | None = None
    pair: tuple[int, float] = (1, 2.0)
    words: list[str] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    mode: Literal["a", "b"] | int = "a"
    net: Net = field(default_factory=lambda: Net(lr=0.5))


@dataclass(frozen=True, kw_only=True)
class NeedsRun:
    run: Path
    n: int = 1


def refusal(data: Any, cls: type = Config) -> str:
    with pytest.raises(UsageError) as caught:
        from_dict(cls, data, "file.toml")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_values_arrive_with_their_types():
    data = {
        "log-every": 5,
        "eta": "1e-3",
        "pair": [3, 4],
        "dir": "x/y",
        "net": {"layers": [1]},
        "table": {"k": 1},
        "mode": 7,
    }
    made = from_dict(Config, data, "f")
    expected = Config(
        log_every=5, eta=0.001, pair=(3, 4.0), dir=Path("x/y"), net=Net(lr=0.5, layers=(1,)), table={"k": 1.0}, mode=7
    )  # the nested default keeps what the file leaves out
    assert made == expected
    assert type(made.pair[1]) is float
    assert from_dict(Config, {"wandb": False}, "f").wandb == "off"  # YAML's reading of `wandb: off`


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sead": 1}, "file.toml: unknown key 'sead'; did you mean seed?"),
        ({"net": {"lrr": 1}}, "file.toml: net: unknown key 'lrr'; did you mean lr?"),
        ({"seed": "1"}, "file.toml: seed: expected a whole number, got '1'"),
        ({"seed": True}, "file.toml: seed: expected a whole number, got True"),
        ({"seed": 1.0}, "file.toml: seed: expected a whole number, got 1.0"),
        ({"quiet": 1}, "file.toml: quiet: expected true or false, got 1"),
        ({"eta": float("nan")}, "file.toml: eta: expected a finite number, got nan"),
        ({"eta": 10**400}, "file.toml: eta: expected a finite number"),
        ({"eta": "fast"}, "file.toml: eta: expected a finite number, got 'fast'"),
        ({"eta": False}, "file.toml: eta: expected a finite number, got False"),
        ({"task": 3}, "file.toml: task: expected printable text, got 3"),
        ({"task": "a\0b"}, "file.toml: task: expected printable text"),
        ({"dir": "\ud800"}, "file.toml: dir: expected a path"),
        ({"resume": "maybe"}, "file.toml: resume: expected one of auto, never, must, got 'maybe'"),
        ({"pair": [1]}, "file.toml: pair: expected"),
        ({"net": {"layers": [1, "x"]}}, "file.toml: net: layers[1]: expected a whole number, got 'x'"),
        ({"net": 3}, "file.toml: net: expected keys with values, got 3"),
        ({"table": {"a": "b"}}, "file.toml: table.a: expected a finite number"),
        ([1], "file.toml: expected keys with values, got [1]"),
    ],
)
def test_wrong_values_are_named(data, said):
    assert refusal(data).startswith(said)


def test_a_missing_key_is_named_unless_it_may_be_absent():
    assert refusal({}, NeedsRun) == "file.toml: missing key run"
    assert from_dict(NeedsRun, {}, "f", absent="later").run == "later"


def test_base_supplies_what_data_leaves_out():
    base = Config(seed=3, net=Net(lr=9.0))
    assert from_dict(Config, {"net": {"layers": [2]}}, "f", base) == replace(base, net=Net(lr=9.0, layers=(2,)))


finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    seed=st.integers(0, 2**63 - 1),
    eta=st.none() | finite,
    pair=st.tuples(st.integers(), finite),
    words=st.lists(st.text().filter(str.isprintable)),
    table=st.dictionaries(st.text().filter(str.isprintable), finite),
    mode=st.sampled_from(["a", "b"]) | st.integers(),
    net=st.builds(Net, lr=finite, layers=st.lists(st.integers()).map(tuple)),
)


@given(configs)
def test_json_gives_the_same_configuration_back(config):
    assert from_dict(Config, json.loads(json.dumps(to_dict(config))), "f") == config


@given(configs, configs)
def test_diff_is_empty_for_equal_configurations_alone(one, other):
    assert (diff(to_dict(one), to_dict(other)) == []) == (one == other)


def test_diff_by_hand():
    a = {"eta": 0.05, "net": {"lr": 1, "k": 2}, "old": 1}
    b = {"eta": 0.1, "net": {"lr": 1, "k": 3}, "new": None}
    assert diff(a, b) == ["eta: 0.05 -> 0.1", "net.k: 2 -> 3", "old: 1 -> (absent)", "new: (absent) -> None"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", name) for name in ("a/b", "../x", "", "-x", "a\n", "x" * 129)]
    + [("seed", -1), ("seed", 2**63), ("device", "gpu"), ("device", "cuda:x"), ("threads", 0), ("threads", 10**9)]
    + [(key, 0) for key in ("log_every", "eval_every", "save_every", "keep_checkpoints", "keep_every")],
)
def test_run_config_refuses(key, value):
    with pytest.raises(UsageError, match=key):
        RunConfig(**{key: value})


def test_what_shapes_the_results_may_not_change_on_resume():
    names = {f.name for f in fields(RunConfig)}
    assert names >= FREE_ON_RESUME
    assert names - FREE_ON_RESUME == {"seed", "eval_every", "save_every"}


SAME = {
    "a.yaml": "seed: 3\neta: 1e-3\nnet:\n  layers: [1, 2]\n",
    "a.toml": "seed = 3\neta = 1e-3\n[net]\nlayers = [1, 2]\n",
    "a.json": '{"seed": 3, "eta": 1e-3, "net": {"layers": [1, 2]}}',
}


@pytest.mark.parametrize("name", SAME)
def test_the_formats_agree(name, tmp_path):
    (tmp_path / name).write_text(SAME[name])
    made = from_dict(Config, load_file(tmp_path / name), name)
    assert made == Config(seed=3, eta=0.001, net=Net(lr=0.5, layers=(1, 2)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ini", b"", "expected a .yaml, .toml or .json file"),
        ("a.yaml", b"a: 1\nb: [\n", "line 3"),
        ("a.yaml", b"[1]: 2\n", "unhashable"),
        ("a.yaml", b"!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a.yaml", b'a: !!int ""\n', "index out of range"),
        ("a.yaml", b"- 1\n", "expected keys with values, got [1]"),
        ("a.yaml", b"a: 0x" + b"f" * 9000, "4300"),
        ("a.toml", b"a = 1\nb = \n", "line 2"),
        ("a.toml", b"a = 1\na = 2\n", "line 2"),
        ("a.json", b'{"a": 1,\n "b": }', "line 2"),
        ("a.json", b"[" * 10_000, "recursion"),
        ("a.toml", b"a = " + b"[" * 10_000, "recursion"),
        ("a.yaml", b"[" * 10_000, "recursion"),
        ("a.json", b'{"a": "\xff"}', "can't decode byte 0xff"),
        ("missing/a.json", None, "No such file"),
        ("a.json", None, "No such file"),
    ],
)
def test_unreadable_files_are_explained(name, content, said, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_file(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / name))
    assert said in text
    assert "\n" not in text
    assert len(text) < 400


def test_an_empty_file_changes_nothing_and_a_bom_is_no_key(tmp_path):
    for name in ("a.yaml", "a.toml"):
        (tmp_path / name).write_bytes(b"")
        assert load_file(tmp_path / name) == {}
    (tmp_path / "b.json").write_bytes(b'\xef\xbb\xbf{"seed": 1}')
    assert load_file(tmp_path / "b.json") == {"seed": 1}
