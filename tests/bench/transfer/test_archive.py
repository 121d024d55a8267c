"""An archive may come from anybody: nothing of a hostile one is taken, nothing in it is run, and no limit is passed."""

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.app import app
from bench.record import to_bytes
from bench.store import Store
from bench.transfer import archive
from bench.transfer.archive import LeftOut, Member, read_source
from bench.transfer.merge import merge
from tests.command_line import call
from tests.merging import content_of, member, put, record_of, run_of, siblings, tar_of

Members = Sequence[tuple[tarfile.TarInfo, bytes]]


def beside(*attack: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path], None]:
    """An archive of two good records with the attack between them."""

    def make(path: Path) -> None:
        first, second = siblings()
        tar_of(path, first, *attack, second)

    return make


def garbage_in_gzip(path: Path) -> None:
    tar_of(path, *siblings())
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2 :] = os.urandom(len(packed) // 2)
    path.write_bytes(packed)


def garbage(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(range(256)) * 8)


def cut_gzip(path: Path) -> None:
    tar_of(path, *siblings())
    path.write_bytes(path.read_bytes()[:-200])


def cut_tar(path: Path) -> None:
    tar_of(path, *siblings(), mode="w")
    path.write_bytes(path.read_bytes()[:-12_000])


def cut_between_members(path: Path) -> None:
    tar_of(path, *siblings(), mode="w")
    with tarfile.open(path) as opened:
        second = opened.getmembers()[1].offset
    path.write_bytes(path.read_bytes()[:second])


def damaged_header(path: Path) -> None:
    tar_of(path, *siblings(), mode="w")
    with tarfile.open(path) as opened:
        second = opened.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[second : second + 8] = b"damaged!"
    path.write_bytes(content)


def joined(path: Path) -> None:
    tar_of(path, *siblings(), mode="w")
    path.write_bytes(path.read_bytes() * 2)


def bomb(path: Path) -> None:
    first, second = siblings()
    tar_of(path, first, member("README", bytes(archive.RATIO_FROM_BYTES + 2**20)), second)


def chained_headers(path: Path) -> None:
    """Headers that announce headers: tarfile goes one call deeper for each."""
    announced = tarfile.TarInfo("ü" * 60)
    header = announced.create_pax_header(announced.get_info(), "utf-8")
    tar_of(path, *siblings(), mode="w")
    path.write_bytes(header[:1024] * 3000 + path.read_bytes())


def long_header(path: Path) -> None:
    first, second = siblings()
    tar_of(path, first, member("x", b"", pax_headers={"comment": "x" * (archive.MAX_HEADER_BYTES + 1)}), second)


def global_headers(path: Path) -> None:
    content = b""
    for n in range(2):
        content += tarfile.TarInfo.create_pax_global_header({f"comment{n}": "x"})
    tar_of(path, *siblings(), mode="w")
    path.write_bytes(content + path.read_bytes())


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a symbolic link": (beside(member("runs/x.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "a link"),
    "a hard link": (beside(member("runs/x.json", type=tarfile.LNKTYPE, linkname="../../x")), "a link"),
    "a device": (beside(member("runs/x.json", type=tarfile.CHRTYPE, devmajor=1, devminor=8)), "a device"),
    "a pipe": (beside(member("runs/x.json", type=tarfile.FIFOTYPE)), "a device"),
    "an unknown kind": (beside(member("runs/x.json", type=b"Z")), "no plain file"),
    "an absolute path": (beside(member("/tmp/x.json", b"{}")), "no plain name"),
    "a path to the outside": (beside(member("runs/../../x.json", b"{}")), "no plain name"),
    "a path that ends outside": (beside(member("..", type=tarfile.DIRTYPE)), "no plain name"),
    "a backslash": (beside(member("runs\\..\\x.json", b"{}")), "no plain name"),
    "a drive": (beside(member("C:x.json", b"{}")), "no plain name"),
    "an escape sequence": (beside(member("runs/\x1b[2Jx.json", b"{}")), "no plain name"),
    "an option": (beside(member("runs/--x.json", b"{}")), "no plain name"),
    "a name without end": (beside(member("x/" * 600 + "x.json", b"{}")), "no plain name"),
    "a bomb": (bomb, "times its size"),
    "a long header": (long_header, "header"),
    "global headers": (global_headers, "header"),
    "headers in headers": (chained_headers, "damaged"),
    "garbage in gzip": (garbage_in_gzip, "damaged"),
    "garbage": (garbage, "damaged"),
    "a cut archive": (cut_tar, "damaged"),
    "a cut gzip": (cut_gzip, "damaged"),
    "an end before its end": (cut_between_members, "damaged"),
    "a damaged header": (damaged_header, "damaged"),
    "two archives in one": (joined, "goes on after its end"),
}


