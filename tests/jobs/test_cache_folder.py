"""What compilers leave is read again only from a folder that nobody else can write."""

import os
import re
import stat

import pytest

from bench.errors import StoreError, UserError
from bench.experiments import smoke
from bench.store import Store
from jobs.cache import compile_cache, unused
from jobs.launch import launch_missing
from jobs.slots import make_slots
from tests.gpus import put_gpus
from tests.watched import record_run


def test_the_compilers_cache_is_its_users_alone(cache):
    before = os.umask(0o002)  # of a system whose users share a group
    try:
        folder = compile_cache("nvidia-h200")
    finally:
        os.umask(before)
    assert folder.parent == cache
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache, folder)] == [0o700, 0o700]
    folder.chmod(0o755)
    assert compile_cache("nvidia-h200") == folder  # of ours, that others could read
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_of_the_compilers_cache_that_others_may_write_is_refused_with_what_to_type(mode, cache):
    folder = compile_cache("nvidia-h200")
    folder.chmod(mode)
    with pytest.raises(StoreError, match=f"rm -r {re.escape(str(folder))}`, or set BENCH_CACHE_DIR"):
        compile_cache("nvidia-h200")
    os.utime(folder, (0, 0))
    assert unused() == []  # and `gc` keeps away from it


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_cache_in_a_folder_where_others_could_replace_it_is_refused_and_no_command_removes_that_folder(mode, cache):
    """The folder is one that its user named, and holds what else they like."""
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(StoreError, match=f"type `chmod go-w {re.escape(str(cache))}`, or set BENCH_CACHE_DIR") as found:
        compile_cache("nvidia-h200")
    assert "rm -r" not in str(found.value)
    assert list(cache.iterdir()) == []
    assert unused() == []
    cache.chmod(mode & ~0o022)
    assert compile_cache("nvidia-h200").parent == cache


def test_a_cache_may_lie_where_a_sticky_bit_keeps_others_from_replacing_it(cache):
    cache.mkdir()
    cache.chmod(0o1777)  # as /tmp
    folder = compile_cache("nvidia-h200")
    assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (cache, 0o700)


@pytest.mark.parametrize("root_uid", [0, 54321])  # whether the folder above is root's or theirs
def test_a_compilers_cache_of_another_user_is_refused(root_uid, cache, monkeypatch):
    compile_cache("nvidia-h200")
    owner = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: 54321 + owner)
    monkeypatch.setattr("jobs.cache.ROOT_UID", owner if root_uid == 0 else 54320 - owner)
    with pytest.raises(StoreError, match=r"is not a folder of yours.*set BENCH_CACHE_DIR"):
        compile_cache("nvidia-h200")
    assert unused() == []


def test_a_cache_that_is_refused_leaves_every_record_where_it_is(cache, tmp_path, monkeypatch):
    put_gpus(monkeypatch, 1)
    store = Store(tmp_path / "store")
    fast = smoke().on(corpus=None, mode="fast", seeds=None)
    failed = next(run for run in fast.runs() if run.config.training is not None)
    record_run(store, failed, status="failed")
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(StoreError, match="chmod go-w"):
        launch_missing(fast, store, make_slots(None, None), retry="failed")
    assert store.statuses() == {failed.run_id: "failed"}


def test_a_link_in_place_of_the_compilers_cache_is_refused(cache, tmp_path):
    folder = compile_cache("nvidia-h200")
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is not a folder of yours"):
        compile_cache("nvidia-h200")


def test_a_compilers_cache_that_cannot_be_made_is_an_error_that_names_the_variable(cache, monkeypatch):
    cache.write_text("")
    with pytest.raises(UserError, match="set BENCH_CACHE_DIR to a folder of yours"):
        compile_cache("nvidia-h200")
