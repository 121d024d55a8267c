"""One table of an experiment that ran in both modes: the rows of each mode's own table, arm by arm."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from bench.report.notes import machines
from bench.report.runs import CellResults, Results
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, TRIAL, arm_label, mode_of

MODES_NOTE = (
    "mode: exact is float32, eager and deterministic; fast is bf16 and compiled. Means, differences, ratios and "
    "p-values are formed within one mode. – marks a counted model, which has none."
)
Item = TypeVar("Item", bound=Hashable)
Pair = tuple[Results, Results]  # an experiment in its chosen mode, and in its other one


def in_both_modes(first: Table | None, second: Table | None, modes: Pair) -> Table | None:
    """The tables that one function made of an experiment in each of its modes, as one; None where neither is there.

    An arm without a record in one mode has no row for it where the other mode has one. An arm without a record in
    either, and a counted model, has one row.
    """
    chosen, other = modes
    in_order = interleaved(*([] if table is None else [row[0] for row in table.rows] for table in (first, second)))
    first = None if first is None else _with_mode(first, chosen, other, is_chosen=True)
    second = None if second is None else _with_mode(second, other, chosen, is_chosen=first is None)
    if first is None or second is None:
        silent, only = (chosen, second) if first is None else (other, first)
        if only is None:
            return None
        return replace(only, notes=(*only.notes, f"Mode {silent.mode} has nothing to show here.", MODES_NOTE))
    columns = interleaved(first.columns, second.columns)
    rows = [dict(zip(table.columns, row, strict=True)) for table in (first, second) for row in table.rows]
    return replace(
        first,
        columns=tuple(columns),
        rows=tuple(
            tuple(row.get(column, NOTHING) for column in columns)
            for name in in_order
            for row in rows
            if row[columns[0]] == name
        ),
        notes=(*merged_notes(*_with_machines(first.notes, second.notes, modes), modes), MODES_NOTE),
    )


def merged_notes(first: Sequence[str], second: Sequence[str], modes: Pair) -> list[str]:
    """The notes of both modes, each once; a note on one mode names it."""
    return [
        note if note in first and note in second else f"Mode {modes[note not in first].mode}: {note}"
        for note in interleaved(first, second)
    ]


def interleaved(first: Sequence[Item], second: Sequence[Item]) -> list[Item]:
    """Both sequences as one, each item once; an item only in the second goes before its successor there."""
    merged = list(dict.fromkeys(first))
    place = len(merged)
    for item in reversed(list(dict.fromkeys(second))):
        if item in merged:
            place = merged.index(item)
        else:
            merged.insert(place, item)
    return merged


def _with_mode(table: Table, here: Results, there: Results, *, is_chosen: bool) -> Table:
    """The table with a column of modes, less the rows that the table of the other mode has in their place."""
    cells = {arm_label(here, cell): cell for cell in here.cells}
    names_cell = table.columns.index(TRIAL) if TRIAL in table.columns else 0  # else it names a cell, or none
    found = [(row, cells.get(row[names_cell])) for row in table.rows]
    found = [(row, cell) for row, cell in found if cell is None or _has_row(cell, there, is_chosen=is_chosen)]
    if MODE in table.columns:
        return replace(table, rows=tuple(row for row, _ in found))
    return replace(
        table,
        columns=(table.columns[0], MODE, *table.columns[1:]),
        n_left=table.n_left + 1 if table.n_left else 0,
        rows=tuple((row[0], here.mode if cell is None else mode_of(cell), *row[1:]) for row, cell in found),
    )


def _has_row(cell: CellResults, there: Results, *, is_chosen: bool) -> bool:
    """Whether a cell has a row next to that of the same label in the other mode."""
    same = there.cell(cell.label)
    if same is None or (cell.records and not same.records):
        return True
    if same.records and not cell.records:
        return False
    return is_chosen or (bool(cell.records) and not cell.fitted)


def _with_machines(first: Sequence[str], second: Sequence[str], modes: Pair) -> tuple[list[str], list[str]]:
    """The notes of both tables; where these name machines, both name those of both modes, each run counted once."""
    chosen, other = modes
    named = machines(chosen), machines(other)
    if not any(note in notes for notes, names in zip((first, second), named, strict=True) for note in names):
        return list(first), list(second)
    trained = tuple(cell for cell in other.cells if not (cell.fitted and chosen.cell(cell.label)))
    of_both = machines(replace(chosen, cells=(*chosen.cells, *trained)))
    without = (
        [note for note in notes if note not in names] for notes, names in zip((first, second), named, strict=True)
    )
    one, two = ([*notes, *of_both] for notes in without)
    return one, two