@pytest.mark.fault("F26")
@pytest.mark.parametrize("what", ATTACKS)
def test_nothing_of_a_hostile_archive_is_taken_and_another_source_still_is(what, tmp_path, capsys):
    make, reason = ATTACKS[what]
    make(tmp_path / "hostile.tar.gz")
    other = record_of(run_of(seed=666))
    store = tmp_path / "store"
    assert call(app, "merge", tmp_path / "hostile.tar.gz", put(tmp_path / "good", other), "--into", store) == 1
    [refusal] = capsys.readouterr().err.splitlines()
    assert reason in refusal
    assert "\x1b" not in refusal
    assert list(content_of(store)) == [f"runs/{other.file_name}"]
    assert {path.name for path in tmp_path.iterdir()} == {"hostile.tar.gz", "good", "store"}


LIMITS: dict[str, tuple[str, int, str]] = {
    "members": ("MAX_MEMBERS", 1, "more than 1 members"),
    "bytes in all": ("MAX_TOTAL_BYTES", 2**14, "unpacks to more than"),
}


@pytest.mark.parametrize("what", LIMITS)
def test_an_archive_beyond_a_limit_is_refused_whole(what, tmp_path, monkeypatch):
    name, limit, reason = LIMITS[what]
    monkeypatch.setattr(archive, name, limit)
    tar_of(tmp_path / "large.tgz", *siblings(3))
    merged = merge([tmp_path / "large.tgz"], Store(tmp_path / "store"))
    assert reason in merged.refused[0]
    assert not merged.new


class Attack:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PICKLED"],)


SINGLE: dict[str, tuple[str, str]] = {
    "a pickle": ("runs/x.pkl", "pickle"),
    "a checkpoint": ("x.pt", "pickle"),
    "a pickle by the name of a record": ("runs/x.json", "not a record"),
    "a pickle by the name of a proof": ("rechecks/x.json", "not a recheck"),
}


@pytest.mark.parametrize("what", SINGLE)
def test_a_pickle_is_refused_and_not_loaded_and_its_siblings_are_taken(what, tmp_path, monkeypatch):
    name, reason = SINGLE[what]
    monkeypatch.setenv("PICKLED", str(tmp_path / "pickled"))
    beside(member(name, pickle.dumps(Attack())))(tmp_path / "a.tgz")
    merged = merge([tmp_path / "a.tgz"], Store(tmp_path / "store"))
    assert reason in merged.refused[0]
    assert merged.count_in("runs") == 2
    assert not (tmp_path / "pickled").exists()


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_file_that_is_too_large_is_refused_alone(form, tmp_path, monkeypatch):
    records = [record_of(run_of()), record_of(run_of(seed=69))]
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", len(to_bytes(records[0])) + 1000)
    large = bytes(archive.MAX_FILE_BYTES + 1)
    if form == "archive":
        source = tar_of(tmp_path / "a.tgz", *siblings(), member("runs/x.json", large))
    else:
        source = put(tmp_path / "a", *records)
        (source / "x.json").write_bytes(large)
    merged = merge([source], Store(tmp_path / "store"))
    assert [("larger than" in line, "x.json" in line) for line in merged.refused] == [(True, True)]
    assert merged.count_in("runs") == 2


def test_a_link_in_a_folder_is_refused_and_not_followed(tmp_path):
    source = put(tmp_path / "a", record_of(run_of()))
    put(tmp_path / "elsewhere", record_of(run_of(seed=69)))
    (source / "x.json").symlink_to(next((tmp_path / "elsewhere").iterdir()))
    os.mkfifo(source / "y.json")
    merged = merge([source], Store(tmp_path / "store"))
    assert [line.rpartition("/")[2][:6] for line in merged.refused] == ["x.json", "y.json"]
    assert merged.count_in("runs") == 1


def test_what_is_no_record_is_not_read_and_not_refused(tmp_path):
    beside(
        member("paper/", type=tarfile.DIRTYPE),
        member("paper/README.md", b"x"),
        member("paper/work/0123456789ab/progress.json", b"x"),
        member("paper/work/0123456789ab/state.pt", b"x"),
        member("paper/runs/._x.json", b"x"),
    )(tmp_path / "a.tgz")
    found = list(read_source(tmp_path / "a.tgz"))
    assert sum(isinstance(one, Member) for one in found) == 2
    assert [one.refused for one in found if isinstance(one, LeftOut)] == [False] * 4


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_common_form_are_read(form, tmp_path):
    folder = "a folder with a long name " * 6
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as opened:
        for info, content in siblings():
            info.name = f"{folder if form != tarfile.USTAR_FORMAT else 'short'}/{info.name}"
            info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            opened.addfile(info, io.BytesIO(content))
    assert len(list(read_source(tmp_path / "a.tar"))) == 2


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_anywhere_ends_in_a_refusal_or_in_whole_records(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    good = {to_bytes(record_of(run_of(seed=seed))) for seed in (42, 69)}
    tar_of(root / "a.tar", *siblings(), mode="w")
    content = bytearray((root / "a.tar").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, 511), st.integers(0, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255))
    packed = data.draw(st.booleans())
    (root / "a.tar").write_bytes(gzip.compress(content) if packed else bytes(content))
    store = Store(root / "store")
    merge([root / "a.tar"], store)
    assert {path.read_bytes() for path in store.record_paths()} <= good
