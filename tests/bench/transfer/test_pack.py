"""One archive holds what is to be brought home, also when the launch is cut short."""

import time
from pathlib import Path

import pytest
import typer

from bench.errors import ConfigError
from bench.store import Store
from bench.transfer import pack as packs
from bench.transfer.merge import merge
from bench.transfer.pack import pack, packing
from jobs.app import app
from tests.command_line import call, wait_until
from tests.merging import content_of, put, record_of, run_of
from tests.records import make_manifest

LAUNCH = ("launch", "--experiment", "smoke", "--device", "cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of two records, a manifest, and what a run leaves beside."""
    store = Store(tmp_path / "store")
    put(store.root / "runs", record_of(run_of()), record_of(run_of(seed=69)))
    store.write_manifest(make_manifest({}, "smoke"))
    for name in ("work/0123456789ab/state.pt", "runs/.x.json.tmp", "tables/smoke.md"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return store


def brought_home(archive: Path, where: Path) -> set[str]:
    """The names of the records that a merge takes of an archive, all of them good."""
    home = Store(where)
    assert not merge([archive], home).refused
    return {path.name for path in home.record_paths()}


def test_an_archive_holds_the_records_and_no_checkpoint_and_merge_reads_it(store, tmp_path):
    packed = pack(store, tmp_path / "out" / "a.tar.gz")
    assert packed.counts == {"runs": 2, "experiments": 1}
    assert str(packed).startswith("packed 2 records, 1 file of experiments/ into ")
    merge([packed.path], Store(tmp_path / "home"))
    assert content_of(tmp_path / "home") == {
        name: content for name, content in content_of(store.root).items() if name.startswith("runs/k_")
    }


def test_equal_records_give_equal_bytes(store, tmp_path):
    first = pack(store, tmp_path / "a.tar.gz").path.read_bytes()
    other = Store(tmp_path / "another")
    for name, content in reversed(content_of(store.root).items()):
        (other.root / name).parent.mkdir(parents=True, exist_ok=True)
        (other.root / name).write_bytes(content)
    assert pack(other, tmp_path / "b.tgz").path.read_bytes() == first


@pytest.mark.parametrize("end", [typer.Exit(3), KeyboardInterrupt(), ValueError("x"), None])
def test_however_the_work_ends_its_records_are_packed(end, store, tmp_path):
    archive = tmp_path / "a.tar.gz"

    def work() -> None:
        with packing(store, archive):
            put(store.root / "runs", record_of(run_of(seed=420)))
            if end is not None:
                raise end

    if end is None:
        work()
    else:
        with pytest.raises(type(end)):
            work()
    assert len(brought_home(archive, tmp_path / "home")) == 3


def test_what_came_by_now_is_packed_while_the_work_goes_on(store, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "SECONDS", 0.01)
    archive = tmp_path / "a.tar.gz"
    with packing(store, archive):
        before = archive.read_bytes()
        put(store.root / "runs", record_of(run_of(seed=420)))
        wait_until(lambda: archive.read_bytes() != before, "a new archive")
        assert len(brought_home(archive, tmp_path / "home")) == 3


def test_while_nothing_comes_nothing_is_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "SECONDS", 0.001)
    archive = tmp_path / "a.tar.gz"
    with packing(store, archive):
        before = archive.stat().st_ino  # each writing makes a new file
        time.sleep(0.05)
        assert archive.stat().st_ino == before


def test_an_archive_that_could_not_be_written_meanwhile_is_tried_again(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packs, "SECONDS", 0.01)
    archive, really, failures = tmp_path / "a.tar.gz", packs.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        if not failures:
            failures.append(path)
            raise OSError(28, "No space left on device")
        really(path, content)

    with packing(store, archive):
        before = archive.read_bytes()
        monkeypatch.setattr(packs, "write_atomically", full)
        put(store.root / "runs", record_of(run_of(seed=420)))
        wait_until(lambda: archive.read_bytes() != before, "a new archive")
    assert failures
    assert "could not be written: No space left on device" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.zip", "a", "a.tar"])
def test_a_name_that_is_no_archives_is_refused_before_the_work(name, store, tmp_path):
    with pytest.raises(ConfigError, match="ends in"), packing(store, tmp_path / name):
        pytest.fail("the work has begun")
    assert not (tmp_path / name).exists()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(store, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"), packing(store, tmp_path / "file" / "a.tgz"):
        pytest.fail("the work has begun")


def test_without_a_name_nothing_is_packed(store, tmp_path):
    before = content_of(tmp_path)
    with packing(store, None):
        pass
    assert content_of(tmp_path) == before


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`launch --pack` whose runs leave one record and then end as named; the exit code."""
    archive = tmp_path / "a.tar.gz"

    def launch(end: BaseException | None, *options: str) -> int:
        def work(_, store: Store, *_rest: object, **_options: object) -> list[object]:
            put(store.root / "runs", record_of(run_of()))
            if end is not None:
                raise end
            return []

        monkeypatch.setattr("jobs.launch.find_text", lambda *_: None)
        monkeypatch.setattr("jobs.launch.launch_missing", work)
        return call(app, *LAUNCH, "--store", tmp_path / "made", "--pack", archive, *options)

    return launch


@pytest.mark.parametrize(
    ("end", "code"), [(None, 0), (typer.Exit(3), 3), (KeyboardInterrupt(), 130), (OSError("x"), 1)]
)
def test_a_launch_leaves_its_archive_and_its_exit_code(end, code, launched, tmp_path, capsys):
    assert launched(end) == code
    assert "packed 1 record into" in capsys.readouterr().out
    assert brought_home(tmp_path / "a.tar.gz", tmp_path / "home") == {record_of(run_of()).file_name}


def test_a_dry_run_packs_nothing(launched, tmp_path):
    assert launched(None, "--dry-run") == 0
    assert not (tmp_path / "a.tar.gz").exists()


def test_a_launch_on_slurm_says_how_to_pack_afterwards(launched, tmp_path, capsys):
    assert launched(None, "--cluster", "slurm") == 2
    assert "tar czf" in capsys.readouterr().err
    assert not (tmp_path / "a.tar.gz").exists()
