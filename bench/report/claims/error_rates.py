"""How often the rules of C1, C3 and C10 say what, when the claim is exactly true and when it is false by its margin.

`results/error_rates.toml` has what `error_rates` computes in ten seconds; a test runs it again, so a changed rule needs
another file. Simulated with normal losses whose spreads between seeds are those measured at the preprint's size (paper,
mode fast): 0.0093 nats of K-Operators, 0.0040 of nanoGPT's recipe, -0.31 their correlation at common seeds.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.record import Strict
from bench.report.claims.finding import BOUNDS, Outcome, non_inferiority
from bench.report.claims.rules import against_published, better, published_nats, together
from bench.report.published import PUBLISHED, Claim, Published, PublishedError, read_toml
from bench.report.statistics import mean, paired_t
from bench.report.table import Table

SD_OURS, SD_THEIRS, CORRELATION = 0.0093, 0.0040, -0.31
N_SIMULATIONS = 2000
FILE = PUBLISHED.with_name("error_rates.toml")
SEED = 20261127
Draw = Callable[[random.Random], Outcome]


class ErrorRate(Strict):
    """How often a rule gives each outcome when the difference is truly this one, as shares of the simulations."""

    claim: str
    difference: float  # ours minus theirs, nats per token
    reproduced: float
    not_reproduced: float
    inconclusive: float


class ErrorRates(Strict):
    """The content of `results/error_rates.toml`."""

    n_simulations: int
    rate: tuple[ErrorRate, ...]


def error_rates_table(path: Path = FILE) -> Table | None:
    """A row per claim and true difference; None without the file."""
    if not path.is_file():
        return None
    rates = read_toml(path, ErrorRates, PublishedError)
    rows = [
        {
            "claim": one.claim,
            "true difference, nats per token": f"{one.difference:+.4f}".replace("-", "−"),
            "reproduced": f"{one.reproduced:.1%}",
            "not reproduced": f"{one.not_reproduced:.1%}",
            "inconclusive": f"{one.inconclusive:.1%}",
        }
        for one in rates.rate
    ]
    intro = "How often does a rule say what, when the difference is truly this one?"
    notes = [
        f"Simulated {rates.n_simulations:,} times for each row, with normal losses whose spreads between seeds are "
        f"those measured at the preprint's size: {SD_OURS} nats of K-Operators, {SD_THEIRS} of nanoGPT's recipe, "
        f"{CORRELATION} their correlation at common seeds; all planned seeds in. The margins of C1, C3 and C10 are "
        "0.02. Of C10 the three baselines are equally good.",
    ]
    return Table.of("claims", "error-rates", intro, rows, notes)


def error_rates(published: Published) -> ErrorRates:
    """The rates, simulated with a fixed seed."""
    rows = []
    for claim_id, truth, draw in cases(published):
        generator = random.Random(f"{SEED} {claim_id} {truth}")
        counts = Counter(draw(generator) for _ in range(N_SIMULATIONS))
        shares = {
            outcome.replace(" ", "_"): counts[outcome] / N_SIMULATIONS
            for outcome in ("reproduced", "not reproduced", "inconclusive")
        }
        rows.append(ErrorRate(claim=claim_id, difference=truth, **shares))
    return ErrorRates(n_simulations=N_SIMULATIONS, rate=tuple(rows))


def cases(published: Published) -> Iterator[tuple[str, float, Draw]]:
    """The claims and true differences that are simulated, ours minus theirs."""
    claims = {claim.id: claim for claim in published.claim}
    theirs = published_nats(published, "k_operators")
    for truth in (0.0, 0.02, -0.02, 0.04):
        yield "C1", truth, lambda at, truth=truth: c1(at, claims["C1"], theirs, truth)  # type: ignore[misc]
    for truth in (0.0, 0.0194, 0.02, 0.04):
        yield "C3", truth, lambda at, truth=truth: c3(at, claims["C3"], truth)  # type: ignore[misc]
    for truth in (0.0, -0.02, -0.04):
        yield "C10", truth, lambda at, truth=truth: c10(at, claims["C10"], truth)  # type: ignore[misc]


def c1(generator: random.Random, claim: Claim, theirs: list[float], truth: float) -> Outcome:
    """Ten seeds of ours against five whose true mean is that of the published ones."""
    ours = normal(generator, mean(theirs) + truth, SD_OURS, 10)
    published = normal(generator, mean(theirs), 0.0122, len(theirs))  # the spread of the published five
    found = against_published(claim, "", ours, published)
    assert found is not None
    return found.outcome


def c3(generator: random.Random, claim: Claim, truth: float) -> Outcome:
    """Ten pairs of seeds, correlated as measured."""
    theirs = normal(generator, 0.0, 1.0, 10)
    noise = normal(generator, 0.0, 1.0, 10)
    share = (1 - CORRELATION**2) ** 0.5
    ours = [truth + SD_OURS * (CORRELATION * a + share * b) for a, b in zip(theirs, noise, strict=True)]
    compared = paired_t(ours, [SD_THEIRS * one for one in theirs], confidence=BOUNDS)
    assert compared.interval is not None
    return non_inferiority(*compared.interval, claim.thresholds["margin"])


def c10(generator: random.Random, claim: Claim, truth: float) -> Outcome:
    """Ten seeds of ours against ten, five and five of three baselines that are equally good."""
    ours = normal(generator, truth, SD_OURS, 10)
    return together([better(claim, "", ours, normal(generator, 0.0, SD_THEIRS, n))[0] for n in (10, 5, 5)])


def normal(generator: random.Random, centre: float, sd: float, n: int) -> list[float]:
    """`n` normal numbers."""
    return [generator.gauss(centre, sd) for _ in range(n)]
