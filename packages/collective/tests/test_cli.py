"""The command line: help, presets, aliases, what a user can get wrong; the pipeline as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collective.cli import MODES, VERBS, main, translated
from collective.config import MT10, MT25, MT50, resolve_tasks
from collective.run.config_show import CONFIGS
from rlcore.errors import QuintetWarning, UsageError
from rlcore.files import locked


def test_benchmarks_are_of_meta_worlds_sizes():
    assert [len({*tasks}) for tasks in (MT10, MT25, MT50)] == [10, 25, 50]
    assert {*MT10} < {*MT25} < {*MT50}


def test_older_names_mean_v3_and_are_remarked_upon():
    with pytest.warns(QuintetWarning, match="push-v2 is push-v3 here"):
        assert resolve_tasks(["push-v2"]) == ("push-v3",)
    assert resolve_tasks(["reach"], "mt5", ["push"]) == (
        "reach-v3", "drawer-close-v3", "button-press-topdown-v3", "window-open-v3",
    )  # fmt: skip


@pytest.mark.parametrize("tasks", [[], ["pusch-v3"]])
def test_tasks_that_are_not_there(tasks: list[str]):
    with pytest.raises(UsageError, match=r"--benchmark|did you mean push-v3"):
        resolve_tasks(tasks)


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_loads_neither_torch_nor_a_simulator(verb: str):
    words = [*verb.split(), "--help"]
    code = f"import sys; from collective.cli import main; code = main({words!r}); "
    code += "print(code, [m for m in ('torch', 'mujoco', 'metaworld', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert len(done.stdout) > 300


def test_every_command_with_presets_can_be_shown(capsys: pytest.CaptureFixture[str]):
    assert {f"collective.{where}" for where in CONFIGS.values()} == {VERBS[verb][1] for verb in CONFIGS}
    for verb in CONFIGS:
        assert main(["config", verb, "--with-preset", "debug"]) == 0
        assert isinstance(yaml.safe_load(capsys.readouterr().out), dict)
    assert main(["config", "distil"]) == 2
    assert "did you mean distill" in capsys.readouterr().err


def test_the_published_codes_modes_are_commands():
    assert {*MODES.values()} <= {*VERBS}
    words = "experiment.mode=train_worker env.benchmark.env_name=reach-v3 setup.seed=3 --preset debug".split()
    assert translated(words) == ["train-worker", "tasks=reach-v3", "seed=3", "--preset", "debug"]
    words = "experiment.mode=evaluate_collective_transformer experiment.num_eval_episodes=10".split()
    assert translated(words) == ["evaluate", "episodes=10"]
    words = "experiment.mode=train_student env.benchmark.env_name=push-v3".split()
    assert translated(words) == ["train-student", "task=push-v3"]


def test_doctor_lists_tasks(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--tasks"]) == 0
    out = capsys.readouterr().out
    assert "mt50 (50): " in out
    assert "window-close-v3" in out


PIPELINE = "pipeline --preset debug --quiet --steps 300 --arms cls zero".split()


def test_a_pipeline_goes_on_where_it_was_stopped_and_skips_what_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from collective.run import pipeline

    words = [*PIPELINE, "--dir", str(tmp_path), "--name", "p"]
    original = pipeline.distill

    def interrupted(cfg: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "distill", interrupted)
    assert main(words) == 130
    assert (tmp_path / "p" / "encoder" / "checkpoints" / "final.pt").exists()
    monkeypatch.setattr(pipeline, "distill", original)
    monkeypatch.setattr(pipeline, "train_encoder", interrupted)  # complete: not called again
    assert main(words) == 0
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "p" / "report.json").read_text())
    assert [*report["policies"]] == ["cls", "zero"]
    assert "told the encoder's code" in out
    assert (tmp_path / "p" / "plots" / "success.png").stat().st_size > 10_000
    assert main([*words, "--rounds", "2"]) == 2
    assert "rounds: 1 -> 2" in capsys.readouterr().err
    assert main(["plot", str(tmp_path / "p")]) == 0
    assert main(["plot", str(tmp_path / "p" / "collective")]) == 0
    assert main(["evaluate", "--run", str(tmp_path / "p"), "--episodes", "2", "--horizon", "5", "--quiet"]) == 0


def test_a_mistake_does_not_take_a_pipelines_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [*PIPELINE, "--dir", str(tmp_path), "--name", "p"]
    for wrong in (["--p-scripted", "2"], ["--stage-preset", "debgu"], ["--rounds", "9999"]):
        assert main([*words, *wrong]) == 2
        assert not (tmp_path / "p" / "config.json").exists()
    assert main([*words, "--resume", "must"]) == 2
    assert "there is no pipeline" in capsys.readouterr().err
    (tmp_path / "p" / "report.json").write_text("{}")
    assert main([*words, "--overwrite", "--stage-preset", "debgu"]) == 2
    assert (tmp_path / "p" / "report.json").exists()  # nor sets the earlier one aside
    with locked(tmp_path / "p"):  # nor does another process take it from its owner
        assert main([*words, "--overwrite"]) == 2
    assert "is in use by" in capsys.readouterr().err
    assert (tmp_path / "p" / "report.json").exists()


def test_every_seed_that_a_pipeline_takes_suits_all_of_its_stages(tmp_path: Path):
    from collective.config_pipeline import PipelineConfig
    from collective.run.pipeline import stages

    assert [*stages(PipelineConfig(benchmark="mt5", seed=2**40), tmp_path)][-1] == "evaluate"


def test_sigterm_between_the_runs_of_a_pipeline_is_a_preemption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from collective.run import pipeline

    monkeypatch.setattr(pipeline, "record", lambda cfg: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main([*PIPELINE, "--dir", str(tmp_path), "--name", "p"]) == 85
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "p" / "clocks.json").exists()  # what it cost so far is not lost
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_pipelines_stages_are_the_commands_with_their_own_presets(tmp_path: Path):
    """What the benchmarks run one by one is what the pipeline runs."""
    from collective.config_pipeline import PipelineConfig
    from collective.run.config_show import of_command

    made = PipelineConfig(benchmark="mt5")
    record, distill = of_command("record", "cpu"), of_command("distill", "cpu")
    for key in ("steps", "p_scripted", "noise", "horizon"):
        assert getattr(made, key) == record[key], key
    for key in ("updates", "critic_updates", "rounds", "round_steps"):
        assert getattr(made, key) == distill[key], key
    assert list(made.arms) == distill["arms"]
