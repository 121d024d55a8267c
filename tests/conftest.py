"""Fixtures of many tests: a small corpus, small runs, and the folder of the real corpus."""

import dataclasses
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config import Mode, Run, RunConfig, TrainingConfig
from bench.corpus import Corpus, load_corpus
from bench.environment import describe_machine
from bench.fetch import DATA_DIR_VARIABLE
from bench.run import Settings
from bench.sources import commit
from bench.store import RUNS_DIR_VARIABLE
from models import ARCHITECTURES
from models.decay import BACKENDS

CPU = torch.device("cpu")
EVERY_STEP = Settings(device=CPU, n_threads=1, checkpoint_seconds=0)
SELDOM = Settings(device=CPU, n_threads=1, checkpoint_seconds=1e9)  # checkpoints only at evaluations
VOCAB_SIZE = 65
CONTEXT = 16
CPU_BACKENDS = [name for name in BACKENDS if name != "fla"]  # it runs only on CUDA: `bench cuda-check` compares it
TINY_MODELS = {  # one per trained architecture, with dropout so that its random stream is tested
    name: config(vocab_size=VOCAB_SIZE, context=CONTEXT, **config.tiny) for name, (config, _) in ARCHITECTURES.items()
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: one process runs all tests of a file, and one all of tests/jobs/slurm, which share a cluster."""
    from xdist.scheduler import LoadFileScheduling  # a development package, needed only with `-n`

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/jobs/slurm" if file.startswith("tests/jobs/slurm/") else file

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def plain_environment() -> Iterator[None]:
    """Run folders are in the stores, `python` is the one that runs, and processes that tests start use one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.delenv(RUNS_DIR_VARIABLE, raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(autouse=True)
def one_thread_and_default_numerics():
    """Equal bits on every machine, and no test passes its mode to the next."""
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@contextmanager
def without_onednn() -> Iterator[None]:
    """Torch's own LSTM, step by step, in place of oneDNN's fused one."""
    with warnings.catch_warnings():
        # torch warns of it when the block ends, since a setting of Intel's GPUs is restored, too
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@pytest.fixture
def bf16_on_any_cpu(architecture: str) -> Iterator[None]:
    """For tests that are parametrized by `architecture` and train it on a CPU under bf16 autocast.

    oneDNN has no LSTM in bfloat16 for a CPU without AVX-512: "could not create a primitive descriptor".
    """
    with without_onednn() if architecture == "lstm" else nullcontext():
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real corpus; without it a test is skipped, or fails in CI."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    if not named:
        reason = f"{DATA_DIR_VARIABLE} does not name a folder with the corpus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(named)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """A short synthetic text on the CPU."""
    text = load_corpus("synthetic", torch.device("cpu"))
    return dataclasses.replace(text, train=text.train[:20_000], val=text.val[:3_000])


@pytest.fixture
def on_little_text(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process read the short text."""
    monkeypatch.setattr("bench.run.load_corpus", lambda *_: corpus)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes that estimate the cost of a launch."""
    monkeypatch.setattr("jobs.launch.estimate_seconds", lambda *_: {})


def tiny_config(architecture: str, context: int = CONTEXT, n_sampled_batches: int = 2, **training: object) -> RunConfig:
    """A tiny model on the synthetic text, trained for 12 steps; `training` replaces fields of its training config."""
    recipe = {
        "n_steps": 12,
        "batch_size": 4,
        "eval_every": 4,
        "learning_rate": 1e-2,
        "final_learning_rate": 1e-3,
        "warmup_steps": 2,
        "schedule": "nanogpt",
        "betas": (0.9, 0.99),
        "weight_decay": 0.1,
        **training,
    }
    model: Any = TINY_MODELS[architecture]
    return RunConfig(
        architecture=architecture,
        model=dataclasses.replace(model, context=context),
        context=context,
        corpus="synthetic",
        n_sampled_batches=n_sampled_batches,
        training=TrainingConfig(**recipe),  # type: ignore[arg-type]
    )


@pytest.fixture
def tiny_run() -> Callable[..., Run]:
    """A run of a second or less: `tiny_run("transformer", seed=1, n_steps=8)`."""

    def make(architecture: str = "k_operators", seed: int = 42, mode: Mode = "exact", **training: object) -> Run:
        return Run(label=architecture, config=tiny_config(architecture, **training), seed=seed, mode=mode)  # type: ignore[arg-type]

    return make


def pytest_terminal_summary(terminalreporter) -> None:
    """Tokens per second below pytest-benchmark's table, which has no column for them."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for one in getattr(session, "benchmarks", []):
        info = one.extra_info
        if "tokens_per_second" in info:
            share = f", {info['share_of_floor']:.0%} of the floor's speed" if info["share_of_floor"] else ""
            speed = f"{info['tokens_per_second']:,.0f} tokens/s on {info['device']}"
            terminalreporter.write_line(f"{one.name}: {speed}{share}")


# what `make bench` saves next to the times: this machine, without its name, its user or a path -----------------------

_DOES_NOT_FIT: list[dict[str, Any]] = []
_IN_TURN: list[dict[str, Any]] = []


@pytest.fixture
def does_not_fit() -> list[dict[str, Any]]:
    """Points that were not run, since they would not fit; the saved JSON lists them."""
    return _DOES_NOT_FIT


@pytest.fixture
def measured_in_turn() -> list[dict[str, Any]]:
    """Measurements that took turns in one benchmark; the saved JSON has each as a benchmark."""
    return _IN_TURN


def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = describe_machine(device).model_dump(mode="json")
    revision, dirty = commit()
    return {**facts, "torch": facts["packages"]["torch"], "commit": revision, "dirty": dirty}


def pytest_benchmark_generate_commit_info() -> dict[str, Any]:
    revision, dirty = commit()
    return {"id": revision, "dirty": dirty}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    # only those of models, which have a table; other times are only shown in the terminal
    saved = [one for one in output_json["benchmarks"] if "phase" in one["extra_info"]]
    output_json["benchmarks"] = [*saved, *_IN_TURN]
    rates = [one["extra_info"]["matmul_gflops"] for one in saved]
    n_threads = {one["extra_info"]["n_threads"] for one in output_json["benchmarks"]}
    output_json["machine_info"] |= {
        "n_threads": n_threads.pop() if len(n_threads) == 1 else None,
        "matmul_gflops": statistics.median(rates) if rates else None,
        "does_not_fit": _DOES_NOT_FIT,
    }
