"""`python -m bench ...`: the commands that read records. Those that train or measure are in bench/commands.py."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import make_app, open_store, pick_device, print_errors
from bench.commands import (
    DataDir,
    Device,
    StorePath,
    cuda_check,
    data,
    device,
    list_experiments,
    profile,
    rerun,
    run,
    sample,
    size,
)
from bench.errors import EXIT_FAILED, EXIT_INCOMPLETE, ConfigError, RecordError, typed

HELP = "Make one run, repeat it, sample from it, or make tables. Example: python -m bench table"
app = make_app(HELP, data, run, rerun, sample, size, device, cuda_check, profile)
app.command("list")(list_experiments)


@app.command()
def recheck(
    path: Annotated[
        Path | None, typer.Argument(metavar="[RECORD]", help="A record file of a store's runs/ folder.")
    ] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Every record of the store that other sources made.")] = False,
    store: StorePath = Path("results"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Records at a time; the default is what the cores carry.")
    ] = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Prove records that older sources made: their first 20 steps in exact mode have equal losses again.

    On a machine of another kind than made a record, its sources are compared instead: those of its commit and the
    present ones both take these steps, here. Neither exercises evaluation, the later schedule or the compiled step.
    Exit code 0: all proved; 1: one is not confirmed, or a file cannot be read; 3: some are left.
    """
    if (path is None) != stale:
        raise ConfigError("recheck: name one RECORD, or give --stale for all that need it")
    from bench.recheck.check import can_repeat, prove_in, summary, this_machine
    from bench.recheck.check import stale as stale_records
    from bench.record import Record, read
    from bench.sources import proofs_of, standing
    from bench.store import Store

    machine = this_machine(pick_device(device) if device else None, data_dir)
    errors: list[RecordError] = []
    if path is not None:
        records = [read(path, Record)]
        if path.resolve().parent.name != "runs":
            raise ConfigError(f"{path} is not in the runs/ folder of a store, so there is no place for its proof")
        here = Store(path.resolve().parent.parent)
        if standing(records[0], {}) == "current" and not can_repeat(records[0], machine):
            print(f"{path.name}: the present sources made it; to repeat it takes a machine of its kind")
            return
    else:
        here = open_store(store)
        records, errors = here.records()
        rechecks, recheck_errors = here.rechecks()
        errors += recheck_errors
        records = stale_records(records, proofs_of(rechecks), machine)
    outcomes = prove_in(here, records, machine, workers, say=lambda line: print(line, flush=True))
    if stale:
        print(summary(outcomes))
    states = {outcome.state for outcome in outcomes}
    if print_errors(errors) or "not confirmed" in states:
        raise typer.Exit(EXIT_FAILED)
    raise typer.Exit(EXIT_INCOMPLETE if "left" in states else 0)


@app.command()
def table(
    store: StorePath = Path("results"),
    compare: Annotated[Path | None, typer.Option(help="Another store, whose values are shown as well.")] = None,
    explain: Annotated[str | None, typer.Option(help="EXPERIMENT/LABEL: the runs and config behind a row.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Print the tables of this experiment.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Print every table.")] = False,
) -> None:
    """Make the tables and figures of a store, write them below STORE/tables and STORE/figures, and print a summary."""
    from bench.report.explain import explain as explain_cell
    from bench.report.output import make_tables, write_tables
    from bench.report.summary import summary

    here = open_store(store)
    if explain is not None:
        name, _, label = explain.partition("/")
        print(explain_cell(here, name, label))
        return
    made = make_tables(here, compare=open_store(compare) if compare else None)
    write_tables(here, made)
    if experiment is not None:
        names = [one.name for one in made.results.experiments]
        if experiment not in names:
            raise ConfigError(f"store {store} has no experiment {experiment!r}; it has: {', '.join(names) or 'none'}")
        print(made.select(experiment))
    else:
        print(made.text if full or not made.results.experiments else summary(made, str(store)))
    raise typer.Exit(print_errors(made.errors))


