"""Input from outside runs no code, and output has no secret; the lock file pins the bytes of every package.

Rows of the table of threats with tests elsewhere: texts and names from outside in jobs/slurm/test_hostile_words.py,
test_plans.py and bench/test_names.py, the compilers' cache in jobs/test_cache_folder.py, pickles in
bench/test_checkpoint.py (and submitit's own in jobs/slurm/test_task.py), calls that run or load code in test_rooms.py,
cells of HTML, Markdown, CSV and LaTeX in bench/report/tables/test_tables.py, downloads in bench/test_corpus.py,
terminal control characters in jobs/test_watching.py.
"""

import json
import os
import platform
import re
import socket
import sys
import tomllib
from unittest.mock import Mock

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from bench.experiments import smoke
from bench.run import Settings, execute
from bench.store import Store
from jobs.layout import JOBS_FOLDER, PLAN_FILE, RUN_FILE
from jobs.slurm.arrays import script
from jobs.worker import write_run
from tests.command_line import ROOT
from tests.sites import arrays_of, forget_site


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Values that must not be shown: a token, the names of the machine and the user, and the user's home."""
    secrets = {
        "FOO_TOKEN": "token-planted-1f2e3d",
        "HOSTNAME": "host-planted-4c5b",
        "USER": "user-planted-6a79",
        "LOGNAME": "user-planted-6a79",
        "HOME": "/home/user-planted-6a79",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    host, real = secrets["HOSTNAME"], os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real[0], host, *real[2:])))
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(platform, "node", lambda: host)
    return sorted({*secrets.values(), real.nodename if len(real.nodename) > 3 else host})


@pytest.mark.usefixtures("on_little_text")
@pytest.mark.parametrize(
    ("architecture", "error"), [("k_operators", None), ("transformer", None), ("k_operators", "some kernel failed")]
)
def test_no_record_has_a_secret_the_machine_or_its_user(architecture, error, planted, tmp_path, tiny_run, monkeypatch):
    if error:
        monkeypatch.setattr("bench.train.Trainer.advance", Mock(side_effect=RuntimeError(error)))
    store, run = Store(tmp_path / "store"), tiny_run(architecture)
    execute(run, store, Settings(device=torch.device("cpu"), n_threads=1, data_dir=tmp_path / "data"))
    [path] = store.record_paths()
    text = path.read_text()
    assert (error or '"status": "done"') in text
    assert not [word for word in [*planted, str(tmp_path), str(ROOT), sys.prefix] if word in text]


def test_no_plan_script_or_run_file_has_a_secret_the_machine_or_its_user(planted, tmp_path, monkeypatch):
    forget_site(monkeypatch, tmp_path)
    store = Store(tmp_path / "store")
    [array] = arrays_of(store)
    texts = [(array.submission.write(store) / PLAN_FILE).read_text(), script(array, store)]
    texts += [(write_run(run, store) / RUN_FILE).read_text() for run in smoke().runs()]
    assert not [word for word in planted for text in texts if word in text]
    assert json.loads(texts[0]).items() >= json.loads(array.submission.model_dump_json()).items()
    assert store.work_folder / JOBS_FOLDER in array.submission.folder(store).parents


def locked() -> dict[str, list[str]]:
    """The lock file: requirement -> its hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(" #")[0].split() for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    found = {}
    for words in lines:
        hashes = [word for word in words if word.startswith("--hash=")]
        found[" ".join(word for word in words if word not in hashes)] = hashes
    return found


def test_every_locked_requirement_is_one_version_with_hashes():
    requirements = locked()
    assert len(requirements) > 20
    for text, hashes in requirements.items():
        [version] = Requirement(text).specifier
        assert version.operator == "==", text
        assert hashes, text
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes), text


def test_no_version_with_a_known_vulnerability_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [torch_range] = [
        one.specifier for one in map(Requirement, project["project"]["dependencies"]) if one.name == "torch"
    ]
    assert not torch_range.contains("2.9.1")  # CVE-2025-32434 and CVE-2026-24747, of loading checkpoints
    assert torch_range.contains(torch.__version__, prereleases=True)
    versions = {one.name: next(iter(one.specifier)).version for one in map(Requirement, locked())}
    if "filelock" in versions:
        assert Version(versions["filelock"]) >= Version("3.20.3")  # CVE-2025-68146 and CVE-2026-22701, of links
