"""The learning rate as a pure function of the step. The published schedules differ in their warm-up."""

import math

from bench.config import TrainingConfig


def learning_rate(step: int, training: TrainingConfig) -> float:
    """The learning rate of update number `step`, counted from 0."""
    if step < training.warmup_steps:
        return training.learning_rate * WARMUPS[training.schedule](step, training.warmup_steps)
    progress = (step - training.warmup_steps) / max(training.n_steps - training.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return training.final_learning_rate + (training.learning_rate - training.final_learning_rate) * cosine


WARMUPS = {
    "k_operators": lambda step, n: max(step, 1) / n,  # steps 0 and 1 have the same rate, as in the released code
    "nanogpt": lambda step, n: (step + 1) / (n + 1),
    "nanogpt_2023": lambda step, n: step / n,  # the first update has rate 0
}
