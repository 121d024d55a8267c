"""Programs that tests need and a machine may lack: Debian's packages, installed where that can be done."""

import os
import shutil
import subprocess

import pytest


class Cannot(Exception):
    """A program cannot be had here; the message says why."""


def provide(command: str, *packages: str) -> str:
    """The path of `command`, whose packages are installed where it is missing; raises Cannot."""
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
    """End a test that lacks a program: it skips with the reason, but fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))
