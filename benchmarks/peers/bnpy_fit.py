"""The peer: bnpy's Dirichlet process mixture of Gaussians, run as its users run it, in an environment of its own.

    with Bnpy() as bnpy:                          # starts a worker: .venv-bnpy/bin/python of this file
        cold = bnpy.fit(x)                        # x (N, D); two laps, thresholds 80/96
        warm = bnpy.fit(x, warm=cold, laps=30)    # from the model folder that the first fit saved

A reply carries the CPU seconds of `bnpy.run` alone: no import, no exchange of arrays, no read-out of assignments. The
worker speaks JSON lines on stdin and stdout; arrays travel as .npz files in a temporary folder.

bnpy 0.1.7 (2022) wants names that Python 3.11 and numpy 2 no longer have; `lent` gives them back while it is used. Its
prior is ours: nu = max(0, D + 2), kappa = 1e-4 and m = 0 are its defaults, sF=0.1 with ECovMat="eye" makes the expected
covariance 0.1 I, so beta = 0.1 (nu - 2) for DiagGauss and B = 0.1 (nu - D - 1) I for Gauss. Each reply has it, as read
from the model that was fitted.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np

PYTHON = Path(__file__).resolve().parents[2] / ".venv-bnpy" / "bin" / "python"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LENT = {
    "float": float, "int": int, "bool": bool, "object": object, "str": str, "float_": np.float64, "bool8": np.bool_,
    "unicode_": np.str_, "product": np.prod, "alltrue": np.all, "in1d": np.isin, "row_stack": np.vstack,
}  # fmt: skip
"""Names in numpy's namespace that bnpy or what it calls may look up. Without `unicode_` no saved model is readable."""


class BnpyMissingError(RuntimeError):
    """There is no bnpy to compare with; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one call of bnpy.run left behind. Shapes: D features, K components, N rows."""

    loss: float
    """-ELBO / (N D), nats: bnpy's own figure, of the last lap."""
    cpu_s: float
    """CPU seconds of bnpy.run, one thread."""
    laps: float
    converged: bool
    labels: np.ndarray
    """(N,) component with the largest responsibility under the final parameters."""
    weights: np.ndarray
    """(K,) expected mixture weights; they leave out the mass of components not yet seen."""
    posterior: dict[str, np.ndarray]
    """eta1, eta0, nu, kappa (K,), m (K, D), beta (K, D) or B (K, D, D)."""
    prior: dict[str, np.ndarray]
    """gamma0, nu, kappa (), m (D,), beta (D,) or B (D, D)."""
    folder: str
    """The saved model: `warm` of a later fit by the same worker."""
    resp: np.ndarray | None = None
    """(N, K) responsibilities, where they were asked for."""

    @property
    def num_components(self) -> int:
        return len(self.weights)


