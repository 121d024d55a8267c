"""Throughput: `make bench` saves these benchmarks under results/throughput/.

The clock is read when the device is idle, after a warm-up round. A floor is a model's matrix-product FLOPs at the rate
that this machine reached just before and just after, so that a slower machine has a slower floor.
By default a few minutes on two cores; BENCH_FULL=1 runs the whole matrix.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.budget import count_parameters
from bench.config import Mode, Run, RunConfig
from bench.corpus import Corpus, load_corpus
from bench.environment import synchronize
from bench.evaluate import EVAL_BATCH, sweep, sweep_starts, window_losses
from bench.experiments.laptop import laptop_arm
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from bench.report.output import make_tables
from bench.train import Trainer, set_numerics
from models import TransformerConfig, build, decoder_of
from models.decay import BACKENDS, chunked, read_memory
from models.decoding import Recomputing
from tests.conftest import CPU_BACKENDS
from tests.meters import FREE_SHARE, PeakMemory, free_bytes, matmul_flops_per_second
from tests.records import manifest_of
from tests.stores import many_records, write_without_sync

FULL = bool(os.environ.get("BENCH_FULL"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MODE: Mode = "fast" if DEVICE.type == "cuda" else "exact"
DTYPE = torch.bfloat16 if MODE == "fast" else torch.float32  # of the matrix products in training
N_THREADS = min(2, os.cpu_count() or 1)
BATCH_TOKENS = 16_384  # 64 windows of 256, the published batch: every context has batches of as many tokens
CONTEXT = 256

MATCHED = dataclasses.replace(  # the Transformer with the parameters of K-Operators, within 1 %
    NANOGPT, model=TransformerConfig(vocab_size=65, context=CONTEXT, d_model=150, n_layers=4, n_heads=5, dropout=0.2)
)
K_OPERATORS, TRANSFORMER, NANO = "K-Operators (paper)", "Transformer (matched)", "nanoGPT"
MODELS: dict[str, RunConfig] = {
    K_OPERATORS: K_OPERATORS_PAPER,
    TRANSFORMER: MATCHED,
    NANO: NANOGPT,
    "K-Operators (laptop)": laptop_arm("k_operators", 1e-3),
    "Transformer (laptop)": laptop_arm("transformer", 1e-3),
}
OURS = "chunked"
ALL_BACKENDS = list(BACKENDS) if DEVICE.type == "cuda" else CPU_BACKENDS
SLOW = {"mask", "block", "recurrent"}  # fewer rounds, of seconds each
EAGER = {"mask"}  # in `fast` mode, where compiling its step takes minutes


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement to make."""

    model: str
    backend: str = ""
    context: int = CONTEXT

    @property
    def config(self) -> RunConfig:
        """The model's config at this context and backend, with batches of BATCH_TOKENS (unchanged for the laptop's)."""
        config = MODELS[self.model]
        model = config.model
        if self.backend:
            model = dataclasses.replace(model, backend=self.backend)
        if config.context == self.context:
            return dataclasses.replace(config, model=model)
        assert config.training is not None
        return dataclasses.replace(
            config,
            model=dataclasses.replace(model, context=self.context),
            context=self.context,
            training=dataclasses.replace(config.training, batch_size=max(1, BATCH_TOKENS // self.context)),
        )

    @property
    def n_rounds(self) -> int:
        return 2 if self.backend in SLOW else 3 if self.model == NANO else 5


def points(*, laptop: bool = False, backends: list[str] = CPU_BACKENDS) -> list[Any]:
    """The paper's size with each backend, two Transformers, with `laptop` the laptop's arms; each context if FULL."""
    contexts = (128, 256, 512, 1024) if FULL else (CONTEXT,)
    found = [
        # ours first: the others fragment the heap of the process, which is not so in a training run
        *(
            Point(model=K_OPERATORS, backend=name, context=context)
            for context in contexts
            for name in sorted(backends, key=lambda name: name != OURS)
        ),
        *(Point(model=name, context=context) for context in contexts for name in (TRANSFORMER, NANO)),
    ]
    if laptop:
        found += [
            Point(model="K-Operators (laptop)", backend=OURS, context=MODELS["K-Operators (laptop)"].context),
            Point(model="Transformer (laptop)", context=MODELS["Transformer (laptop)"].context),
        ]
    return [pytest.param(one, id="-".join(filter(None, (one.model, one.backend, str(one.context))))) for one in found]


@pytest.fixture(autouse=True)
def _numerics() -> Iterator[None]:
    torch.set_num_threads(N_THREADS)
    set_numerics(MODE, DEVICE)
    torch.compiler.reset()  # the compiler stops silently after eight variants of one function
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text() -> Corpus:
    return load_corpus("synthetic", DEVICE)


@pytest.fixture
def memory() -> PeakMemory:
    """To be requested before anything large is built."""
    return PeakMemory(DEVICE)


@pytest.fixture
def meter(benchmark: Any, memory: PeakMemory) -> Callable[..., None]:
    """Times an action, and saves its facts with the benchmark."""

    def time(
        action: Callable[[], object],
        *,
        n_tokens: int,
        n_rounds: int,
        flops: float | None = None,
        steps: int = 1,
        dtype: torch.dtype = DTYPE,
        **known: Any,
    ) -> None:
        """`action` does `steps` steps over `n_tokens` tokens in total; `flops` of one step."""

        def complete() -> None:
            action()
            synchronize(DEVICE)

        complete()  # the warm-up, whose memory is measured
        peak = memory.bytes()
        before = matmul_flops_per_second(DEVICE, dtype)
        benchmark.pedantic(complete, rounds=n_rounds, iterations=1)
        rate = (before + matmul_flops_per_second(DEVICE, dtype)) / 2
        median = benchmark.stats.stats.median
        floor = None if flops is None else flops / rate
        benchmark.extra_info |= {
            "n_tokens": n_tokens,
            "tokens_per_second": n_tokens / median,
            "seconds_per_step": median / steps,
            "flops": flops,
            "floor_seconds": floor,
            "share_of_floor": None if floor is None else floor / (median / steps),
            "matmul_gflops": rate / 1e9,
            "peak_bytes": peak,
            "predicted_bytes": None,
            "decoding": "",
            "dtype": str(dtype).removeprefix("torch."),
            "n_threads": torch.get_num_threads(),
            "device": DEVICE.type,
            "mode": MODE,
            **known,
        }

    return time


def described(point: Point, model: torch.nn.Module, phase: str, batch_size: int) -> dict[str, Any]:
    return {
        "phase": phase,
        "model": point.model,
        "architecture": point.config.architecture,
        "backend": point.backend,
        "context": point.context,
        "batch_size": batch_size,
        "n_params": count_parameters(model).n_params,  # type: ignore[arg-type]
    }


def forward_flops(model: Any, context: int, n_tokens: int) -> float:
    return 2.0 * model.forward_macs_per_token(context) * n_tokens


@pytest.mark.benchmark(group="training step")
@pytest.mark.parametrize("point", points(laptop=True, backends=ALL_BACKENDS))
def test_training_step(meter, point, text, monkeypatch):
    run = Run(label="throughput", config=point.config, seed=42, mode=MODE)
    eager = MODE == "fast" and point.backend in EAGER
    if eager:
        monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    trainer = Trainer(run, text, DEVICE)
    if not eager:
        trainer.warm_up()
    steps = 50 if DEVICE.type == "cuda" else 10 if "laptop" in point.model else 1
    n_tokens = trainer.training.batch_size * point.context
    meter(
        lambda: [trainer.advance() for _ in range(steps)],
        n_tokens=steps * n_tokens,
        steps=steps,
        n_rounds=point.n_rounds,
        flops=3 * forward_flops(trainer.model, point.context, n_tokens),
        **described(point, trainer.model, "training step", trainer.training.batch_size),
        mode="fast, eager" if eager else MODE,  # so that no ratio to a compiled step is formed
    )


@pytest.mark.benchmark(group="forward")
@pytest.mark.parametrize("point", points(backends=ALL_BACKENDS))
def test_forward(meter, point, text):
    """The forward pass of evaluation: float32, no dropout, no gradients."""
    model = build(point.config.model).to(DEVICE)
    starts = sweep_starts(text.val, point.context)[: max(1, BATCH_TOKENS // point.context)]
    n_tokens = len(starts) * point.context
    meter(
        lambda: window_losses(model, text.val, starts, point.context),
        n_tokens=n_tokens,
        n_rounds=point.n_rounds,
        flops=forward_flops(model, point.context, n_tokens),
        dtype=torch.float32,
        **described(point, model, "forward", len(starts)),
    )


@pytest.mark.benchmark(group="evaluation")
@pytest.mark.parametrize("point", points(backends=[OURS]))
def test_evaluation(meter, point, text):
    """A whole sweep of the validation text."""
    if point.model == NANO and not FULL and DEVICE.type == "cpu":
        pytest.skip("takes half a minute on two cores; BENCH_FULL=1 measures it")
    model = build(point.config.model).to(DEVICE)
    n_tokens = len(sweep_starts(text.val, point.context)) * point.context
    meter(
        lambda: sweep(model, text.val, point.context),
        n_tokens=n_tokens,
        n_rounds=3,
        flops=forward_flops(model, point.context, n_tokens),
        dtype=torch.float32,
        **described(point, model, "evaluation", EVAL_BATCH),
    )


@pytest.mark.benchmark(group="generation")
@pytest.mark.parametrize("decoding", ["cached", "recomputed"])
@pytest.mark.parametrize("point", points(backends=[OURS]))
def test_generation(meter, point, decoding):
    """The last tokens of a full window, one text, where recomputing costs most; without the choice of a token.

    On one CPU thread: a cached step is too small for two. The cache is filled before the clock starts.
    """
    torch.set_num_threads(1)
    model = build(point.config.model).to(DEVICE)
    n_new = 32 if decoding == "cached" else 4
    text = torch.randint(65, (1, point.context), device=DEVICE)
    decoder = decoder_of(model, 1, point.context) if decoding == "cached" else Recomputing(model, 1, point.context)
    decoder.feed(text[:, :-n_new])

    def last_tokens() -> None:
        decoder.n_seen = point.context - n_new  # back to the filled part
        for position in range(point.context - n_new, point.context):
            decoder.feed(text[:, position : position + 1])

    meter(
        last_tokens,
        n_tokens=n_new,
        steps=n_new,
        n_rounds=9,
        dtype=torch.float32,
        **described(point, model, "generation", 1) | {"decoding": decoding},
    )


# growth: the cost per token at growing sequence lengths, at the same number of tokens ---------------------------------

RANK, WIDTH = 32, 128  # the paper's
GROWTH_TOKENS = 8192  # a batch
GAMMA_MIN = 0.85
LENGTHS = (512, 1024, 2048, 4096, 8192)
ALONE, MIXING = "recurrence alone", "K2 mixing"
FLOAT = 4  # bytes


def predicted_bytes(model: str, backend: str, length: int) -> int:
    """The largest tensors of a forward and a backward pass that exist at once."""
    states = GROWTH_TOKENS * RANK * WIDTH  # one (r, d) memory per token
    tokens = GROWTH_TOKENS * WIDTH
    if model == MIXING:
        return FLOAT * (4 * length**2 + 2 * GROWTH_TOKENS * length + 20 * tokens)
    n_numbers = {"chunked": 30 * tokens, "mask": 8 * RANK * length**2 + 4 * states}
    return FLOAT * (n_numbers | dict.fromkeys(("block", "recurrent"), 4 * states))[backend]


def growth_points() -> list[Any]:
    backends = [OURS, *(name for name in CPU_BACKENDS if name != OURS)]
    alone = [(ALONE, backend, length) for backend in backends for length in LENGTHS]
    mixing = [(MIXING, OURS, length) for length in LENGTHS]
    return [pytest.param(*one, id="-".join(map(str, one))) for one in alone + mixing]


@pytest.mark.benchmark(group="growth")
@pytest.mark.parametrize(("model", "backend", "length"), growth_points())
def test_growth(meter, does_not_fit, model, backend, length):
    """Forward and backward of the paper's recurrence, alone and with the dense base kernel."""
    batch_size, predicted, free = GROWTH_TOKENS // length, predicted_bytes(model, backend, length), free_bytes(DEVICE)
    known = {
        "phase": "growth",
        "model": model,
        "architecture": "recurrence",
        "backend": backend,
        "context": length,
        "batch_size": batch_size,
        "predicted_bytes": predicted,
    }
    if predicted > FREE_SHARE * free:
        does_not_fit.append({**known, "free_bytes": free})
        pytest.skip(f"does not fit: {predicted / 2**30:.1f} GiB predicted, {free / 2**30:.1f} GiB free")
    inputs = growth_inputs(batch_size, length, kernel=model == MIXING)

    def both_passes() -> None:
        q, k, n, gamma, *base = inputs
        kernel = base[0].tril() if base else None
        if backend == OURS:
            reads = chunked(q, k, n, gamma, gamma_min=GAMMA_MIN, kernel=kernel)
        else:
            reads = read_memory(q, k, n, gamma, backend)
        reads.sum().backward()
        for one in inputs:
            one.grad = None

    meter(
        both_passes,
        n_tokens=GROWTH_TOKENS,
        n_rounds=2 if backend in SLOW else 5,
        dtype=torch.float32,
        n_params=None,
        **known,
    )


def growth_inputs(batch_size: int, length: int, *, kernel: bool) -> list[Tensor]:
    """q, k (B, T, r), n (B, T, d), gamma (r,) and, with `kernel`, a base kernel (T, T); all with gradients."""
    q, k = (normalize(torch.randn(batch_size, length, RANK, device=DEVICE), dim=-1) for _ in range(2))
    n = torch.randn(batch_size, length, WIDTH, device=DEVICE)
    gamma = torch.linspace(0.9925, 0.99925, RANK, device=DEVICE)
    base = [torch.full((length, length), 1 / length, device=DEVICE)] if kernel else []
    return [one.requires_grad_() for one in (q, k, n, gamma, *base)]


# tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="tables")
@pytest.mark.parametrize(("n_arms", "n_seeds", "reference"), [(100, 10, None), (30, 5, "arm1")])
def test_making_tables(benchmark, tmp_path, n_arms, n_seeds, reference):
    """Tables of records of real size, without and with differences to a reference; shown, but not saved."""
    records = many_records(n_arms, n_seeds)
    store = write_without_sync(tmp_path, records, manifest_of(records, reference=reference))
    benchmark.pedantic(make_tables, args=(store,), rounds=3, iterations=1, warmup_rounds=1)
