"""What a launch will cost: a few steps of each config, timed as the workers will run it, before anything is started.

`python -m jobs.probe` reads runs as JSON on stdin and prints the seconds that each will take.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.config import Run, RunConfig, read_run, run_to_json
from jobs.local import Slot

PROBE_SECONDS = 2.0  # of steps, at least
N_STEPS = 3  # at least
START_SECONDS = 4.0  # of a worker: Python, torch, the corpus


def estimate_seconds(runs: list[Run], slots: list[Slot], data_dir: Path | None) -> dict[str, float]:
    """Seconds each run will take, by run id, with all slots busy. A probe that fails estimates nothing."""
    by_config: dict[RunConfig, Run] = {}
    for run in runs:
        by_config.setdefault(run.config, run)
    slot, request = slots[0], json.dumps([run_to_json(run) for run in by_config.values()])
    command = [sys.executable, "-m", "jobs.probe", slot.device, str(slot.n_threads), str(data_dir or "")]
    # as many probes as there will be workers, so that they share memory bandwidth as the workers will
    n_probes = min(len(slots), len(runs))
    answers = []
    with ExitStack() as stack:
        probes = [
            stack.enter_context(
                subprocess.Popen(  # in a session of its own, so that Ctrl-C reaches only the launcher
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # a probe that fails estimates nothing; the run itself will say why
                    env=_environment(one),
                    text=True,
                    start_new_session=True,
                )
            )
            for one in slots[:n_probes]
        ]
        for probe in probes:
            stack.callback(probe.kill)  # before Popen's own wait; nothing where it has ended
            assert probe.stdin is not None
            with suppress(OSError):  # it ended early
                probe.stdin.write(request)
                probe.stdin.close()
        for probe in probes:
            assert probe.stdout is not None
            answer = probe.stdout.read()
            if probe.wait() == 0:
                answers.append(json.loads(answer))
    if not answers:
        return {}
    seconds = dict(zip(by_config, (max(some) for some in zip(*answers, strict=True)), strict=True))
    return {run.run_id: seconds[run.config] for run in runs}


def _environment(slot: Slot) -> dict[str, str]:
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": slot.visible_gpu} if slot.visible_gpu else {})}


def probe(run: Run, device_name: str, data_dir: Path | None) -> float:
    """Seconds that a run will take: its steps, its evaluations, its last measurements."""
    import torch

    from bench.corpus import load_corpus
    from bench.evaluate import EVAL_BATCH, SAMPLED_WINDOWS, sweep_starts, window_losses
    from bench.train import Trainer

    training = run.config.training
    if training is None:
        return 1.0
    device = torch.device(device_name)
    corpus = load_corpus(run.config.corpus, device, data_dir)
    trainer = Trainer(run, corpus, device)

    def timed(action: object) -> float:
        started = time.perf_counter()
        assert callable(action)
        result = action()
        (result[0] if isinstance(result, tuple) else result).sum().item()  # waits for the device
        return time.perf_counter() - started

    trainer.warm_up()
    timed(trainer.advance)
    steps: list[float] = []
    while len(steps) < N_STEPS or sum(steps) < PROBE_SECONDS:
        steps.append(timed(trainer.advance))
    starts = sweep_starts(corpus.val, run.config.context)
    batch = starts[:EVAL_BATCH]
    window = timed(lambda: window_losses(trainer.model, corpus.val, batch, run.config.context)) / len(batch)
    n_sweeps = training.n_steps // training.eval_every + 2
    n_windows = n_sweeps * len(starts) + 2 * (run.config.n_sampled_batches * SAMPLED_WINDOWS + 2 * len(starts))
    return START_SECONDS + training.n_steps * statistics.median(steps) + n_windows * window


def main() -> None:
    """Answer on stdout."""
    import torch

    device, n_threads, data_dir = sys.argv[1:]
    torch.set_num_threads(int(n_threads))
    runs = [read_run(one) for one in json.loads(sys.stdin.read())]
    print(json.dumps([probe(run, device, Path(data_dir) if data_dir else None) for run in runs]))


if __name__ == "__main__":
    main()
