"""What `make table` prints: what came out, how far each experiment is, and where the tables lie; under 40 lines."""

import textwrap
from pathlib import Path

from bench.errors import count, typed
from bench.report.answer import bullets, status
from bench.report.claims.verdicts import judge
from bench.report.output import Tables
from bench.report.runs import Results, StoreResults

WIDTH = 80


def summary(made: Tables, root: str) -> str:
    """The answer, the runs of each experiment, notes, and what to type for more. `root`: the store, as it was named."""
    ours = made.results
    verdicts = judge(ours, made.published)
    lines: list[str] = []
    for one in bullets(ours, made.published, verdicts):
        lines += [*textwrap.wrap(f"{one.question} {one.short}", WIDTH), *_indented(one.numbers)]
    lines += ["", *textwrap.wrap(status(ours, verdicts), WIDTH)]
    lines += ["", "Runs done:", *_indented(", ".join(f"{one.name} {runs_text(ours, one)}" for one in ours.experiments))]
    lines += [line for note in made.notes for line in _unless_a_command(note)]
    store = None if root == "results" else Path(root)
    lines += [
        "",
        f"{count(len(made.tables), 'table')} in {root}/tables as .md, .csv and .tex; figures in {root}/figures.",
        f"One experiment's tables: {typed('bench', 'table', '--experiment', ours.experiments[0].name, store=store)}",
        f"All of them: {typed('bench', 'table', '--full', store=store)}",
    ]
    return "\n".join(lines)


def runs_text(ours: StoreResults, experiment: Results) -> str:
    """`42 of 60`, of all modes that it ran in, each run once."""
    modes = [one for one in (experiment, ours.other(experiment.name)) if one is not None]
    expected = {run_id for one in modes for run_id in one.manifest.run_ids}
    done = {record.run_id for one in modes for record in one.done}
    return f"{len(done):,} of {len(expected):,}"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _unless_a_command(note: str) -> list[str]:
    """Folded lines; a note that names a command stays one line, so that it can be copied."""
    return [note] if " -m " in note else textwrap.wrap(note, WIDTH)
