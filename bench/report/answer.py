"""What came out, in three sentences and a line of status: the same words for README, the page and the terminal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import count
from bench.report.arms import config_of, principal
from bench.report.claims.finding import Outcome, signed
from bench.report.claims.verdicts import Verdict
from bench.report.contrasts import Contrast, contrasts, primary_contrast
from bench.report.families import family_of, headline
from bench.report.notes import number
from bench.report.published import Published
from bench.report.runs import CellResults, Results, StoreResults
from bench.report.statistics import perplexity, summarise
from bench.report.tables.results import mean_perplexity
from bench.report.tables.view import figure_text, plain_mean_sd

CLAIMED = {"C1": "k_operators", "C2": "nanogpt_2023"}  # claims of a published figure, and the arm that is beside it
DECIDED: tuple[Outcome, ...] = ("reproduced", "not reproduced")
UNDECIDED: tuple[Outcome, ...] = ("inconclusive", "pending", "not started")
SEARCHES = {"matched": "tuning", "laptop-all": "laptop-tuning"}  # whose trials chose the recipes of an experiment
UNTUNED = "matched-untuned"  # stands in for `matched` while that has no run
NOT_RUN = "Not run yet."


@dataclass(frozen=True, kw_only=True)
class Bullet:
    """A question, its answer in a few words, and the numbers behind it in a sentence or two."""

    question: str
    short: str
    numbers: str = ""

    @property
    def markdown(self) -> str:
        """As an item of a Markdown list."""
        return f"- {self.question} **{self.short}** {self.numbers}".rstrip()


def bullets(ours: StoreResults, published: Published, verdicts: Sequence[Verdict]) -> tuple[Bullet, ...]:
    """The published figures; equal parameters at the preprint's size; the same at laptop size."""
    return _published(ours, published, verdicts), _matched(ours), _laptop(ours)


def status(ours: StoreResults, verdicts: Sequence[Verdict]) -> str:
    """`10 claims: 5 decided (…), 1 inconclusive, …`, and the newest record with its date and commit."""
    tally = Counter(verdict.outcome for verdict in verdicts)
    decided = ", ".join(f"{tally[outcome]} {outcome}" for outcome in DECIDED)
    if lost := [one.claim.short for one in verdicts if one.outcome == "not reproduced"]:
        decided += f": {'; '.join(lost)}"
    n_decided = sum(tally[outcome] for outcome in DECIDED)
    others = ", ".join(f"{tally[outcome]} {outcome}" for outcome in UNDECIDED)
    claims = f"Of the preprint's {count(len(verdicts), 'claim')}: {n_decided} decided ({decided}), {others}."
    records = [record for one in (*ours.experiments, *ours.in_other_mode) for c in one.cells for record in c.records]
    started, commit = max(
        ((attempt.started_at, record.sources.commit) for record in records for attempt in record.attempts),
        default=("", None),
    )
    if not started:
        return claims
    return f"{claims} Newest record: {started[:10]}, at commit {(commit or 'unknown')[:7]}."


def best_text(cell: CellResults, protocol: str = "sweep", selection: str = "best") -> str:
    """`4.434 ± 0.041`: the perplexity of an arm's done runs; `not run` without one."""
    values = [nats for record in cell.done if (nats := record.nats(protocol, selection)) is not None]
    return plain_mean_sd(summarise([perplexity(nats) for nats in values])) if values else "not run"


def gap_text(contrast: Contrast) -> str:
    """`worse by 0.0194 nats per token (95 % interval +0.0114 to +0.0274, n = 10 against 10)`."""
    compared = contrast.comparison
    assert compared is not None
    between = ""
    if compared.interval is not None:
        between = "95 % interval {} to {}, ".format(*map(signed, compared.interval))
    word = contrast.verdict.split(";")[0].removeprefix("so far ")
    told_apart = word.startswith(("better", "worse"))
    by = f" by {abs(compared.difference):.4f}" if told_apart else f", difference {signed(compared.difference)}"
    return f"{word}{by} nats per token ({between}n = {contrast.n_text})"


def _published(ours: StoreResults, published: Published, verdicts: Sequence[Verdict]) -> Bullet:
    question = "Are the published perplexities reproduced?"
    experiment = ours.experiment(published.experiment)
    outcomes = {one.claim.id: one.outcome for one in verdicts}
    texts = []
    for claim, label in CLAIMED.items():
        cell = None if experiment is None else experiment.cell(label)
        figures = published.beside(published.experiment, published.corpus, label)
        if cell is not None and cell.done and figures and claim in outcomes:
            figure = figures[0]
            value = best_text(cell, figure.protocol, figure.selection)
            texts.append(f"{_name(cell)} {value} (n = {cell.n_text}), published {figure_text(figure)}")
    if experiment is None or not texts:
        return Bullet(question=question, short=NOT_RUN)
    gap, primary = "", primary_contrast(experiment)
    if primary is not None:
        reference, full = (cell.done[0].cost.parameters.n_params for cell in (primary.reference, primary.arm))
        gap = f" Scored the same way, {_sentence(primary)}, with {reference / full:.1f} times fewer parameters."
    found = [outcomes[claim] for claim in CLAIMED]
    short = "Yes, both." if set(found) == {"reproduced"} else f"K-Operators: {found[0]}; nanoGPT: {found[1]}."
    return Bullet(question=question, short=short, numbers=f"{'; '.join(texts)}.{gap} Mode {experiment.mode}.")


