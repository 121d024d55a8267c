"""Tables, figures, verdicts and the report: everything that only reads records. The files, by concept:

Runs
    runs            the experiments of a store, their cells and records; trials and replicates
    frame           one row per run: the frame behind the tables, and runs.csv
    mixing          refuses means over runs that must not be mixed
    arms            which arms are variants or baselines
    families        the plain name of what an arm trains
    outside         contributed records and replications, which are in no mean
    series          readings by step
    searches        what a search chose, recomputed from its records
Statistics
    statistics      mean, spread, perplexity, paired t, Welch, equivalence, Holm
    student         Student's t, power, seeds needed
    resampling      the permutation test, block bootstrap
    plays           the two plays of the validation text, and the loss on each
    over_text       intervals over the text, in blocks of 2 and 16 kB and within plays
    contrasts       each arm against a reference arm
Published facts
    published       published figures and claims, from results/published.toml
    deviations      how our protocol differs from the published one
Output
    answer          what came out, in three sentences
    claims          the rules of C1 to C10, verdicts, the ledger
    tables, figures  the tables and the figures by kind
    table, notes    a table as Markdown, CSV and LaTeX; the lines below it
    page            the report, one HTML page
    output          making and writing all of it
    agreement       whether runs made again have the committed numbers
    summary         what the terminal shows of it
    explain         the runs of an arm
    export          curves and results in long form, for other programs
"""
