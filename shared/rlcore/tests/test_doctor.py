"""Really broken installations: packages that fail, crash, are too old, belong to strangers, or were half downgraded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlcore
from rlcore.doctor import Check, check, report


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder first on the path, and a function that puts a package in it, with or without metadata."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, code: str = "", *, version: str = "", distribution: str = "", requires: str = "") -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text(code)
        if version:
            info = tmp_path / f"{(distribution or name).replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            needs = f"Requires-Dist: {requires}\n" if requires else ""
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: {version}\n{needs}"
            )

    return put


@pytest.fixture
def light(monkeypatch):
    """Spare the tests that are not about them the imports of the real heavy packages."""
    monkeypatch.setattr("rlcore.doctor.NEEDED", {})


def find(checks: list[Check], start: str) -> Check:
    return next(item for item in checks if item.what.startswith(start))


def test_this_environment_is_healthy_and_reported_as_json(capsys):
    checks = check("rlcore", {"none": ["no_such_module"]}, [lambda: Check("ok", "env toy")])
    assert {item.level for item in checks} <= {"ok", "warn"}
    for name in (
        "Python 3",
        "rlcore ",
        "numpy ",
        "torch 2",
        "gymnasium ",
        "rich",
        "yaml",
        "env toy",
    ):
        find(checks, name)
    assert "threads" in find(checks, "torch").what
    assert find(checks, "extra none").advice == ("if wanted, in a checkout: uv pip install './packages/rlcore[none]'")
    assert report(checks, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)[0]["level"] == "ok"


BROKEN = {
    "gymnasium": ("raise ImportError('half of it is missing')", "gymnasium: ImportError: half of it is missing"),
    "matplotlib": ("import os; os.kill(os.getpid(), 11)", "matplotlib: the import crashes Python (signal 11)"),
    "rich": ("import os; os._exit(3)", "rich: the import ends Python (code 3)"),
    "numpy": ("import os; os._exit(0)", "numpy: the import ends Python"),
    "yaml": ("__version__ = '5.4.1'", "yaml 5.4.1 is older than 6"),
    "torch": ("__version__ = '2.11.0+cpu'", "torch: AttributeError"),
}


def test_a_shell_user_is_told_of_every_broken_package(tmp_path):
    for name, (code, _) in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    program = "import sys; from rlcore.doctor import check, report; sys.exit(report(check('rlcore', {})))"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (5, "")
    for _, said in BROKEN.values():
        assert f"fail  {said}" in done.stdout
    assert "pip install 'pyyaml>=6'" in done.stdout
    assert "ok    tyro" in done.stdout


def test_a_broken_extra_fails_where_an_absent_one_does_not(site, light):
    site("filmlib", "import no_such_codec")
    checks = check("mpn", {"video": ["filmlib"], "other": ["no_such_module"]})
    broken = find(checks, "filmlib")
    assert (broken.level, broken.advice) == ("fail", "in a checkout: uv pip install './packages/mpn[video]'")
    assert "No module named 'no_such_codec'" in broken.what
    assert find(checks, "extra other").level == "ok"


def test_a_strangers_package_of_our_name(site, light):
    site("gasp", "gaseous = True", version="0.4.2")
    stranger = find(check("gasp", {}), "gasp")
    assert stranger.level == "fail"
    assert "by somebody else" in stranger.what
    assert stranger.advice.startswith("pip uninstall gasp; then in a checkout: uv pip install ./packages/gasp")


def test_ours_with_a_stranger_beside_it_and_ours_alone(site, light):
    site("gasp", "__version__ = '1.0.0'", version="0.4.2")
    beside = find(check("gasp", {}), "gasp 1.0.0")
    assert beside.level == "warn"
    assert "gasp 0.4.2 is installed as well" in beside.what
    site("collective", "__version__ = '1.0.0'", version="1.0.0", requires="rlcore==1.0.0")
    assert find(check("collective", {}), "collective 1.0.0").level == "ok"


def test_on_the_path_only_with_no_metadata_at_all():
    """`python -S` sees no site-packages: rlcore is there, and each thing it needs is reported missing."""
    source = Path(rlcore.__file__).parents[1]
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from rlcore.doctor import check, report; "
        "sys.exit(report(check('rlcore', {'video': ['imageio']})))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (5, "")
    assert f"ok    rlcore {rlcore.__version__} in {source / 'rlcore'}, on the path only" in done.stdout
    assert "fail  torch: ModuleNotFoundError: No module named 'torch'" in done.stdout
    assert "ok    extra video is not installed (imageio)" in done.stdout


LEFT = "raise OSError('libmujoco.so.4.0.0: cannot open shared object file')"


def test_a_mujoco_that_was_downgraded_in_place(site, light):
    site("mujoco", LEFT, version="3.3.0")
    found = find(check("mpn", {}), "mujoco: OSError: libmujoco.so.4.0.0")
    assert (found.level, "recreate the environment" in found.advice) == ("fail", True)
    site("mujoco_core", "", version="4.0.0", distribution="mujoco-core")
    found = find(check("mpn", {}), "mujoco 3.3.0 beside mujoco-core 4.0.0")
    assert (found.level, "recreate the environment" in found.advice) == ("fail", True)


DRAWS_UNLESS = """
import os
__version__ = "3.3.0"
if os.environ.get("MUJOCO_GL") in {broken}:
    raise RuntimeError("no display")
class MjModel:
    from_xml_string = staticmethod(lambda text: text)
Renderer = lambda model, height, width: None
"""


def test_the_renderer_that_works_is_found_in_a_child(site, light):
    site("mujoco", DRAWS_UNLESS.format(broken=["egl"]))
    assert find(check("mpn", {}), "mujoco") == Check("ok", "mujoco 3.3.0: rendering by osmesa")
    site("mujoco", DRAWS_UNLESS.format(broken=["egl", "osmesa"]))
    dark = find(check("mpn", {}), "mujoco 3.3.0: no rendering")
    assert (dark.level, "libosmesa6" in dark.advice) == ("warn", True)


def test_a_renderer_that_is_asked_for_and_missing_is_not_a_broken_mujoco(site, light, monkeypatch):
    site("mujoco", "None.glGetError")  # as PyOpenGL ends where MUJOCO_GL names a library that is not there
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    found = find(check("mpn", {}), "mujoco: AttributeError")
    assert (found.level, found.advice.startswith("no library for MUJOCO_GL=osmesa: apt-get")) == ("fail", True)
    monkeypatch.delenv("MUJOCO_GL")
    assert find(check("mpn", {}), "mujoco: AttributeError").advice == "install mujoco again"
