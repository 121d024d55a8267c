"""The tables of an experiment by kind."""

from collections.abc import Callable

from bench.report.table import Table
from bench.report.tables.best_of_k import best_of_k_table
from bench.report.tables.budgets import budgets_table
from bench.report.tables.cost import cost_table
from bench.report.tables.differences import differences_table
from bench.report.tables.dynamics import dynamics_table
from bench.report.tables.folds import folds_table
from bench.report.tables.noise import noise_table
from bench.report.tables.parameters import parameters_table
from bench.report.tables.perplexity import perplexity_table
from bench.report.tables.plays import plays_table
from bench.report.tables.protocols import protocols_table
from bench.report.tables.relative_budgets import relative_budgets_table
from bench.report.tables.results import results_table
from bench.report.tables.search import search_table
from bench.report.tables.tuning import tuning_table
from bench.report.tables.view import View
from bench.report.tables.warpeace import warpeace_table

TABLES: dict[str, Callable[[View], Table | None]] = {  # of an experiment, by kind; None: it has nothing to show there
    "results": results_table,
    "perplexity": perplexity_table,
    "differences": differences_table,
    "plays": plays_table,
    "folds": folds_table,
    "warpeace": warpeace_table,
    "protocols": protocols_table,
    "parameters": parameters_table,
    "budgets": budgets_table,
    "relative-budgets": relative_budgets_table,
    "cost": cost_table,
    "dynamics": dynamics_table,
    "noise": noise_table,
    "tuning": tuning_table,
    "search": search_table,
    "best-of-k": best_of_k_table,
}
