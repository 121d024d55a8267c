"""The manifest of an experiment whose records came from another machine, made from the code that asks its question."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.config import Mode
from bench.corpora import CORPORA, whole_text
from bench.errors import ConfigError, clean, count, typed
from bench.experiments.grid import Experiment, on_corpus
from bench.record import Manifest
from bench.sources import ROOT
from bench.store import Store
from bench.transfer.merge import Candidate, Merged
from bench.worktree import full_commit, worktree

SHA256 = re.compile(r"[0-9a-f]{64}")
# Asked of the folder that is named, a checkout of a commit. Older commits have their rules in bench/claims.py. An
# installed checkout is importable too, and would answer for a module that the commit lacks.
ASK = """
import sys
from importlib import import_module
from pathlib import Path

tree = sys.argv[1]
sys.path.insert(0, tree)
names = ("bench.report.claims.registered", "bench.claims")
rules = import_module(next(name for name in names if Path(tree, *name.split(".")).with_suffix(".py").is_file()))
ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "bench"]
if all(Path(file or tree).is_relative_to(tree) for file in ours):
    print(rules.rules_sha256())
"""
ASK_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Belonging:
    """The records of an experiment that were made in one mode on one corpus, by the label of their cell."""

    mode: Mode
    corpus: str
    cells: dict[str, list[Candidate]]

    @property
    def records(self) -> list[Candidate]:
        """All of them."""
        return [record for records in self.cells.values() for record in records]


def write_missing(
    experiment: Experiment,
    merged: Merged,
    store: Store,
    *,
    judged: bool,
    remark: str | None = None,
    shared_gpu: bool = False,
) -> list[str]:
    """Write a manifest for each mode that merged records have of an experiment, where the store has none.

    `remark` and `shared_gpu` go into it, and, where claims are `judged` on the experiment, the hash of the rules that
    were in force. What was done, in lines; ConfigError where no record is of the experiment.
    """
    found = _belonging(experiment, merged.records)
    if not found:
        raise ConfigError(
            f"--experiment {experiment.name}: none of the merged records is of it, so nothing was written"
        )
    lines, remarks = [], {"remark": remark, "shared_gpu": shared_gpu}
    for mode in dict.fromkeys(one.mode for one in found):
        of_mode = [one for one in found if one.mode == mode]
        if len(of_mode) > 1:
            corpora = " and ".join(one.corpus for one in of_mode)
            raise ConfigError(f"--experiment {experiment.name}: its records are of {corpora}; merge one at a time")
        lines += _write(experiment, of_mode[0], store, merged.manifests if judged else None, remarks)
    return lines


def _write(
    experiment: Experiment, belonging: Belonging, store: Store, sources: list[Manifest] | None, remarks: dict[str, Any]
) -> list[str]:
    """The manifest of one mode. One that is there stays as it is. `sources` has the records' own; None: not judged."""
    name, mode, run_ids = experiment.name, belonging.mode, {one.run_id for one in belonging.records}
    for manifest in store.manifests()[0]:
        if (manifest.name, manifest.mode) == (name, mode):
            missing = len(run_ids - set(manifest.run_ids))
            lines = [f"experiment {name}, mode {mode}: its manifest is there already"]
            if missing:
                seeds = ",".join(
                    map(str, sorted({one.run.seed for one in belonging.records if one.run.seed is not None}))
                )
                adding = typed(
                    "jobs", "launch", "--experiment", name, "--mode", mode, "--seeds", seeds, store=store.root
                )
                lines += [f"  it does not list {count(missing, 'run')}; this adds them: {adding}"]
            return lines
    rules, why = None, ""
    if sources is not None:
        at_launch = {one.claim_rules_sha256 for one in sources if (one.name, one.mode) == (name, mode)}
        rules, why = _rules(belonging.records, at_launch)
    asked = experiment.on(corpus=belonging.corpus, mode=mode, seeds=None)
    asked = asked.with_seeds(lambda cell: [*cell.seeds, *_seeds(belonging.cells.get(cell.label, ()))])
    manifest = asked.manifest(rules).model_copy(update=remarks)
    path = store.write_manifest(manifest)
    wrote = f"wrote {path.parent.name}/{path.name}, which lists {count(len(run_ids), 'run')} of these"
    return [f"experiment {name}, mode {mode}: {wrote}", *([f"  {why}"] if why else [])]


