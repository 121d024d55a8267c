"""Commands of `python -m bench` that make a run, measure it or sample from it."""

import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import check_threads, open_store, pick_device
from bench.errors import EXIT_FAILED, CheckpointError, ConfigError, first_line, typed

if TYPE_CHECKING:
    import torch

    from bench.config import Run, RunConfig
    from bench.experiments.search import Recorded
    from bench.record import Record
    from bench.store import Store

Experiment = Annotated[str, typer.Option(help="Experiment of the cell.")]
CellLabel = Annotated[str, typer.Option("--cell", help="Label of the cell.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Override, e.g. training.learning_rate=3e-3. Repeatable.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder that holds tinyshakespeare/input.txt.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the default is cuda where there is one.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; the default is torch's own.")]
StorePath = Annotated[Path, typer.Option("--store", help="Folder of records.")]


def data(data_dir: DataDir = None) -> None:
    """Find or download the corpus, and check its sha256."""
    from bench.fetch import find_text

    print(f"tinyshakespeare: {find_text('tinyshakespeare', data_dir)}, sha256 as pinned")


def list_experiments(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Show its cells; by default all experiments, in short.")
    ] = None,
    store: StorePath = Path("results"),
) -> None:
    """List the experiments, their questions, and how many of their runs a store has done."""
    from bench.listing import listing
    from bench.store import Store

    print(listing(Store(store), experiment))


