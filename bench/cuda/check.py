"""Checks that this project works on this GPU, in three minutes: one line per check, and a JSON of all.

The checks of a lane run in one process, one after the other; lanes run in parallel, since compiling takes a minute and
the GPU is idle meanwhile. Speeds are measured when everything else has ended.
"""

import importlib.util
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import files
from bench.child import ChildEnded
from bench.cuda.child import CheckProcess
from bench.process import count_cores

ALONE_SECONDS = 15.0  # of the total, reserved for the speeds
BYTES_PER_LANE = 4 * 2**30  # of the GPU: nanoGPT's eager step in float32, and CUDA itself
NO_CUDA = "torch sees no CUDA device here"
NO_TIME = "no time left; --seconds gives more"


@dataclass(frozen=True, kw_only=True)
class GpuCheck:
    """One check, by a function of a `bench.cuda` module."""

    name: str
    lane: str
    function: str  # module:function
    seconds: float = math.inf  # time limit of the answer
    arguments: dict[str, Any] = field(default_factory=dict)
    prepare: str | None = None  # called first, with the arguments; then `function` runs without them
    package: str | None = None  # that may be missing
    late: str = "failed"  # status after the time limit


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a check."""

    name: str
    status: str  # held, failed or not tried
    text: str
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The line that is printed."""
        return f"{self.status:<9}  {self.name}: {self.text}"


HEADLINE = {  # the models whose steps are compared and timed: name, experiment, cell
    "K-Operators": ("paper", "k_operators"),
    "Transformer (matched)": ("tuning", "transformer-t00"),
    "nanoGPT": ("paper", "nanogpt"),
}
FORMS = ("chunked", "bounded", "mask", "recurrent", "block")  # ours first; `bounded`: `chunked` as the model calls it


def _cell(experiment: str, cell: str) -> dict[str, str]:
    return {"experiment": experiment, "cell": cell}


def _numbers(name: str, function: str, seconds: float = 30.0, **arguments: str) -> GpuCheck:
    return GpuCheck(
        name=name, lane="numbers", function=f"bench.cuda.numbers:{function}", seconds=seconds, arguments=arguments
    )


def _step(kind: str, name: str, function: str, prepare: str | None = None) -> GpuCheck:
    """A check of a model's step, in its own lane."""
    arguments, label = _cell(*HEADLINE[name]), f"{kind}, {name}"
    return GpuCheck(name=label, lane=label, function=function, prepare=prepare, arguments=arguments)


def _compiled(name: str) -> GpuCheck:
    return _step("compiled step", name, "bench.cuda.steps:compiled")


def _speed(name: str) -> GpuCheck:
    return _step("speed", name, "bench.cuda.steps:speed", prepare="bench.cuda.steps:prepare")


# In the order of their start, where there are too few cores for all lanes.
CHECKS = (
    GpuCheck(name="machine", lane="numbers", function="bench.cuda.machine:machine", seconds=30.0),
    _numbers("batches", "batches"),
    *(_numbers(f"recurrence, {form}", "recurrence", form=form) for form in FORMS),
    *(_numbers(f"evaluation, {name}", "evaluation", 60.0, **_cell(*of)) for name, of in HEADLINE.items()),
    *(_numbers(f"exact mode, {name}", "exact", 60.0, **_cell(*of)) for name, of in HEADLINE.items()),
    _numbers("exact mode, LSTM", "exact", 60.0, **_cell("tuning", "lstm-t00")),
    _compiled("K-Operators"),
    GpuCheck(name="two workers side by side", lane="runs", function="bench.cuda.runs:side_by_side", seconds=120.0),
    GpuCheck(name="out of memory", lane="memory", function="bench.cuda.runs:out_of_memory", seconds=120.0),
    _speed("K-Operators"),
    _speed("Transformer (matched)"),
    _speed("nanoGPT"),
    _compiled("Transformer (matched)"),
    _compiled("nanoGPT"),
    GpuCheck(
        name="recurrence, fla",
        lane="fla",
        function="bench.cuda.numbers:recurrence",
        arguments={"form": "fla"},
        seconds=120.0,
        package="fla",
        late="not tried",  # Triton tunes each of its kernels before the first answer
    ),
)
INSTALL = {"fla": "fla-core is not installed: pip install -e '.[kernels]'"}


