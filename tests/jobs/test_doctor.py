"""The doctor says what a person can put right before a launch."""

import json
import os
from unittest.mock import Mock

import pytest

from bench.store import Store
from jobs import doctor
from jobs.app import app
from tests.command_line import call


def test_the_doctor_prints_json_alone_without_slurm(tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call(app, "doctor", "--json", "--store", tmp_path / "store", "--data-dir", data_dir) == 0
    printed = capsys.readouterr()
    found = {one["name"]: one["verdict"] for one in json.loads(printed.out)}
    assert printed.err == ""
    assert found["slurm"] == "note"
    assert {"python", "torch", "gpu", "corpus", "store", "clock", "accounting", "array size", "preemption"} <= set(
        found
    )
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob(".probe*"))


@pytest.mark.fault("F10")
def test_the_doctor_names_an_altered_corpus_and_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    text = tmp_path / "tinyshakespeare" / "input.txt"
    text.parent.mkdir()
    text.write_bytes(b"altered")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(1, "Operation not permitted")))
    assert call(app, "doctor", "--store", blocked, "--data-dir", tmp_path) == 1
    lines = {line[9:21].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "altered" in lines["corpus"]
    assert lines["corpus"].startswith("problem")
    assert lines["store"].startswith("problem")
    assert lines["torch"].startswith("ok")


@pytest.mark.parametrize("variable", ["SBATCH_QOS", "BENCH_SLURM_MEM", "SQUEUE_ACCOUNT", "SLURM_CLUSTERS"])
def test_the_doctor_names_exported_variables_that_slurm_or_a_launch_would_obey(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "x")
    [found] = [one for one in doctor.examine(Store(tmp_path), tmp_path) if variable in one.finding]
    assert found.verdict == "note"


@pytest.mark.parametrize(("parameters", "verdict"), [("", "note"), ("send_user_signal", "ok")])
def test_the_doctor_reads_what_slurm_says_of_preemption(parameters, verdict, tmp_path, monkeypatch):
    config = {"PreemptMode": "REQUEUE", "PreemptParameters": parameters, "MaxArraySize": "1001"}
    monkeypatch.setattr(doctor, "settings", lambda: config)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/x")
    found = {one.name: one for one in doctor.examine(Store(tmp_path), tmp_path)}
    assert found["preemption"].verdict == verdict
    assert "1001" in found["array size"].finding