def run(
    experiment: Annotated[str | None, typer.Option(help="Experiment of the cell.")] = None,
    cell: Annotated[str | None, typer.Option("--cell", help="Label of the cell.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="In place of a cell: a JSON file with a config, as a record has, or a record.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Name of the run; by default that of the cell or of FILE.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; none for a fitted model.")] = None,
    assignments: Assignments = None,
    mode: Annotated[str | None, typer.Option(help="Of a trained model: exact, or fast, the default on CUDA.")] = None,
    store: StorePath = Path("reproduced"),
    device: Device = None,
    threads: Threads = None,
    data_dir: DataDir = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Between checkpoints.")] = 60.0,
) -> None:
    """Train one run in this process, of an experiment's cell or of a config in a file.

    Example: python -m bench run --experiment smoke --cell k_operators --seed 42
    """
    from bench.process import CANCEL_FILE
    from bench.run import Settings, execute
    from bench.store import Store

    settings = Settings(
        device=pick_device(device),
        n_threads=check_threads(threads),
        data_dir=data_dir,
        checkpoint_seconds=checkpoint_seconds,
    )
    here = Store(store)
    if config is not None:
        if experiment is not None or cell is not None:
            raise ConfigError("give --config, or --experiment and --cell, not both")
        one = run_of_file(config, label, assignments or [], seed, mode, settings.device)
    elif experiment is None or cell is None:
        there = typed("bench", "list", *([] if experiment is None else [experiment]), store=store)
        raise ConfigError(f"name a cell with --experiment and --cell, or a file with --config; cells: {there}")
    else:
        one = run_of_cell(experiment, cell, assignments or [], seed, mode, settings.device, here, label)
    here.check_could_be_written()
    (here.run_folder(one.run_id) / CANCEL_FILE).unlink(missing_ok=True)  # whoever names a run wants it
    finished = execute(one, here, settings)
    _show(finished)
    if finished.status not in ("done", "diverged"):
        raise typer.Exit(EXIT_FAILED)


def rerun(
    path: Annotated[Path, typer.Argument(metavar="RECORD", help="A record file.")],
    store: Annotated[Path | None, typer.Option(help="Folder for the new record; by default it is not kept.")] = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Train the run of a record again, from the record only, and compare."""
    from bench.repeat import read_record, record_differences, run_of
    from bench.run import Settings, execute
    from bench.store import Store

    old = read_record(path)
    settings = Settings(
        device=pick_device(device or old.environment.device), data_dir=data_dir, n_threads=old.environment.n_threads
    )
    with tempfile.TemporaryDirectory() as scratch:
        new = execute(run_of(old), Store(store or Path(scratch)), settings)
    _show(new)
    for change in old.environment.changes(new.environment):
        print(f"note: {change}")
    found = record_differences(old, new)
    print("\n".join(found) if found else "equal: every number that both measured, bit for bit")
    if new.status not in ("done", "diverged") or (found and old.mode == "exact"):
        raise typer.Exit(EXIT_FAILED)


def sample(
    run_id: Annotated[str, typer.Argument(help="Run id or name (k_operators-s42) in the store, or a checkpoint file.")],
    store: StorePath = Path("reproduced"),
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "\n",
    tokens: Annotated[int, typer.Option(min=0, help="Characters to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Keep this many likeliest characters.")] = None,
    top_p: Annotated[float, typer.Option(help="Keep the fewest that have this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    weights: Annotated[str, typer.Option(help="best or final")] = "best",
    device: Device = None,
) -> None:
    """Print text sampled from a checkpoint.

    Each character sees at most the run's context of characters before it. When they no longer fit, the window keeps
    its newest half: from then on a character sees between half a context and a full one.
    """
    from bench import checkpoint
    from bench.config import read_config
    from bench.corpus import decode, encode
    from bench.sample import generate
    from models import build

    if weights not in ("best", "final"):
        raise ConfigError(f"--weights {weights} is not one of best and final")
    on = pick_device(device)
    path = Path(run_id)
    if path.suffix == ".pt":
        content = checkpoint.load(path, on)
    else:
        here = open_store(store)
        folder = here.run_folder(here.find_run_id(run_id))
        newest, _ = checkpoint.load_newest(folder, on)
        if newest is None:
            raise CheckpointError(f"{folder} holds no complete checkpoint; run it first, or name another with --store")
        content = newest
    try:
        config = read_config(json.loads(content["identity"]["config"]))
        model = build(config.model).to(on)
        model.load_state_dict(content["history"]["best_model"] if weights == "best" else content["trainer"]["model"])
        vocabulary: str = content["vocabulary"]
    except (ConfigError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{run_id}: its checkpoint is not one of this suite ({first_line(error)})") from error
    start = encode(prompt, vocabulary).to(on)
    written = generate(
        model, start, tokens, config.context, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p
    )
    print(decode(written, vocabulary))


def size(
    experiment: Experiment,
    cell: CellLabel,
    axis: Annotated[
        str, typer.Option(help="The budget: params, without_positions, live or forward_flops (of one token).")
    ] = "params",
    like: Annotated[str | None, typer.Option(help="EXPERIMENT/LABEL: the cell whose value is the target.")] = None,
    target: Annotated[int | None, typer.Option(help="The target value, instead of --like.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest deviation, as a fraction of the target.")] = 0.01,
    assignments: Assignments = None,
) -> None:
    """Resize a cell to a budget. Example: python -m bench size --experiment paper --cell nanogpt --target 1137869"""
    from bench.experiments.sizing import AXES, budget_of, fit_size, set_arguments, size_text

    start = _config_of_cell(experiment, cell, assignments or [])
    if axis not in AXES:
        raise ConfigError(f"--axis {axis} is not one of {', '.join(AXES)}")
    if (like is None) == (target is None):
        raise ConfigError("give one target: --like EXPERIMENT/LABEL, or --target NUMBER")
    budgets = {}
    if like is not None:
        other = _config_of_cell(*like.partition("/")[::2], [])
        budgets[like] = budget_of(other.model, other.context)
        target = getattr(budgets[like], axis)
    assert target is not None
    found = fit_size(start.model, axis=axis, target=target, tolerance=tolerance, context=start.context)
    budgets = {f"{experiment}/{cell}, resized": budget_of(found.config, start.context), **budgets}
    print(size_text(found, axis, budgets))
    settings = [word for one in [*(assignments or []), *set_arguments(found.config)] for word in ("--set", one)]
    print("\n" + typed("bench", "run", "--experiment", experiment, "--cell", cell, "--seed", 42, *settings))


def device() -> None:
    """Print the name under which `make bench` saves what it measures on this machine."""
    from bench.environment import slug

    print(slug(pick_device(None)))


def cuda_check(
    json_path: Annotated[
        Path | None, typer.Option("--json", help="File for the JSON; by default ./cuda-check-DEVICE.json.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit; checks that do not fit are listed.")] = 170.0,
) -> None:
    """Check in three minutes that runs work on this machine's GPU: one line per check, and a JSON.

    Each line is held, failed (with both values) or not tried (with the reason). Exit code 0: all held; 1: one failed;
    3: some were not tried.
    """
    from bench.cuda.check import check_all, exit_code, write_results
    from bench.environment import slug

    path = json_path or Path(f"cuda-check-{slug(pick_device(None))}.json")
    results = check_all(seconds, lambda line: print(line, flush=True))
    write_results(path, results, seconds)
    n = {status: sum(one.status == status for one in results) for status in ("held", "failed", "not tried")}
    print(f"{', '.join(f'{count} {status}' for status, count in n.items())}; written to {path}")
    raise typer.Exit(exit_code(results))


def profile(
    experiment: Experiment = "paper",
    cell: CellLabel = "k_operators",
    assignments: Assignments = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Print the time of a training step by kind of operation. Example: python -m bench profile --cell nanogpt"""
    import torch

    from bench.corpus import load_corpus
    from bench.profile import profile_step
    from bench.train import Trainer

    on = pick_device(device)
    if (n_threads := check_threads(threads)) is not None:
        torch.set_num_threads(n_threads)
    one = run_of_cell(experiment, cell, [*(assignments or []), 'corpus="synthetic"'], 42, None, on)
    seconds, by_kind = profile_step(Trainer(one, load_corpus("synthetic", on), on))
    profiled = sum(by_kind.values())
    print(f"{experiment}/{cell} on {on}: {seconds:.4g} s per step; under the profiler, of {profiled:.4g} s:")
    for kind, spent in by_kind.items():
        print(f"  {spent:8.4f} s  {spent / profiled:4.0%}  {kind}")


def run_of_cell(
    experiment: str,
    cell: str,
    assignments: list[str],
    seed: int | None,
    mode: str | None,
    device: "torch.device",
    store: "Store | None" = None,
    label: str | None = None,
) -> "Run":
    """The run of an experiment's cell with overrides; ConfigError where it makes no sense.

    A recipe that records choose is chosen by those of `store`. Its label is by default the cell's.
    """
    from bench.experiments.search import Recorded

    recorded = Recorded(store, mode or ("fast" if device.type == "cuda" else "exact"))  # type: ignore[arg-type]
    return _run_of(label or cell, _config_of_cell(experiment, cell, assignments, recorded), seed, mode, device)


def run_of_file(
    path: Path,
    label: str | None,
    assignments: list[str],
    seed: int | None,
    mode: str | None,
    device: "torch.device",
) -> "Run":
    """The run of a config in a JSON file, or of a record's config, with overrides; ConfigError as in `run_of_cell`."""
    from bench.config import override, read_config

    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--config {path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} holds no config: write a group of keys, as `config` of a record is")
    is_record = "run_id" in content and isinstance(content.get("config"), dict)
    named = label or (str(content.get("label")) if is_record else path.stem)
    try:
        config = override(read_config(content["config"] if is_record else content), assignments)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    return _run_of(named, config, seed, mode, device)


def _run_of(label: str, config: "RunConfig", seed: int | None, mode: str | None, device: "torch.device") -> "Run":
    from bench.config import Run

    default_mode = "fast" if device.type == "cuda" and config.training is not None else "exact"
    try:
        return Run(label=label, config=config, seed=seed, mode=mode or default_mode)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _config_of_cell(
    experiment: str, cell: str, assignments: list[str], recorded: "Recorded | None" = None
) -> "RunConfig":
    from bench.config import override
    from bench.experiments import find_experiment

    cells = {one.label: one for one in find_experiment(experiment, recorded).cells}
    if cell not in cells:
        raise ConfigError(f"no cell {cell!r} in {experiment}; its cells are {', '.join(cells)}")
    try:
        return override(cells[cell].config, assignments)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _show(finished: "Record") -> None:
    print(f"{finished.label} seed {finished.seed} ({finished.run_id}): {finished.status}")
    if finished.error:
        print(f"  {finished.error}")
    if finished.result:
        for name, protocol in (("sweep", finished.result.sweep), ("sampled", finished.result.sampled)):
            for choice, measured in (("best", protocol.best), ("final", protocol.final)):
                print(f"  {name} {choice}: perplexity {math.exp(measured.nats_per_token):.3f} at step {measured.step}")
