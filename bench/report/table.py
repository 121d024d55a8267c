"""A table of plain text, written as Markdown, CSV and LaTeX; each format escapes its special characters."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from tabulate import tabulate

from bench.errors import clean

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "–"  # a cell whose number is missing
MINUS = "−"  # of negative numbers: a spreadsheet reads a leading hyphen as a formula
LATEX_SYMBOLS = {  # tabulate escapes $
    "±": r"$\pm$", "×": r"$\times$", "†": r"$\dagger$", "‡": r"$\ddagger$", MINUS: "$-$", "–": "--",
}  # fmt: skip
NUMBER = rf"(?:{MINUS}\d[\d,]*(?:\.\d+)?|\+?\d[\d,]*\.\d+)"  # "+1" may be a name
SIGNED = re.compile(rf"{NUMBER}(?: to {NUMBER})?")
# a cell of a column of numbers: they begin with one, and are no list
NUMERIC = re.compile(rf"(?:{NOTHING}|reference|exact|primary|[{MINUS}+<]? ?\d)(?!.*[,;] )")
MARKDOWN_SPECIALS = r"\`|*<>[]&"  # `_` inside a word needs no escape


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of an experiment, or of the throughput of a device, as plain text; escaped when written."""

    experiment: str  # or "throughput"
    kind: str  # one of KINDS, or the device for throughput
    intro: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, experiment: str, kind: str, intro: str, rows: Sequence[dict[str, str]], notes: Sequence[str]
    ) -> "Table | None":
        """A table of rows, each with its cells by column, in the order of the columns; None if there is no row."""
        if not rows:
            return None
        return cls(
            experiment=experiment,
            kind=kind,
            intro=intro,
            columns=tuple(rows[0]),
            rows=tuple(tuple(row.values()) for row in rows),
            notes=tuple(notes),
        )

    @cached_property
    def numeric(self) -> tuple[bool, ...]:
        """Whether a column holds numbers, which are aligned right: all its cells but the missing begin with one."""
        cells = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return tuple(
            number > 0 and any(cell != NOTHING for cell in column) and all(map(NUMERIC.match, column))
            for number, column in enumerate(cells)
        )

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.experiment}-{self.kind}"

    def markdown(self) -> str:
        """Heading, intro, table and notes."""
        notes = "\n".join(f"- {markdown_text(note)}" for note in self.notes)
        table = self._tabulate("pipe", markdown_text)
        return f"## {self.experiment}: {self.kind}\n\n{markdown_text(self.intro)}\n\n{table}\n\n{notes}\n"

    def csv(self) -> str:
        """Columns and rows, without notes; see csv_text."""
        text: str = self._frame(csv_text).to_csv(index=False, lineterminator="\n")
        return text

    def latex(self) -> str:
        """A booktabs tabular for \\input, with the notes as comments."""
        table = self._tabulate("latex_booktabs", clean)
        for symbol, command in LATEX_SYMBOLS.items():
            table = table.replace(symbol, command)
        legend = (f"{self.experiment}: {self.kind}", self.intro, *self.notes)
        return "".join(f"% {clean(line)}\n" for line in legend) + table + "\n"

    def _frame(self, escape: Callable[[str], str]) -> "pd.DataFrame":
        import pandas as pd

        rows = [[escape(cell) for cell in row] for row in self.rows]
        return pd.DataFrame(rows, columns=[escape(column) for column in self.columns], dtype=str)

    def _tabulate(self, form: str, escape: Callable[[str], str]) -> str:
        frame = self._frame(escape)
        alignment = ["right" if numeric else "left" for numeric in self.numeric]
        rows = cast(list[list[str]], frame.to_numpy().tolist())
        return tabulate(rows, list(frame.columns), tablefmt=form, colalign=alignment, disable_numparse=True)


def markdown_text(text: str) -> str:
    """`text` with the special characters of Markdown escaped."""
    return "".join(f"\\{char}" if char in MARKDOWN_SPECIALS else char for char in clean(text))


def csv_text(text: str) -> str:
    """`text` as a CSV cell; what a spreadsheet would read as a formula gets a leading apostrophe."""
    cleaned = clean(text)
    if SIGNED.fullmatch(cleaned):  # no formula: "+" is left out
        text = cleaned.replace("+", "")
        return text if " to " in text else text.replace(MINUS, "-")  # the hyphen that programs read
    return f"'{cleaned}" if cleaned.startswith(("=", "+", "-", "@")) else cleaned
