"""Programs that tests need: installed from Debian's packages where they are missing and that is possible."""

import os
import shutil
import subprocess

import pytest


class Cannot(Exception):
    """A program cannot be installed here; the message has the reason."""


def provide(command: str, *packages: str) -> str:
    """The path of `command`; where it is missing, its packages are installed. Cannot where that fails."""
    if found := shutil.which(command):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Cannot(f"{command} is not on PATH, and installing it needs root and apt-get")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Cannot(f"apt-get {' '.join(arguments)} exited {done.returncode}: {done.stderr.strip()[-500:]}")
    if found := shutil.which(command):
        return found
    raise Cannot(f"{command} is still not on PATH after installing {', '.join(packages)}")


def skip_unless_ci(reason: Cannot) -> None:
    """Skip a test that needs a missing program, with the reason; fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))
