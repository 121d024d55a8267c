"""Nodes are told of folders by the links through which they were named: other nodes may not have what those lead to."""

from pathlib import Path
from typing import NamedTuple

import pytest

from bench.errors import ConfigError
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.cache import CACHE_DIR_VARIABLE
from jobs.slurm.arrays import script
from jobs.slurm.paths import checkout
from jobs.slurm.submission import read_submission
from jobs.slurm.task import start
from tests.command_line import ROOT
from tests.sites import arrays_of


class Linked(NamedTuple):
    """A folder, and the link through which it is reached."""

    link: Path
    target: Path


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    """A folder that only this machine has, behind a link that each has."""
    (tmp_path / "only-here").mkdir()
    (tmp_path / "shared").symlink_to(tmp_path / "only-here")
    return Linked(tmp_path / "shared", tmp_path / "only-here")


@pytest.mark.met("U28")
def test_a_store_and_a_corpus_behind_a_link_are_named_by_it_in_script_and_plan(linked):
    store = Store(linked.link / "store")
    [array] = arrays_of(store, data_dir=linked.link / "data")
    assert str(linked.target) not in script(array, store) + array.submission.model_dump_json()
    folder = linked.link / "store" / "work" / "jobs" / array.submission.name
    assert script(array, store).rstrip().endswith(f" -m jobs task {folder}")
    assert f"#SBATCH --output={folder}/" in script(array, store)
    assert (array.submission.store, array.submission.data_dir) == (str(store.root), str(linked.link / "data"))
    array.submission.write(store)
    assert read_submission(folder) == array.submission


@pytest.mark.met("U28")
def test_a_store_named_from_within_a_linked_folder_is_named_by_the_way_the_shell_took(linked, monkeypatch):
    monkeypatch.chdir(linked.link)
    monkeypatch.setenv("PWD", str(linked.link))
    [array] = arrays_of(Store(Path("store")), data_dir=Path("data"))
    assert (array.submission.store, array.submission.data_dir) == (f"{linked.link}/store", f"{linked.link}/data")
    monkeypatch.setenv("PWD", "/")  # which `cd` did not write: the folder itself counts
    [array] = arrays_of(Store(Path("store")))
    assert array.submission.store == f"{linked.target}/store"


@pytest.mark.met("U28")
@pytest.mark.parametrize("variable", ["BENCH_DATA_DIR", RUNS_DIR_VARIABLE, CACHE_DIR_VARIABLE])
def test_an_exported_folder_behind_a_link_is_named_by_it(variable, linked, monkeypatch):
    monkeypatch.setenv(variable, str(linked.link / "x"))
    [array] = arrays_of(Store(linked.link / "store"))
    assert f"\nexport {variable}={linked.link}/x\n" in script(array, Store(linked.link / "store"))


def test_a_node_on_which_a_link_leads_elsewhere_says_so_rather_than_that_runs_are_missing(
    linked, tmp_path, monkeypatch
):
    monkeypatch.setenv(RUNS_DIR_VARIABLE, str(tmp_path / "runs"))
    store = Store(linked.link / "store")
    [array] = arrays_of(store)
    folder = array.submission.write(store)
    linked.link.unlink()
    linked.link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=f"links lead elsewhere.*{RUNS_DIR_VARIABLE}"):
        start(folder)


@pytest.mark.met("U28")
def test_a_checkout_behind_a_link_is_entered_through_it(tmp_path, monkeypatch):
    (tmp_path / "checkout").symlink_to(ROOT)
    for here in (tmp_path / "checkout", tmp_path / "checkout" / "jobs"):
        monkeypatch.chdir(here)
        monkeypatch.setenv("PWD", str(here))
        store = Store(Path("reproduced"))
        [array] = arrays_of(store)
        assert f"\ncd {tmp_path}/checkout\n" in script(array, store)
        assert array.submission.store == f"{here}/reproduced"
        assert Path(f"{tmp_path}/checkout/jobs/slurm/paths.py").samefile(checkout() / "jobs" / "slurm" / "paths.py")
    monkeypatch.chdir("/")
    monkeypatch.setenv("PWD", "/")
    assert checkout() == ROOT
