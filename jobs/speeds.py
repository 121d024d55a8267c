"""The speed of training steps on one kind of device, from records and measured throughput."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from bench.config import Mode, RunConfig, read_config
from bench.environment import cpu_name
from bench.errors import UserError
from bench.record import Record
from bench.store import Store, Timed
from bench.workload import DEFAULT_FORM, form_of, shape_of, step_flops

OTHER_ARCHITECTURE = 2.0  # it counts as far as twice the FLOPs: at equal FLOPs, speeds differ by up to that


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The target of runs. `name` is that of the processor or GPU; None for an unknown machine."""

    device: str  # cpu or cuda
    n_threads: int
    runs_per_gpu: int = 1
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The seconds of one training step, from one record or one benchmark."""

    label: str
    architecture: str
    form: str
    config: RunConfig | None = None  # None for a benchmark, which is known by its FLOPs, context and batch size
    context: int
    batch_size: int
    mode: str
    step_seconds: float
    step_flops: float
    device_name: str
    n_threads: int
    runs_per_gpu: int = 1  # that shared its GPU, itself included
    store: int  # the position of its store among those asked

    def works_like(self, config: RunConfig) -> bool:
        """Whether the step does the same work as that of a config."""
        if self.config is not None:
            return shape_of(self.config) == shape_of(config)
        mine = (self.architecture, self.form, self.context, self.batch_size)
        theirs = (config.architecture, form_of(config), *shape_of(config)[2:])
        return mine == theirs and math.isclose(self.step_flops, step_flops(config), rel_tol=1e-9)

    def made_at(self, platform: Platform) -> bool:
        """Whether it was measured on the machine where the runs go, with as many threads."""
        same_threads = platform.device == "cuda" or self.n_threads == platform.n_threads
        return self.device_name == platform.name and same_threads

    def alike(self, platform: Platform) -> bool:
        """Whether it had the GPU to itself, or shared it with as many runs as are to share it."""
        return self.runs_per_gpu in (1, platform.runs_per_gpu)

    def seconds_at(self, platform: Platform) -> float:
        """Seconds of the step there: runs that share a GPU take turns on it. Too many where `alike` is false."""
        return self.step_seconds * max(platform.runs_per_gpu / self.runs_per_gpu, 1.0)


def this_platform(device: str, n_threads: int, runs_per_gpu: int = 1) -> Platform:
    """This machine as a platform of runs."""
    name = cpu_name() if device == "cpu" else torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Platform(device=device, n_threads=n_threads, runs_per_gpu=runs_per_gpu, name=name)


def recorded_speeds(stores: Sequence[Store], device: str, modes: Iterable[Mode]) -> list[Speed]:
    """The speeds in the done records of a kind of device, in the given modes."""
    wanted, speeds = set(modes), []
    for index, store in enumerate(stores):
        shared = {run_id for one in store.manifests()[0] if one.shared_gpu for run_id in one.run_ids}
        records = [one for one in store.records()[0] if one.mode in wanted and one.environment.device == device]
        speeds += [_of_record(one.as_packed() if one.run_id in shared else one, index) for one in records]
    return [one for one in speeds if one is not None]


def benchmarked_speeds(stores: Sequence[Store], platform: Platform) -> list[Speed]:
    """The speeds that `make bench` measured on the target machine."""
    speeds = [
        _of_benchmark(one, measured.machine.device_name, index)
        for index, store in enumerate(stores)
        for measured in store.measurements()[0]
        for one in measured.timed
        if one.facts.phase == "training step" and one.facts.device == platform.device and one.facts.flops
    ]
    return [one for one in speeds if one.made_at(platform)]


def of_shape(speeds: Iterable[Speed], config: RunConfig, mode: Mode) -> list[Speed]:
    """The speeds of steps that do the same work."""
    return [one for one in speeds if one.mode == mode and one.works_like(config)]


def nearest(speeds: Iterable[Speed], config: RunConfig, mode: Mode, platform: Platform) -> list[Speed]:
    """The speeds that FLOPs are best scaled from: those of the nearest FLOPs per step, of the run's own architecture
    unless another one is nearer by `OTHER_ARCHITECTURE`. Only of its form of the recurrence; empty where there is none.
    """

    def distance(one: Speed) -> tuple[object, ...]:
        apart = abs(math.log(one.step_flops / flops))
        apart += math.log(OTHER_ARCHITECTURE) * (one.architecture != config.architecture)
        return round(apart, 9), *preference(one, platform)

    form, flops = form_of(config), step_flops(config)
    able = [one for one in speeds if one.mode == mode and one.form == form and one.step_flops > 0]
    least = min(map(distance, able), default=None)
    return [one for one in able if distance(one) == least]


def preferred(speeds: Sequence[Speed], platform: Platform) -> list[Speed]:
    """The speeds that are nearest to a platform, by `preference`; empty where there is none at all."""
    best = min((preference(one, platform) for one in speeds), default=None)
    return [one for one in speeds if preference(one, platform) == best]


def preference(speed: Speed, platform: Platform) -> tuple[bool, bool, bool, int]:
    """Least for what tells most: made on the platform, unshared (or shared alike), a record, of an earlier store."""
    return not speed.made_at(platform), not speed.alike(platform), speed.config is None, speed.store


def _of_record(record: Record, store: int) -> Speed | None:
    """None where it is not done, was not trained, or has a config that this version no longer has."""
    try:
        config = read_config(record.config)
    except UserError:
        return None
    if record.status != "done" or record.cost.train_seconds <= 0 or config.training is None:
        return None
    return Speed(
        label=record.label,
        architecture=config.architecture,
        form=form_of(config),
        config=config,
        context=config.context,
        batch_size=config.training.batch_size,
        mode=record.mode,
        step_seconds=record.cost.train_seconds / config.training.n_steps,
        step_flops=record.cost.train_flops / config.training.n_steps,
        device_name=record.environment.device_name,
        n_threads=record.environment.n_threads,
        runs_per_gpu=max((attempt.runs_per_gpu or 1 for attempt in record.attempts), default=1),
        store=store,
    )


def _of_benchmark(timed: Timed, device_name: str, store: int) -> Speed:
    facts = timed.facts
    assert facts.flops is not None
    return Speed(
        label=facts.model,
        architecture=facts.architecture,
        form=facts.backend or DEFAULT_FORM,
        context=facts.context,
        batch_size=facts.batch_size,
        mode=facts.mode,
        step_seconds=facts.seconds_per_step,
        step_flops=facts.flops,
        device_name=device_name,
        n_threads=facts.n_threads,
        store=store,
    )
