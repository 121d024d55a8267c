"""What `reproduce` shows in the end: tables with the committed values beside, verdicts, and where the reports are."""

from bench.report.claims import ledger
from bench.report.output import Tables, make_tables, write_tables
from bench.report.page.gather import NAME, gather, write_report
from bench.report.published import PUBLISHED, load_published
from bench.store import Store

KINDS = ("perplexity", "differences", "modes", "parameters")


def show_outcome(here: Store, committed: Store, name: str) -> int:
    """Write the tables and the report of a store, and print those of one experiment and the verdicts. The exit code."""
    write_tables(here, make_tables(here))
    made = make_tables(here, compare=committed)
    print(made.select(KINDS, name))
    print(f"All tables: {here.root}/tables, or `make table STORE={here.root}`. The committed ones: `make table`.\n")
    judged, whose = _to_judge(made, committed)
    print(f"The preprint's claims, {whose}:")
    print(ledger.text(ledger.verdicts_of(judged.results, load_published(PUBLISHED))))
    print(f"\nYour report: {write_report(here, gather(here))}")
    if (committed.root / NAME).is_file():
        print(f"The report of the committed records, with every experiment: {committed.root / NAME}")
    return made.exit_code


def _to_judge(made: Tables, committed: Store) -> tuple[Tables, str]:
    """Your store where it holds runs that a claim is judged on, else the committed one; and whose they are in words."""
    names = {name for claim in made.published.claim for name in claim.experiments}
    if not committed.root.is_dir() or any(one.done for one in made.results.experiments if one.name in names):
        return made, "judged on your runs"
    return make_tables(committed), "judged on the committed runs, since yours are of no experiment that decides one"
