"""What make hands to the shell, to pip and to Python: tried in a folder whose .venv holds a Python that only prints."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT, write_program

MAKEFILE = ROOT / "Makefile"


def make(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run make in a folder whose .venv is complete: its Python prints its arguments and pip's variables."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    write_program(folder / ".venv" / "bin" / "python", 'printf "<%s>" "$@"; echo; env | grep "^PIP_"; :')
    for name in (".made-from", ".setup-done"):  # newer than what they are made from
        (folder / ".venv" / name).write_text("\n")
    environment = {"PATH": os.environ["PATH"], **variables}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.met("U13")
@pytest.mark.parametrize("name", ["it's", "cost$5 $(HOME)", 'a "b"; touch found'])
@pytest.mark.parametrize("target", ["verify", "table", "report", "reproduce", "bench"])
def test_the_name_of_a_store_reaches_python_as_it_is(target, name, tmp_path):
    done = make(tmp_path, target, f"STORE={name}")
    assert done.returncode == 0, done.stderr
    expected = f"<--benchmark-json={name}/throughput/" if target == "bench" else f"<--store><{name}>"
    assert expected in done.stdout
    assert not (tmp_path / "found").exists()


@pytest.mark.met("U7")
@pytest.mark.parametrize("name", ["STORE", "PROFILE", "BENCH_DATA_DIR", "SEEDS"])
def test_an_empty_variable_is_refused_by_name(name, tmp_path):
    for arguments, variables in (([f"{name}="], {}), ([], {name: ""})):
        done = make(tmp_path, "verify", *arguments, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} is empty" in done.stderr


@pytest.mark.met("U13")
def test_what_is_set_for_pip_cannot_send_packages_elsewhere(tmp_path):
    outside = {
        "PIP_USER": "1",
        "PIP_TARGET": "/elsewhere",
        "PIP_PREFIX": "/elsewhere",
        "PIP_INDEX_URL": "https://mirror",
    }
    seen = make(tmp_path, "data", **outside).stdout
    assert sorted(line for line in seen.splitlines() if line.startswith("PIP_")) == [
        "PIP_INDEX_URL=https://mirror",
        "PIP_USER=0",
    ]


@pytest.mark.met("U20")
@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("libc_ver = lambda: ('glibc', '2.17')", "glibc 2.28 or newer, and this has glibc 2.17"),
        ("libc_ver = lambda: ('', '')", "glibc 2.28 or newer, and this has another C library"),
        ("machine = lambda: 'x86_64'; sys.platform = 'darwin'", "no torch 2.13 for Macs with Intel"),
        ("libc_ver = lambda: ('glibc', '2.28')", ""),
    ],
)
def test_setup_says_first_where_the_packages_cannot_be_had(machine, words):
    found = re.search(
        r"^define CHECK_PYTHON\n(.*?)^endef", MAKEFILE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    script = f"import platform, sys\nplatform.{machine}\n{found[1]}"
    script = script.replace('os.path.realpath(".venv")', "None")  # the tests run in it
    for parent, code in (("", 1), ("/site/python", 0)):  # a Python that was named may have brought its packages
        command = [sys.executable, "-c", script, parent]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (code if words else 0)
        assert words in done.stderr
        assert bool(done.stderr) == bool(words)


@pytest.mark.met("U13")
def test_a_plugin_of_pytest_that_a_parent_python_brings_is_not_loaded(tmp_path):
    (tmp_path / "foreign.py").write_text("raise RuntimeError('loaded')\n")
    facts = tmp_path / "foreign-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_promises.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
