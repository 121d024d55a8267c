"""A plan is read only from a folder that its owner alone can write, and no answer of SLURM is an exception."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError, StoreError, UserError
from bench.store import Store
from jobs.layout import PLAN_FILE
from jobs.slurm.scheduler import read_queues
from jobs.slurm.submission import Submission, check_private, read_submission, submissions
from tests.tiny import submission_of

FEW = settings(max_examples=50, deadline=None)
TASKS = (("0123456789ab",), ("ba9876543210", "0123456789ac"))


@pytest.fixture
def planned(store: Store) -> Path:
    """The folder of a submission."""
    return submission_of(store, *TASKS).write(store)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_only_its_owner_may_enter_a_submissions_folder_whatever_the_umask(umask, store):
    before = os.umask(umask)
    try:
        folder = submission_of(store, *TASKS).write(store)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read_submission(folder) == submission_of(store, *TASKS)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o770, 0o777])
def test_a_submissions_folder_that_others_may_write_is_not_read(mode, planned, store):
    planned.chmod(mode)
    with pytest.raises(StoreError, match="without write access for others"):
        submissions(store)


def test_a_linked_or_a_foreign_submissions_folder_is_not_read(planned, monkeypatch):
    link = planned.with_name("kops-link")
    link.symlink_to(planned)
    with pytest.raises(StoreError, match="yours"):
        read_submission(link)
    monkeypatch.setattr("jobs.slurm.submission.os.getuid", lambda: os.geteuid() + 1)
    with pytest.raises(StoreError, match="yours"):
        read_submission(planned)


def test_a_file_in_place_of_a_submissions_folder_is_not_read(tmp_path):
    (tmp_path / "file").write_text("{}")
    with pytest.raises(StoreError):
        check_private(tmp_path / "file")
    with pytest.raises(ConfigError):
        check_private(tmp_path / "absent")


def test_a_plan_is_not_written_through_a_link_that_lay_in_its_place(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    submission = submission_of(store, *TASKS)
    submission.folder(store).parent.mkdir(parents=True)
    submission.folder(store).symlink_to(elsewhere)
    with pytest.raises(UserError):
        submission.write(store)
    assert not list(elsewhere.iterdir())


@pytest.fixture(scope="module")
def plan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a submission that a test may damage, if it mends it."""
    store = Store(tmp_path_factory.mktemp("plans") / "store")
    return submission_of(store, *TASKS).write(store)


def read_as(folder: Path, content: bytes) -> Submission | None:
    """What a plan of these bytes reads as; None for a typed error."""
    path = folder / PLAN_FILE
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return read_submission(folder)
    except (ConfigError, StoreError):
        return None
    finally:
        path.write_bytes(whole)


@FEW
@given(data=st.data())
def test_a_cut_plan_reads_as_it_was_or_is_a_typed_error(plan_folder, data):
    whole = (plan_folder / PLAN_FILE).read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    assert read_as(plan_folder, cut) in ([read_submission(plan_folder)] if cut == whole else [None])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_plan_with_another_byte_is_a_plan_or_a_typed_error(plan_folder, data):
    whole = (plan_folder / PLAN_FILE).read_bytes()
    at, other = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    found = read_as(plan_folder, whole[:at] + bytes([other]) + whole[at + 1 :])
    assert found is None or isinstance(found, Submission)


@FEW
@given(content=st.one_of(st.binary(), st.text().map(str.encode)))
@example(content=b"[]")
@example(content=b"null")
@example(content=b'{"tasks": 1}')
@example(content=b'{"tasks": [1]}')
@example(content=b"\xff\xfe")
@example(content=b'{"tasks": []}')
def test_a_foreign_plan_is_a_typed_error(content, plan_folder):
    assert read_as(plan_folder, content) is None


@pytest.mark.parametrize(
    ("old", "new"), [(b"0123456789ab", b"0123456789af"), (b": 30,", b": 31,"), (b": 30,", b": null,"), (b'"cpu"', b"5")]
)
def test_a_plan_whose_values_were_changed_is_noticed(old, new, plan_folder):
    whole = (plan_folder / PLAN_FILE).read_bytes()
    assert old in whole
    assert read_as(plan_folder, whole.replace(old, new, 1)) is None


QUEUE_WORDS = st.one_of(st.text(alphabet=st.characters(exclude_characters="|\n")), st.integers().map(str))
QUEUE_LINES = st.lists(st.lists(QUEUE_WORDS, min_size=5, max_size=5).map(lambda words: "|".join(["kops-1", *words])))


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(), QUEUE_LINES.map("\n".join)))
@example(text="kops-1|²|³|RUNNING|n|²|")
@example(text="kops-1|٣|٣|RUNNING|n|٣|")
@example(text=f"kops-1|1|{'9' * 5000}|RUNNING|n|")
def test_no_answer_of_the_queue_is_an_exception(text):
    assert all(name.startswith("kops-") and index >= 0 for name, index in read_queues({None: text}))
