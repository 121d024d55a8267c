"""One table as Markdown, CSV and LaTeX: every cell plain text, made safe for the form it is written in."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tabulate import tabulate

from bench.errors import clean

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "–"  # a cell whose number is missing
MINUS = "−"  # of numbers: unlike a hyphen, no spreadsheet takes it for the start of a formula
LATEX_SYMBOLS = {  # tabulate escapes $
    "±": r"$\pm$", "×": r"$\times$", "†": r"$\dagger$", "‡": r"$\ddagger$", MINUS: "$-$", "–": "--",
}  # fmt: skip
NEGATIVE_NUMBER = re.compile(rf"{MINUS}(\d[\d,]*(\.\d+)?)")
MARKDOWN_SPECIALS = r"\`|*<>[]&"  # `_` inside a word is only itself


@dataclass(frozen=True, kw_only=True)
class Table:
    """One view over an experiment's cells, or over a device's throughput: plain text, escaped when it is rendered."""

    experiment: str  # or "throughput"
    kind: str  # one of KINDS, or the device
    intro: str
    columns: tuple[str, ...]
    n_left: int  # columns that are words, aligned left; the rest are numbers
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.experiment}-{self.kind}"

    def markdown(self) -> str:
        """A heading, the table and its legend."""
        notes = "\n".join(f"- {markdown_text(note)}" for note in self.notes)
        table = self._tabulate("pipe", markdown_text)
        return f"## {self.experiment}: {self.kind}\n\n{markdown_text(self.intro)}\n\n{table}\n\n{notes}\n"

    def csv(self) -> str:
        """The cells only; one that a spreadsheet would take for a formula starts with an apostrophe."""
        text: str = self._frame(csv_text).to_csv(index=False, lineterminator="\n")
        return text

    def latex(self) -> str:
        """A booktabs tabular to \\input, its legend as comments."""
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
        alignment = ["left"] * self.n_left + ["right"] * (len(self.columns) - self.n_left)
        rows = cast(list[list[str]], frame.to_numpy().tolist())
        return tabulate(rows, list(frame.columns), tablefmt=form, colalign=alignment, disable_numparse=True)


def markdown_text(text: str) -> str:
    return "".join(f"\\{char}" if char in MARKDOWN_SPECIALS else char for char in clean(text))


def csv_text(text: str) -> str:
    """`text` as a cell of CSV: one that a spreadsheet would take for a formula starts with an apostrophe."""
    cleaned = clean(text)
    if negative := NEGATIVE_NUMBER.fullmatch(cleaned):
        return f"-{negative[1]}"  # as programs read it; a number by itself is no formula
    return f"'{cleaned}" if cleaned.startswith(("=", "+", "-", "@")) else cleaned
