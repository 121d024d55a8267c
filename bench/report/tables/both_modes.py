"""The tables of an experiment that ran in both modes: the rows of both modes in one table, by arm."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from bench.report.notes import machines
from bench.report.runs import CellResults, Results
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, TRIAL, arm_label, mode_of

MODES_NOTE = (
    "mode: exact is float32, eager and deterministic; fast is bf16 and compiled. Means, differences, ratios and "
    "p-values are within one mode. –: a counted model has no mode."
)
Item = TypeVar("Item", bound=Hashable)
Pair = tuple[Results, Results]  # an experiment in its chosen mode and in the other


def in_both_modes(first: Table | None, second: Table | None, modes: Pair) -> Table | None:
    """One table from the same table of an experiment in each mode; None if there is neither.

    An arm with records in only one mode has one row, that of this mode. An arm without any record, and a counted model,
    have one row.
    """
    chosen, other = modes
    in_order = interleaved(*([] if table is None else [row[0] for row in table.rows] for table in (first, second)))
    first = None if first is None else _with_mode(first, chosen, other, is_chosen=True)
    second = None if second is None else _with_mode(second, other, chosen, is_chosen=first is None)
    if first is None or second is None:
        empty, only = (chosen, second) if first is None else (other, first)
        if only is None:
            return None
        return replace(only, notes=(*only.notes, f"Mode {empty.mode} has no rows here.", MODES_NOTE))
    columns = interleaved(first.columns, second.columns)
    rows = [dict(zip(table.columns, row, strict=True)) for table in (first, second) for row in table.rows]
    rows.sort(key=lambda row: in_order.index(row[columns[0]]))
    return replace(
        first,
        columns=tuple(columns),
        rows=tuple(tuple(row.get(column, NOTHING) for column in columns) for row in rows),
        notes=(*merged_notes(_with_machines((first.notes, second.notes), modes), modes), MODES_NOTE),
    )


def merged_notes(notes: Iterable[Sequence[str]], modes: Pair) -> list[str]:
    """The notes of both modes, each once; a note of only one mode starts with the mode."""
    first, second = notes
    return [
        note if note in first and note in second else f"Mode {modes[note not in first].mode}: {note}"
        for note in interleaved(first, second)
    ]


def interleaved(first: Sequence[Item], second: Sequence[Item]) -> list[Item]:
    """Both sequences merged, each item once; an item only in the second is before the item that follows it there."""
    merged = list(dict.fromkeys(first))
    index = len(merged)
    for item in reversed(list(dict.fromkeys(second))):
        if item in merged:
            index = merged.index(item)
        else:
            merged.insert(index, item)
    return merged


def _with_mode(table: Table, here: Results, there: Results, *, is_chosen: bool) -> Table:
    """The table with a column of modes, without the rows that only the table of the other mode should have."""
    cells = {arm_label(here, cell): cell for cell in here.cells}
    label_column = table.columns.index(TRIAL) if TRIAL in table.columns else 0
    found = [(row, cells.get(row[label_column])) for row in table.rows]
    found = [(row, cell) for row, cell in found if cell is None or _has_row(cell, there, is_chosen=is_chosen)]
    if MODE in table.columns:
        return replace(table, rows=tuple(row for row, _ in found))
    return replace(
        table,
        columns=(table.columns[0], MODE, *table.columns[1:]),
        rows=tuple((row[0], here.mode if cell is None else mode_of(cell), *row[1:]) for row, cell in found),
    )


def _has_row(cell: CellResults, there: Results, *, is_chosen: bool) -> bool:
    """Whether a cell has a row in addition to that of the same label in the other mode."""
    same = there.cell(cell.label)
    if same is None or bool(cell.records) != bool(same.records):
        return same is None or bool(cell.records)
    return is_chosen or (bool(cell.records) and not cell.fitted)


def _with_machines(both: Sequence[Sequence[str]], modes: Pair) -> list[list[str]]:
    """The notes of both tables; if they list machines, both list those of both modes, each run counted once."""
    chosen, other = modes
    named = machines(chosen), machines(other)
    left = [[note for note in notes if note not in names] for notes, names in zip(both, named, strict=True)]
    if sum(map(len, left)) == sum(map(len, both)):
        return left
    trained = tuple(cell for cell in other.cells if not (cell.fitted and chosen.cell(cell.label)))
    of_both = machines(replace(chosen, cells=(*chosen.cells, *trained)))
    return [[*notes, *of_both] for notes in left]