def _matched(ours: StoreResults) -> Bullet:
    question = "At equal parameters, at the preprint's size?"
    matched, untuned = ours.experiment("matched"), ours.experiment(UNTUNED)
    if matched is not None and (primary := primary_contrast(matched)) is not None:
        return Bullet(
            question=question,
            short=_short(primary),
            numbers=f"{_sentence(primary)}. {_others(matched, primary)}".strip(),
        )
    short = "Not known yet. Searched: no."
    if untuned is None or (primary := primary_contrast(untuned)) is None:
        return Bullet(question=question, short=short, numbers=_search_state(ours, "matched"))
    arms = " and ".join(f"{_name(one)} {best_text(one)} (n = {one.n_text})" for one in (primary.arm, primary.reference))
    numbers = (
        f"{_search_state(ours, 'matched')} Until then {arms}, in mode {untuned.mode}, are no fair test: the one recipe "
        "was tuned by its author, the other was made for a larger model."
    )
    return Bullet(question=question, short=short, numbers=numbers)


def _laptop(ours: StoreResults) -> Bullet:
    experiment = next((one for name in ("laptop-all", "laptop") if (one := ours.experiment(name)) and one.done), None)
    if experiment is None or (primary := primary_contrast(experiment)) is None:
        return Bullet(question="At equal parameters, at laptop size?", short=NOT_RUN)
    millions = primary.reference.done[0].cost.parameters.n_params / 1e6
    numbers = f"{_sentence(primary)}. {_others(experiment, primary)} {_search_state(ours, experiment.name)}".strip()
    return Bullet(
        question=f"At equal parameters, at laptop size ({millions:.2f}M)?",
        short=" ".join(filter(None, (_short(primary), _ahead(experiment)))),
        numbers=numbers,
    )


def _short(primary: Contrast) -> str:
    """`K-Operators are worse than the Transformer.`."""
    ours, theirs, verdict = (
        _name(primary.arm),
        _name(primary.reference),
        primary.verdict.split(";")[0].removeprefix("so far "),
    )
    words = {"not distinguishable": "not distinguishable from", "too few seeds to tell": "not yet told apart from"}
    return f"{ours} are {words.get(verdict, f'{verdict} than')} the {theirs}."


def _ahead(experiment: Results) -> str:
    """`LSTM and modern Transformer are better than it.`: the other models that are, each tested; empty if none is."""
    models = headline(experiment).values()
    tested = [one for one in contrasts(experiment) if one.arm in models and one.question == "baselines"]
    ahead = [one for one in tested if not one.partial and one.verdict == "better"]
    names = [_short_name(one.arm) for one in sorted(ahead, key=lambda one: mean_perplexity(one.arm))]
    if not names:
        return ""
    *most, last = names
    listed = f"{', '.join(most)} and {last} are" if most else f"{last} is"
    return f"{listed} better than it."


def _short_name(cell: CellResults) -> str:
    """`modern Transformer` for `Transformer, modern`, inside a list of names."""
    return " ".join(reversed(_name(cell).split(", ")))


def _sentence(primary: Contrast) -> str:
    """`K-Operators (4.434 ± 0.041) against nanoGPT (4.349 ± 0.017): worse by 0.0194 nats per token (…)`."""
    ours, theirs = (f"{_name(cell)} ({best_text(cell)})" for cell in (primary.arm, primary.reference))
    return f"{ours} against {theirs}: {gap_text(primary).removeprefix('not distinguishable, ')}"


def _others(experiment: Results, primary: Contrast) -> str:
    """`Others: n-gram counts 4.804; LSTM 4.854; …`: the first arm of each family, the best of counts."""
    found: dict[str, float] = {}
    for cell in (*principal(experiment), *(cell for cell in experiment.cells if cell.fitted and cell.done)):
        value = mean_perplexity(cell)
        if _name(cell) not in found or (cell.fitted and value < found[_name(cell)]):
            found[_name(cell)] = value
    compared = {_name(primary.arm), _name(primary.reference)}
    ranked = sorted((value, name) for name, value in found.items() if name not in compared)
    return f"Others: {'; '.join(f'{name} {number(value)}' for value, name in ranked)}." if ranked else ""


def _name(cell: CellResults) -> str:
    return family_of(config_of(cell))


def _search_state(ours: StoreResults, experiment: str) -> str:
    """`Each has the best of 14 recipes.`, or how many runs of the search are in."""
    search = ours.experiment(SEARCHES.get(experiment, ""))
    if search is None:
        return f"The search for each recipe ({SEARCHES[experiment]}) has not run." if experiment in SEARCHES else ""
    n_trials = {len(cells) for cells in search.trials.values()}
    n_missing = sum(len(cell.missing) for cell in search.cells)
    if n_missing or len(n_trials) != 1:
        return f"The search, {search.name}, lacks {count(n_missing, 'run')}."
    return f"Each has the best of {n_trials.pop()} recipes."
