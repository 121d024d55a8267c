"""The value of tuning trials: the expected perplexity of the best of k."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.arms import config_of
from bench.report.families import family_of, searched
from bench.report.figures.drawing import Drawn, drawn_of, legend, new_figure, note
from bench.report.figures.looks import of_family
from bench.report.published import Published
from bench.report.runs import CellResults, Results, sweep_nats
from bench.report.statistics import expected_best, perplexity

FEWEST_TRIALS = 3  # below it there is no curve


def best_of_k(experiment: Results, published: Published) -> Iterator[Drawn]:
    """A line for each arm that was tuned; at most one figure."""
    chosen = {arm: cells for arm, cells in searched(experiment).items() if len(cells) >= FEWEST_TRIALS}
    arms = {arm: _perplexities(cells) for arm, cells in chosen.items() if any(cell.done for cell in cells)}
    if not arms:
        return
    counts = sorted({len(values) for values in arms.values()})
    few = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    without = ", ".join(f"{arm} {n}" for arm, values in arms.items() if (n := values.count(None)))
    figure = _draw(arms, [family_of(config_of(chosen[arm][0])) for arm in arms])
    note(figure, f"expected best of k, from n = {few} trials per arm")
    yield drawn_of(
        experiment,
        "best-of-k",
        figure,
        [],
        title="what more trials buy",
        caption=(
            "Validation perplexity (sweep, best) to be expected of the best of k trials, drawn without replacement "
            f"from all n = {few} trials of an arm, one seed each. The spread is that over trials, so there is no "
            "band. A line that still falls at its end would gain from more tuning."
            + (f" Trials without a number count as worse than any: {without}." if without else "")
        ),
        alt=f"Expected best validation perplexity against the number of tuning trials for {', '.join(arms)}.",
    )


def _perplexities(cells: Sequence[CellResults]) -> list[float | None]:
    """The perplexity of every trial; None where it gave none."""
    return [perplexity(min(sweep_nats(cell.done))) if cell.done else None for cell in cells]


def _draw(arms: dict[str, list[float | None]], families: Sequence[str]) -> Figure:
    figure = new_figure(3.0 + 0.17 * -(-len(arms) // 2))
    axes = figure.subplots()
    another = {"marker": "", "linestyle": ":"}  # of an arm that is not the first of its family
    looks = [of_family(name) | ({} if name == arm else another) for arm, name in zip(arms, families, strict=True)]
    for values, one in zip(arms.values(), looks, strict=True):
        known = [value for value in values if value is not None]
        best = {k: expected_best(known, len(values), k) for k in range(1, len(values) + 1)}
        drawn = {k: value for k, value in best.items() if value is not None}
        axes.plot(list(drawn), list(drawn.values()), **one)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("k, trials")
    axes.set_ylabel("expected best perplexity")
    legend(figure, looks, list(arms))
    return figure
