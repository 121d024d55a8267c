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
from bench.workload import DEFAULT_FORM, Shape, form_of, shape_of, step_flops

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
    shape: Shape | None  # None for a benchmark, which is known by its FLOPs, context and batch size
    config: RunConfig | None
    context: int
    batch_size: int
    mode: str
    step_seconds: float
    step_flops: float
    device_name: str
    n_threads: int
    runs_per_gpu: int  # that shared its GPU, itself included
    store: int  # the position of its store among those asked

    def made_at(self, place: Platform) -> bool:
        """Whether it was measured on the machine where the runs go, with as many threads."""
        same_threads = place.device == "cuda" or self.n_threads == place.n_threads
        return self.device_name == place.name and same_threads

    def alike(self, place: Platform) -> bool:
        """Whether it had the GPU to itself, or shared it with as many runs as are to share it."""
        return self.runs_per_gpu in (1, place.runs_per_gpu)

    def seconds_at(self, place: Platform) -> float:
        """Seconds of the step there: runs that share a GPU take turns on it. Too many where `alike` is false."""
        return self.step_seconds * max(place.runs_per_gpu / self.runs_per_gpu, 1.0)


def place_of(device: str, n_threads: int, runs_per_gpu: int = 1) -> Platform:
    """This machine as a place for runs."""
    if device == "cpu":
        return Platform(device=device, n_threads=n_threads, name=cpu_name())
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Platform(device=device, n_threads=n_threads, runs_per_gpu=runs_per_gpu, name=name)


def recorded_speeds(stores: Sequence[Store], device: str, modes: Iterable[Mode]) -> list[Speed]:
    """The speeds in the done records of a kind of device, in the given modes."""
    wanted = set(modes)
    return [
        speed
        for index, store in enumerate(stores)
        for one in _records(store)
        if one.mode in wanted and one.environment.device == device
        if (speed := _of_record(one, index)) is not None
    ]


def _records(store: Store) -> list[Record]:
    """A store's records; those of an experiment whose runs are known to have shared a GPU are marked so."""
    manifests = [one for one in store.manifests()[0] if one.shared_gpu]
    shared = {run_id for one in manifests for cell in one.cells for run_id in cell.run_ids.values()}
    return [one.as_packed() if one.run_id in shared else one for one in store.records()[0]]


def benchmarked_speeds(stores: Sequence[Store], place: Platform) -> list[Speed]:
    """The speeds that `make bench` measured on the target machine."""
    speeds = [
        _of_benchmark(one, measured.machine.device_name, index)
        for index, store in enumerate(stores)
        for measured in store.measurements()[0]
        for one in measured.timed
        if one.facts.phase == "training step" and one.facts.device == place.device and one.facts.flops
    ]
    return [one for one in speeds if one.made_at(place)]


def of_shape(speeds: Iterable[Speed], config: RunConfig, mode: Mode) -> list[Speed]:
    """The speeds of steps that do the same work."""
    shape, same = shape_of(config), []
    for one in speeds:
        if one.mode != mode or (one.context, one.batch_size) != shape[2:]:
            continue
        if one.shape is None:  # a benchmark
            of_a_kind = (one.architecture, one.form) == (config.architecture, form_of(config))
            if of_a_kind and math.isclose(one.step_flops, step_flops(config), rel_tol=1e-9):
                same.append(one)
        elif one.shape == shape:
            same.append(one)
    return same


def nearest(speeds: Iterable[Speed], config: RunConfig, mode: Mode, place: Platform) -> list[Speed]:
    """The speeds that FLOPs are best scaled from: those of the nearest FLOPs per step, of the run's own architecture
    unless another one is nearer by `OTHER_ARCHITECTURE`. Only of its form of the recurrence; empty where there is none.
    """

    def distance(one: Speed) -> tuple[object, ...]:
        apart = abs(math.log(one.step_flops / flops))
        apart += math.log(OTHER_ARCHITECTURE) * (one.architecture != config.architecture)
        return round(apart, 9), *preference(one, place)

    form, flops = form_of(config), step_flops(config)
    able = [one for one in speeds if one.mode == mode and one.form == form and one.step_flops > 0]
    least = min(map(distance, able), default=None)
    return [one for one in able if distance(one) == least]


def preferred(speeds: Sequence[Speed], place: Platform) -> list[Speed]:
    """The speeds that tell most of a place, by `preference`; empty where there is none at all."""
    best = min((preference(one, place) for one in speeds), default=None)
    return [one for one in speeds if preference(one, place) == best]


def preference(speed: Speed, place: Platform) -> tuple[bool, bool, bool, int]:
    """Least for what tells most of a place: made there, unshared (or shared alike), a record, of an earlier store."""
    return not speed.made_at(place), not speed.alike(place), speed.shape is None, speed.store


def _of_record(record: Record, store: int) -> Speed | None:
    """None where it is not done, was not trained, or has a config that this version no longer has."""
    if record.status != "done" or record.cost.train_seconds <= 0:
        return None
    try:
        config = read_config(record.config)
    except UserError:
        return None
    if config.training is None:
        return None
    return Speed(
        label=record.label,
        architecture=config.architecture,
        form=form_of(config),
        shape=shape_of(config),
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
        shape=None,
        config=None,
        context=facts.context,
        batch_size=facts.batch_size,
        mode=facts.mode,
        step_seconds=facts.seconds_per_step,
        step_flops=facts.flops,
        device_name=device_name,
        n_threads=facts.n_threads,
        runs_per_gpu=1,
        store=store,
    )
