"""What both command lines share: one-line errors with exit codes, and common options."""

import os
import platform
import re
import shlex
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from importlib.metadata import version
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import (
    EXIT_CODES_HELP,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    NO_MEMORY,
    ConfigError,
    DeviceError,
    UserError,
    count,
    first_line,
)
from bench.process import Interrupted, count_cores

if TYPE_CHECKING:
    import torch
    import typer

    from bench.store import Store

PACKAGES = (  # all that this suite imports
    *("torch", "einops", "numpy", "pydantic", "typer", "rich", "pandas", "scipy", "matplotlib", "jinja2"),
    *("tabulate", "submitit", "pooch", "requests"),
)


def make_app(help_text: str, *commands: Callable[..., None]) -> "typer.Typer":
    """A command line with house rules and some commands."""
    import typer  # only here: workers share the rest of this file, and each would wait for it

    app = typer.Typer(
        help=help_text,
        epilog=EXIT_CODES_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
        debug: bool = typer.Option(
            False, "--debug", help="With an error, show its traceback. It may stand anywhere on the line."
        ),
    ) -> None:
        """Options before a command; `run_guarded` takes --debug before this is called."""

    for command in commands:
        app.command()(command)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(version_text())
        sys.exit()


def version_text() -> str:
    """This project, its commit and what its numbers depend on first."""
    from bench.sources import ROOT, commit

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    head, dirty = commit()
    at = f"commit {head[:7]}{' and edits' if dirty else ''}" if head else "commit unknown"
    return f"{project['name']} {project['version']}, {at}, torch {version('torch')}, Python {platform.python_version()}"


def run_guarded(action: Callable[[], Any]) -> None:
    """Run and exit. A user's mistake is one line on stderr and its exit code; `--debug` shows the traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # what a terminal cannot show must not end a command whose work is done
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        refuse_empty(sys.argv)
        sys.exit(action())
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, UserError) else EXIT_FAILED)
    except (ImportError, AttributeError) as error:  # as where a stub stands in for a package
        if debug or not (found := shadowed()):
            raise
        print(f"error: {first_line(error)}; {'; '.join(found)}: unset PYTHONPATH, or that module", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if debug or not NO_MEMORY.search(line := first_line(error)):
            raise
        print(f"error: {line}: choose smaller sizes, or a machine with more memory", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"interrupted: {stop}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def shadowed() -> list[str]:
    """Packages that PYTHONPATH puts in the place of those of this environment, each with the file."""
    ours = sysconfig.get_path("purelib")
    entries = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    found = []
    for name in PACKAGES:
        first = PathFinder.find_spec(name, [entry for entry in entries if entry != ours])
        if first is not None and first.origin is not None and PathFinder.find_spec(name, [ours]) is not None:
            found.append(f"PYTHONPATH puts {first.origin} before the installed {name}")
    return found


def refuse_empty(command: list[str]) -> None:
    """ConfigError where an argument is empty, as an unset variable of a shell is: `--store ""` would be this folder."""
    for before, argument in pairwise(command):
        option = argument.removesuffix("=") if re.fullmatch("--[a-z-]+=", argument) else before
        if argument == "" or option != before:
            name = option if option.startswith("-") else f"the argument after {before}"
            raise ConfigError(f"{name} is empty: give a value, or leave it out (is a shell variable unset?)")


def pick_device(name: str | None, *, one_of_several: bool = True) -> "torch.device":
    """The device asked for, or CUDA where there is one. DeviceError where it is not here.

    Without `one_of_several` a GPU cannot be named by its index, since all that are visible will be used.
    """
    import torch

    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise DeviceError(f"--device {chosen}: no such device; use cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {chosen}: runs here are on cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {chosen}: torch sees no CUDA device here; use --device cpu")
    if ":" in chosen and not one_of_several:
        raise DeviceError(f"--device {chosen}: every visible GPU is used; choose with CUDA_VISIBLE_DEVICES")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"--device {chosen}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def check_threads(n_threads: int | None) -> int | None:
    """`n_threads` of --threads. ConfigError beyond the cores of this process: torch crashes with many."""
    if n_threads is not None and not 1 <= n_threads <= count_cores():
        raise ConfigError(f"--threads {n_threads}: this process may use {count(count_cores(), 'core')}; give 1 to that")
    return n_threads


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """`42,69` as seeds; None stays None."""
    if text is None:
        return None
    try:
        seeds = tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: write whole numbers with commas, e.g. 42,69,420") from error
    if not seeds or not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"--seeds {text}: each must be 0 to 2^31 - 1, e.g. 42,69,420")
    return seeds


def open_store(root: Path) -> "Store":
    """The store in a folder; ConfigError where there is no such folder."""
    from bench.store import Store

    if not root.is_dir():
        here = shlex.quote(str(root))
        raise ConfigError(
            f"there is no store {root}; name one with --store, or make it with `make reproduce STORE={here}`"
        )
    return Store(root)


def print_errors(errors: Iterable[object]) -> int:
    """Print what could not be read. The exit code: EXIT_FAILED where there was anything, else 0."""
    text = "".join(f"error: {error}\n" for error in errors)
    sys.stderr.write(text)
    return EXIT_FAILED if text else 0