class Bnpy:
    """A worker process that imports bnpy once. Close it, or use it in a `with`.

    Raises: BnpyMissingError where there is no such interpreter or it has no bnpy.
    """

    def __init__(self, python: Path = PYTHON) -> None:
        if not python.exists():
            raise BnpyMissingError(f"the comparison with bnpy needs {python}: run 'make .venv-bnpy/.stamp'")
        self._folder = tempfile.TemporaryDirectory(prefix="bnpy-")
        environ = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONDONTWRITEBYTECODE": ""}
        command = [str(python), str(Path(__file__).resolve()), self._folder.name]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ)
        try:
            self.versions: dict[str, str] = self._reply()
            """Of bnpy and of the numpy and Python it runs under."""
        except RuntimeError as error:
            self.close()
            raise BnpyMissingError(f"{python} has no working bnpy ({error}): run 'make .venv-bnpy/.stamp'") from error

    def fit(
        self, x: np.ndarray, *, warm: Fit | None = None, cov: str = "diag", laps: int = 2, batches: int = 5,
        seed: int = 0, min_new: float = 80, min_target: float = 96, min_retain: float = 96, fresh: int = 5,
        gamma: float = 5.0, scale: float = 0.1, want_resp: bool = False,
    ) -> Fit:  # fmt: skip
        """bnpy.run on x (N, D) with births, merges, deletes and shuffles, from one component or from `warm`.

        Args:
            cov: "diag" or "full".
            laps: at most so many passes over the data; bnpy stops earlier when counts stand still and no move is left.
            batches: parts of the data; global parameters change after each.
            seed: decides the order of batches, which rows are in which, and the seeding of births.
            min_new: rows a new component needs at birth, `min_target` a component to give birth, `min_retain` a new
                one to survive its first lap.
            fresh: components proposed at each birth.
            gamma: concentration; `scale` the expected variance under the prior.
        """
        path = Path(self._folder.name) / "data.npz"
        np.savez(path, x=np.asarray(x, np.float64))
        options = {
            "cov": cov, "laps": laps, "batches": batches, "seed": seed, "gamma": gamma, "scale": scale,
            "min_new": min_new, "min_target": min_target, "min_retain": min_retain, "fresh": fresh,
        }  # fmt: skip
        reply = self._ask(op="fit", data=str(path), init=warm.folder if warm else None, resp=want_resp, **options)
        with np.load(reply.pop("out")) as arrays:
            groups: dict[str, dict[str, np.ndarray]] = {"posterior": {}, "prior": {}, "": {}}
            for name in arrays:
                group, _, field = name.rpartition(".")
                groups[group][field] = arrays[name]
        return Fit(posterior=groups["posterior"], prior=groups["prior"], **groups[""], **reply)  # type: ignore[arg-type]

    def loss(
        self, x: np.ndarray, resp: np.ndarray, *, cov: str = "diag", gamma: float = 5.0, scale: float = 0.1
    ) -> float:
        """-ELBO / (N D) after one global step from the responsibilities resp (N, K) of rows x (N, D)."""
        path = Path(self._folder.name) / "data.npz"
        np.savez(path, x=np.asarray(x, np.float64), resp=np.asarray(resp, np.float64))
        return float(self._ask(op="loss", data=str(path), cov=cov, gamma=gamma, scale=scale)["loss"])

    def close(self) -> None:
        """End the worker; saved models go with it."""
        if self._child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()  # it leaves at the end of its input
        self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()
        self._folder.cleanup()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._child.stdin
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the bnpy worker ended with exit status {self._child.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def __enter__(self) -> Bnpy:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


# --- the worker: everything below runs in bnpy's environment ----------------------------------------------------------
@contextlib.contextmanager
def lent() -> Iterator[None]:
    """While inside, numpy and inspect have the names that bnpy expects; afterwards they are as they were."""
    missing = {name: value for name, value in LENT.items() if name not in vars(np)}
    spec = namedtuple("spec", "args varargs keywords defaults")
    try:
        for name, value in missing.items():
            setattr(np, name, value)
        inspect.getargspec = lambda function: spec(*inspect.getfullargspec(function)[:4])  # type: ignore[attr-defined]
        yield
    finally:
        for name in missing:
            delattr(np, name)
        del inspect.getargspec  # type: ignore[attr-defined]


def native(x: Any, dtype: Any = np.float64) -> np.ndarray:
    """bnpy's toCArray without ndarray.newbyteorder, which numpy 2 dropped; a model on disk is little-endian by name.

    bnpy takes the failure for a missing model and reports that 'Best.alpha' was not found.
    """
    copy: np.ndarray = np.asarray_chkfinite(x).astype(dtype, order="C")  # np.array would keep the byte order's name
    return copy


def main() -> None:
    """Answer requests from stdin, one JSON object a line, until it ends. Models are saved below the folder argv[1]."""
    answers, folder = os.fdopen(os.dup(1), "w"), Path(sys.argv[1])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # bnpy prints, whatever one asks of it
    warnings.simplefilter("ignore")
    with lent():
        try:
            import bnpy  # type: ignore[import-not-found]
            from bnpy.ioutil import ModelReader  # type: ignore[import-not-found]
        except Exception as error:  # whatever else is missing belongs into the one sentence the user sees
            answer(answers, {"error": f"{type(error).__name__}: {error}"})
            return
        ModelReader.toCArray = native
        versions = {"bnpy": version("bnpy"), "bnpy's numpy": np.__version__, "bnpy's python": sys.version.split()[0]}
        answer(answers, versions)
        for number, line in enumerate(sys.stdin):
            request = json.loads(line)
            try:
                reply = (fit if request["op"] == "fit" else loss)(bnpy, request, folder / str(number))
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            answer(answers, reply)


def answer(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def fit(bnpy: Any, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One bnpy.run. `folder` must be fresh: bnpy empties it before it reads the model to start from."""
    with np.load(request["data"]) as arrays:
        x = arrays["x"]
    begin = time.process_time()
    data = bnpy.data.XData(x)
    model, info = bnpy.run(
        data, "DPMixtureModel", obs_model(request), "memoVB", doWriteStdOut=False, output_path=str(folder),
        taskID=request["seed"] + 1, initname=request["init"] or "randexamples", K=1, gamma0=request["gamma"],
        sF=request["scale"], ECovMat="eye", nLap=request["laps"], nBatch=request["batches"],
        moves="birth,merge,delete,shuffle", b_Kfresh=request["fresh"], b_minNumAtomsForNewComp=request["min_new"],
        b_minNumAtomsForTargetComp=request["min_target"], b_minNumAtomsForRetainComp=request["min_retain"],
    )  # fmt: skip
    cpu_s = time.process_time() - begin
    resp = model.calc_local_params(data)["resp"]
    posterior, prior = model.obsModel.Post, model.obsModel.Prior
    scale = "beta" if obs_model(request) == "DiagGauss" else "B"
    out = {f"posterior.{name}": getattr(posterior, name) for name in ("nu", "kappa", "m", scale)}
    out |= {f"prior.{name}": getattr(prior, name) for name in ("nu", "kappa", "m", scale)}
    out |= {f"posterior.{name}": getattr(model.allocModel, name) for name in ("eta1", "eta0")}
    out |= {"prior.gamma0": model.allocModel.gamma0, "labels": resp.argmax(1)}
    out |= {"weights": model.allocModel.get_active_comp_probs()} | ({"resp": resp} if request["resp"] else {})
    path = folder / "result.npz"
    np.savez(path, **out)
    return {
        "out": str(path), "folder": info["task_output_path"], "loss": float(info["loss"]), "cpu_s": cpu_s,
        "laps": float(info["lap_history"][-1]), "converged": "not converged" not in info["status"],
    }  # fmt: skip


def loss(bnpy: Any, request: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """-ELBO / (N D) of a model whose global parameters follow from given responsibilities."""
    with np.load(request["data"]) as arrays:
        x, resp = arrays["x"], arrays["resp"]
    data = bnpy.data.XData(x)
    prior = {"sF": request["scale"], "ECovMat": "eye", "nu": 0, "kappa": 1e-4}
    alloc = {"gamma0": request["gamma"]}
    model = bnpy.HModel.CreateEntireModel("memoVB", "DPMixtureModel", obs_model(request), alloc, prior, data)
    stats = model.get_global_suff_stats(data, {"resp": resp}, doPrecompEntropy=1)
    model.update_global_params(stats)
    return {"loss": -float(model.calc_evidence(SS=stats, afterGlobalStep=1))}


def obs_model(request: dict[str, Any]) -> str:
    return {"diag": "DiagGauss", "full": "Gauss"}[request["cov"]]


if __name__ == "__main__":
    main()
