"""The first steps of runs, by the sources of the folder in which it is started: `recheck` compares them.

Started as `python -c` with this text, so that the sources of commits older than this file can be run too; it uses only
what every commit with records has. Each line of stdin requests one run, as JSON, and each line of stdout is its answer:
JSON keeps every bit of a float. It ends as soon as stdin closes, so it never outlives its parent process.
"""

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests, one after another."""
    answers, sys.stdout = sys.stdout, sys.stderr  # so that no other output mixes with the answers
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=read, args=(questions,), daemon=True).start()
    corpora: dict[tuple[str, str], Any] = {}
    while True:
        print(json.dumps(answer(questions.get(), corpora)), file=answers, flush=True)


def read(questions: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Read questions until stdin closes."""
    for line in sys.stdin:
        questions.put(json.loads(line))
    os._exit(0)


def answer(question: dict[str, Any], corpora: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """The first losses of a run, or the complete result of a fitted model, and the fingerprint of these sources.

    On failure the answer is an `error`, in one line.
    """
    try:
        from bench import sources

        found = Path(sources.__file__).resolve().parent.parent
        if found != Path.cwd().resolve():
            raise RuntimeError(f"Python imported the sources of {found} instead of those in {Path.cwd()}")
        import torch

        from bench import config, corpus

        run = config.read_run(question["run"])
        torch.set_num_threads(question["n_threads"])
        device = torch.device(question["device"])
        key = run.config.corpus, question["device"]
        if key not in corpora:
            folder = question["data_dir"]
            corpora[key] = corpus.load_corpus(run.config.corpus, device, Path(folder) if folder else None)
        measured = fitted(run, corpora[key]) if run.seed is None else first_losses(run, corpora[key], question)
        return {"fingerprint": sources.fingerprint(run.config.architecture), **measured}
    except Exception as error:
        traceback.print_exc()
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def first_losses(run: Any, corpus: Any, question: dict[str, Any]) -> dict[str, Any]:
    """The losses of the first `n_steps` steps in exact mode."""
    import torch

    from bench import train

    device = torch.device(question["device"])
    return {"first_train_nats": train.first_losses(run, corpus, device, n_steps=question["n_steps"])}


def fitted(run: Any, corpus: Any) -> dict[str, Any]:
    """The result of a fitted model, computed as in a run."""
    from bench.history import measure_fitted
    from bench.train import set_numerics
    from models import build_fitted

    set_numerics("exact", corpus.train.device)
    model = build_fitted(run.config.model).to(corpus.train.device).fit(corpus.train.long())
    return {"result": measure_fitted(model, corpus, run.config)[1].model_dump(mode="json")}


if __name__ == "__main__":
    main()