@app.command()
def export(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[RECORD...]", help="Record files; by default all of the store.")
    ] = None,
    store: StorePath = Path("results"),
    experiment: Annotated[str | None, typer.Option(help="Only the runs of this experiment.")] = None,
    form: Annotated[str, typer.Option("--format", help="csv or json")] = "csv",
) -> None:
    """Print curves, results and costs in long form: a row for each run, quantity and step; losses in nats per token.

    Example: python -m bench export --experiment laptop > laptop.csv
    """
    from bench.record import Record, read
    from bench.report.export import FORMATS
    from bench.report.export import export as export_text

    if form not in FORMATS:
        raise ConfigError(f"--format {form} is not one of {' and '.join(FORMATS)}")
    if paths and experiment is not None:
        raise ConfigError("name RECORD files or an --experiment, not both")
    errors: list[RecordError] = []
    if paths:
        records = [read(path, Record) for path in paths]
    else:
        here = open_store(store)
        records, errors = here.records()
        if experiment is not None:
            manifests, of_manifests = here.manifests()
            errors += of_manifests
            ids = {run_id for one in manifests if one.name == experiment for run_id in one.run_ids}
            if not ids:
                names = sorted({one.name for one in manifests})
                raise ConfigError(f"store {store} has no experiment {experiment!r}; it has: {', '.join(names)}")
            records = [one for one in records if one.run_id in ids]
    sys.stdout.write(export_text(records, form))
    raise typer.Exit(print_errors(errors))


@app.command()
def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Stores, folders of records, records, or tar archives.")
    ],
    into: Annotated[Path, typer.Option(help="The store that takes them.")] = Path("results"),
    experiment: Annotated[
        list[str] | None, typer.Option(help="Write its manifest where the store has none. Repeatable.")
    ] = None,
    contributed: Annotated[
        bool, typer.Option("--contributed", help="Others made them: they are shown apart from ours.")
    ] = False,
    remark: Annotated[
        str | None, typer.Option(help="With --experiment: how the runs were made, for the notes below its tables.")
    ] = None,
    shared_gpu: Annotated[
        bool, typer.Option("--shared-gpu", help="With --experiment: the runs shared a GPU: no speeds.")
    ] = False,
) -> None:
    """Take records that another machine made into a store: checked, copied byte for byte, nothing overwritten.

    Exit code 0: all was taken, or was there already; 1: something was refused.
    """
    from bench.experiments import check_name, in_modes
    from bench.report.claims.registered import JUDGED_ON
    from bench.store import Store
    from bench.transfer import merge as merging
    from bench.transfer.manifests import hints, write_missing

    asked = experiment or []
    for name in asked:
        check_name(name)
    if (remark is not None or shared_gpu) and not asked:
        raise ConfigError("--remark and --shared-gpu go into the manifest that --experiment NAME makes; name it too")
    if contributed and asked:
        raise ConfigError("--experiment is for our own records: what others made belongs to no launch of ours")
    here = Store(into)
    merged = merging.merge(sources, here, contributed=contributed)
    print("\n".join(merging.summary(merged, here)))
    modes = {one.run.mode for one in merged.records if one.run.seed is not None}
    for find in (find for name in asked for find in in_modes(name, here, modes)):
        try:
            one = find()
            judged = one.name in JUDGED_ON
            print("\n".join(write_missing(one, merged, here, judged=judged, remark=remark, shared_gpu=shared_gpu)))
        except ConfigError as error:
            merged.refused.append(str(error))
    for line in hints(merged, here):
        print(line)
    for line in merging.refusals(merged):
        typer.echo(line, err=True)
    if merged.new:
        print(f"Next: {typed('bench', 'table', store=into)}")
    if merged.refused:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def report(store: StorePath = Path("results")) -> None:
    """Build STORE/report.html from the records: one page with everything in it. Trains nothing."""
    from bench.report.page.gather import gather, write_report

    here = open_store(store)
    content = gather(here)
    print(write_report(here, content))
    raise typer.Exit(print_errors(content.unread))


@app.command()
def verify(
    store: StorePath = Path("results"),
    verbose: Annotated[bool, typer.Option("--verbose", help="With every number behind a verdict.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of objects.")] = False,
) -> None:
    """Judge each claim of the preprint on the runs of a store, one line per claim. Trains nothing.

    Exit code 0: all reproduced; 3: one is open or not run; 4: all are decided, and one is not reproduced; 1: a file
    cannot be read.
    """
    from bench.report.claims import ledger
    from bench.report.claims.verdicts import judge
    from bench.report.published import PUBLISHED, load_published
    from bench.report.runs import read_results

    ours = read_results(open_store(store))
    verdicts = judge(ours, load_published(PUBLISHED))
    print(ledger.as_json(verdicts) if as_json else ledger.text(verdicts, store, verbose=verbose))
    raise typer.Exit(print_errors(ours.errors) or ledger.exit_code(verdicts))
