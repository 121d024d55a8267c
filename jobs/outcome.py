"""What `jobs` uses of the reports: the hash of the claims' rules, and tables and verdicts when a launch ends.

What makes tables is imported where it is used: a launch needs only the hash, and neither pandas nor matplotlib.
"""

import shlex

from bench.report.claims.registered import JUDGED_ON, rules_sha256
from bench.store import Store

KINDS = ("perplexity", "differences", "modes")


def rules_in_force(experiment: str) -> str | None:
    """The hash of the claims' rules as they are now; None for an experiment on which no claim is judged."""
    return rules_sha256() if experiment in JUDGED_ON else None


def write_all_tables(store: Store) -> None:
    """Write the tables of what a store has."""
    from bench.report.output import make_tables, write_tables

    write_tables(store, make_tables(store))


def show_outcome(here: Store, committed: Store, name: str) -> int:
    """Write the tables and the report of a store; print one experiment's, the verdicts, and whether the records agree.

    Returns the exit code.
    """
    from bench.report.agreement import agreement
    from bench.report.claims import ledger
    from bench.report.claims.verdicts import judge
    from bench.report.output import make_tables
    from bench.report.page.gather import NAME, gather, write_report
    from bench.report.published import PUBLISHED, load_published
    from bench.report.runs import read_results

    write_all_tables(here)
    made = make_tables(here, compare=committed)
    print(made.select(name, KINDS))
    tables = f"make table STORE={shlex.quote(str(here.root))}"
    print(f"All tables: {here.root}/tables, or `{tables}`. The committed ones: `make table`.\n")
    judged, whose, store = made, "judged on your runs", here
    names = {name for claim in made.published.claim for name in claim.experiments}
    if committed.root.is_dir() and not any(one.done for one in made.results.experiments if one.name in names):
        judged, store = make_tables(committed), committed
        whose = "judged on the committed runs, since yours are of no experiment that decides one"
    print(f"The preprint's claims, {whose}:")
    print(ledger.text(judge(judged.results, load_published(PUBLISHED)), store.root))
    print(f"\nYour report: {write_report(here, gather(here))}")
    if (committed.root / NAME).is_file():
        print(f"The report of the committed records, with every experiment: {committed.root / NAME}")
    if committed.root.is_dir():
        print(*agreement(made.results, read_results(committed), name), sep="\n")
    return made.exit_code