class Lane:
    """Checks that run one after the other in one process, which is replaced after it ended, hung or raised an error."""

    def __init__(
        self, checks: Sequence[GpuCheck], start: Callable[[], CheckProcess], report: Callable[[CheckResult], None]
    ) -> None:
        self.checks, self.start, self.report = checks, start, report
        self.child: CheckProcess | None = None
        self.prepared: list[tuple[GpuCheck, CheckResult]] = []
        self.stopped = threading.Event()  # by Ctrl-C

    def run(self, until: float) -> None:
        """Run the checks, and prepare those that must have the GPU to themselves."""
        for check in self.checks:
            result = self.ask(check, check.prepare or check.function, check.arguments, until)
            if check.prepare and result.status == "held":
                self.prepared.append((check, result))
            else:
                self.report(result)
        if not self.prepared:
            self.end()

    def run_alone(self, until: float) -> None:
        """Finish the prepared checks."""
        for check, before in self.prepared:
            after = self.ask(check, check.function, {}, until)
            text, values = f"{after.text}; {before.text}", {**before.values, **after.values}
            self.report(replace(after, text=text, values=values, seconds=before.seconds + after.seconds))
        self.end()

    def ask(self, check: GpuCheck, function: str, arguments: dict[str, Any], until: float) -> CheckResult:
        """The result of one request, also of one that fails."""
        started, not_tried = time.monotonic(), CheckResult(name=check.name, status="not tried", text="interrupted")
        if check.package is not None and importlib.util.find_spec(check.package) is None:
            return replace(not_tried, text=INSTALL[check.package])
        if self.stopped.is_set():
            return not_tried
        if started >= until:
            return replace(not_tried, text=NO_TIME)
        try:
            child = self.child = self.start() if self.child is None else self.child
            answer = child.ask(function, arguments, check.seconds, until)
        except (TimeoutError, ChildEnded) as error:
            self.end()
            ended = time.monotonic()
            result = replace(not_tried, seconds=ended - started)
            if self.stopped.is_set():
                return result
            if isinstance(error, TimeoutError) and ended >= until:
                return replace(result, text=f"{error}; {NO_TIME}")
            status = check.late if isinstance(error, TimeoutError) else "failed"
            return replace(result, status=status, text=str(error))
        if answer.pop("raised"):
            self.end()  # CUDA may be unusable after an error
        return CheckResult(name=check.name, **answer)

    def end(self) -> None:
        """End the lane's process."""
        child, self.child = self.child, None
        if child is not None:
            child.end()


def run_checks(
    checks: Sequence[GpuCheck],
    *,
    seconds: float,
    start: Callable[[], CheckProcess],
    n_lanes: int,
    report: Callable[[CheckResult], None],
) -> None:
    """Run the checks within `seconds`, `n_lanes` lanes at a time; `report` is called with each result at once."""
    until = time.monotonic() + seconds
    kept = min(ALONE_SECONDS, seconds / 2) if any(one.prepare for one in checks) else 0.0
    lock = threading.Lock()

    def report_one(result: CheckResult) -> None:
        with lock:
            report(result)

    names = dict.fromkeys(one.lane for one in checks)
    lanes = [Lane([one for one in checks if one.lane == name], start, report_one) for name in names]
    try:
        with ThreadPoolExecutor(n_lanes) as pool:
            futures = [pool.submit(lane.run, until - kept) for lane in lanes]
            try:
                for future in futures:
                    future.result()
            except BaseException:  # Ctrl-C: no lane may start another check
                for lane in lanes:
                    lane.stopped.set()
                    lane.end()
                raise
        for lane in lanes:
            lane.run_alone(until)
    finally:
        for lane in lanes:
            lane.end()


def check_all(seconds: float, report: Callable[[str], None]) -> list[CheckResult]:
    """Run every check on this machine's GPU; without one, each is `not tried`."""
    import torch

    names = [one.name for one in CHECKS]
    results: list[CheckResult] = []

    def keep(result: CheckResult) -> None:
        results.append(result)
        report(result.line)

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else f" (torch {torch.__version__} is built without CUDA)"
        for check in CHECKS:
            keep(CheckResult(name=check.name, status="not tried", text=NO_CUDA + built))
        return results
    n_cores = count_cores()
    memory = torch.cuda.get_device_properties(0).total_memory
    n_lanes = max(1, min(n_cores // 2 + 1, memory // BYTES_PER_LANE))
    n_threads = max(1, n_cores // 4)
    run_checks(CHECKS, seconds=seconds, start=lambda: CheckProcess("cuda", n_threads), n_lanes=n_lanes, report=keep)
    return sorted(results, key=lambda one: names.index(one.name))


def exit_code(results: Sequence[CheckResult]) -> int:
    """0 all held, 1 one failed, 3 some were not tried."""
    statuses = {one.status for one in results}
    return 1 if "failed" in statuses else 3 if "not tried" in statuses else 0


def write_results(path: Path, results: Sequence[CheckResult], seconds: float) -> None:
    """Write the results, with the machine, the sources and the versions, as JSON."""
    import torch

    from bench.environment import describe_machine
    from bench.sources import commit

    revision, dirty = commit()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    content = {
        "schema_version": 1,
        "commit": revision,
        "dirty": dirty,
        "environment": describe_machine(device).model_dump(mode="json"),
        "seconds": seconds,
        "exit_code": exit_code(results),
        "checks": [asdict(one) for one in results],
    }
    files.replace(path, (json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    """The same value with strings for infinite numbers and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
