"""Cell (runs that differ only in seed) and Experiment, and the seeds, fixed before any run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from bench.config import Mode, Run, RunConfig
from bench.corpora import CORPORA, whole_text
from bench.errors import ConfigError
from bench.record import NO_SEED, SCHEMA_VERSION, Manifest, ManifestCell

REPORTING_SEEDS = (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)
TUNING_SEED = 1000  # and above, apart from those reported


def on_corpus(config: RunConfig, corpus: str) -> RunConfig:
    """`config` on another corpus, with that corpus's number of characters in its vocabulary."""
    model = replace(config.model, vocab_size=CORPORA[corpus].vocab_size)
    return replace(config, corpus=corpus, model=model)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ only in seed. `seeds` is (None,) for a fitted model."""

    label: str
    config: RunConfig
    seeds: tuple[int | None, ...]
    group: str | None = None  # the arm that a tuning trial or a replicate belongs to
    replicate: int = 0  # the same run again, where `fast` arithmetic may give other bits

    def run(self, seed: int | None, mode: Mode) -> Run:
        """The run at one of its seeds. A fitted model is counted in one way only, whatever the experiment's mode."""
        mode = "exact" if seed is None else mode
        return Run(label=self.label, config=self.config, seed=seed, mode=mode, replicate=self.replicate)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The cells that answer one question."""

    name: str
    question: str
    cells: tuple[Cell, ...]
    mode: Mode = "exact"
    reference: str | None = None  # the label, or the group of cells, that differences are taken to
    only_mode: Mode | None = None  # the one in which the question makes sense or its cells were chosen; None: either
    chosen_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # ids of the runs that chose, by family
    awaits: tuple[str, ...] = ()  # runs of these cells, by name, whose records will decide on further cells

    def __post_init__(self) -> None:
        labels = [cell.label for cell in self.cells]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"experiment {self.name!r} has two cells of one label: {labels}")
        if self.reference not in (None, *labels, *(cell.group for cell in self.cells)):
            raise ConfigError(f"experiment {self.name!r} has no cell {self.reference!r} to take differences to")
        for cell in self.cells:
            if len(set(cell.seeds)) < len(cell.seeds):
                raise ConfigError(f"{self.name}/{cell.label} names a seed twice: {cell.seeds}; seeds must be distinct")

        if len({whole_text(cell.config.corpus) for cell in self.cells}) > 1:
            raise ConfigError(f"experiment {self.name!r} has cells of two texts; its tables must not mix them")

    @property
    def corpus(self) -> str:
        """The text of its cells; of folds, the text that is divided."""
        return whole_text(self.cells[0].config.corpus)

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that each arm has its first seeds early."""
        longest = max(len(cell.seeds) for cell in self.cells)
        return [
            cell.run(cell.seeds[i], self.mode) for i in range(longest) for cell in self.cells if i < len(cell.seeds)
        ]

    def manifest(self, claim_rules_sha256: str | None = None) -> Manifest:
        """The manifest for a store; the hash is of the claims' rules, where they judge this experiment."""
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=self.name,
            question=self.question,
            corpus=self.corpus,
            mode=self.mode,
            cells=[
                ManifestCell(
                    label=cell.label,
                    run_ids={
                        NO_SEED if seed is None else str(seed): cell.run(seed, self.mode).run_id for seed in cell.seeds
                    },
                    group=cell.group,
                )
                for cell in self.cells
            ],
            claim_rules_sha256=claim_rules_sha256,
            reference=self.reference,
            chosen_by={family: list(run_ids) for family, run_ids in self.chosen_by.items()} or None,
        )

    def on(self, *, corpus: str | None, mode: Mode, seeds: tuple[int, ...] | None) -> "Experiment":
        """The same experiment in a mode and, where they are named, on another corpus and at other seeds.

        ConfigError for folds on another text: each would be the same run.
        """
        other = None if corpus == self.corpus else corpus
        if other is not None and len({cell.config.corpus for cell in self.cells}) > 1:
            raise ConfigError(f"experiment {self.name!r} is about the folds of {self.corpus}, not about {other}")
        cells = tuple(
            replace(
                cell,
                config=cell.config if other is None else on_corpus(cell.config, other),
                seeds=cell.seeds if seeds is None or cell.seeds == (None,) else seeds,
            )
            for cell in self.cells
        )
        return replace(self, cells=cells, mode=mode)

    def with_seeds(self, seeds: Callable[[Cell], Iterable[int | None]]) -> "Experiment":
        """The same experiment with other seeds of each trained cell; repeated ones are merged."""
        cells = [
            cell if cell.seeds == (None,) else replace(cell, seeds=tuple(dict.fromkeys(seeds(cell))))
            for cell in self.cells
        ]
        return replace(self, cells=tuple(cells))
