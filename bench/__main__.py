"""`python -m bench`: runs bench/app.py, so that an error in its imports is named as every other error is."""

from typing import Any

from bench.cli import run_guarded


def program() -> Any:
    """The command line on this process's arguments."""
    from bench.app import app

    return app()


def main() -> None:
    """What the installed program `kops-bench` calls."""
    run_guarded(program)


if __name__ == "__main__":
    main()