def _seeds(records: Iterable[Candidate]) -> list[int]:
    return sorted(one.run.seed for one in records if one.run.seed is not None)


def _belonging(experiment: Experiment, records: Iterable[Candidate]) -> list[Belonging]:
    """The records whose config is that of a cell, at its seeds under any label, or at others under its own.

    A text made by the code may stand in for that of the cell. A counted model belongs to both modes.
    """
    groups: dict[tuple[Mode, str], dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for cell in experiment.cells:
            run, config = record.run, cell.config
            if CORPORA[run.config.corpus].path is None:
                config = on_corpus(config, run.config.corpus)
            asked = run.seed in cell.seeds or run.label == cell.label
            if asked and (config, cell.replicate) == (run.config, run.replicate):
                groups[run.mode, whole_text(config.corpus)][cell.label].append(record)
    found = [Belonging(mode=mode, corpus=corpus, cells=dict(cells)) for (mode, corpus), cells in groups.items()]
    allowed = [one for one in found if experiment.only_mode in (None, one.mode)]
    trained = [one for one in allowed if any(record.run.seed is not None for record in one.records)]
    return sorted(trained or allowed, key=lambda one: (one.mode, one.corpus))


def hints(merged: Merged, store: Store) -> list[str]:
    """Hints for experiments whose manifest is in the sources and not in the store."""
    there = {(one.name, one.mode) for one in store.manifests()[0]}
    missing = dict.fromkeys(one.name for one in merged.manifests if (one.name, one.mode) not in there)
    return [f"no manifest here of experiment {clean(name)[:40]}: --experiment NAME writes it" for name in missing]


# --- the rules that were in force where the records were made ---


def _rules(records: Sequence[Candidate], at_launch: set[str | None]) -> tuple[str | None, str]:
    """The hash of the claims' rules at the records' commit, and words where that is not it.

    Where the commit does not tell, the manifests that came with the records do, if they agree.
    """
    rules, why = _rules_of_commits(records)
    only = next(iter(at_launch)) if len(at_launch) == 1 else None
    if rules is None and only is not None:
        return only, "the rules in force when it was launched are taken from the manifest that came with the records"
    return rules, why


def _rules_of_commits(records: Sequence[Candidate]) -> tuple[str | None, str]:
    unknown = "the rules in force when they were made are not known: "
    if any(one.dirty for one in records):
        return None, unknown + "some were made with edited sources"
    try:
        hashes = {_rules_at(one.commit) for one in records}
    except ConfigError as error:
        return None, f"{unknown}{error}"
    if len(hashes) > 1:
        return None, unknown + "the records are of several commits, whose rules differ"
    return hashes.pop(), ""


def _rules_at(commit: str | None) -> str:
    """The hash of the rules at a commit of this checkout. ConfigError with the reason where it is not known."""
    if commit is None:
        raise ConfigError("a record names no commit")
    return _ask(full_commit(commit, ROOT))


@cache
def _ask(commit: str) -> str:
    """The hash that the code of a commit gives."""
    with worktree(commit, ROOT) as tree:
        command = [sys.executable, "-c", ASK, str(tree)]
        try:
            answer = subprocess.run(
                command,
                cwd=tree,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
                timeout=ASK_SECONDS,
            )
        except subprocess.SubprocessError as error:
            raise ConfigError(f"the code of commit {commit[:12]} does not tell them") from error
    found = answer.stdout.strip()
    if not SHA256.fullmatch(found):
        raise ConfigError(f"the code of commit {commit[:12]} does not tell them")
    return found
