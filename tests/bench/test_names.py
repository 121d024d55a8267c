"""A file named after any name stays in its store."""

import contextlib
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.config import Run, read_run, to_json
from bench.errors import ConfigError, StoreError, UserError
from bench.experiments import smoke
from bench.record import PLAIN_NAME
from bench.store import Store
from jobs.worker import write_run
from tests.records import make_manifest, make_record

FEW = settings(max_examples=50, deadline=None)
NAMES = ["../../x", "/etc/x", "a\x00b", "a/b", "x" * 300, ".", "..", "․․", "．．", "%j", "a\\b", "~", "a\nb", "", " "]


def run_labelled(label: str) -> Run:
    """A run with that label, as read from a file."""
    return read_run({**to_json(smoke().runs()[0]), "label": label})


@FEW
@given(run_id=st.one_of(st.sampled_from(NAMES), st.text(), st.text(alphabet="0123456789abcdef", max_size=14)))
@example(run_id="0123456789ab\n")
@example(run_id="٠١٢٣٤٥٦٧٨٩٠١")
@example(run_id="0123456789AB")
def test_a_run_folder_is_in_its_store_or_there_is_none(run_id, tmp_path_factory):
    store = Store(tmp_path_factory.getbasetemp() / "names")
    try:
        folder = store.run_folder(run_id)
    except ConfigError:
        assert not re.fullmatch("[0-9a-f]{12}", run_id)
        return
    assert re.fullmatch("[0-9a-f]{12}", run_id)
    assert folder.resolve().parent == store.work_folder.resolve()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_a_path_is_no_run_and_makes_no_file(name, tmp_path):
    store = Store(tmp_path / "a" / "store")
    for look in (store.run_folder, store.find_run_id):
        with pytest.raises(ConfigError):
            look(name)
    with pytest.raises(ConfigError):
        run_labelled(name)
    assert not list(tmp_path.iterdir())


@FEW
@given(label=st.from_regex(PLAIN_NAME, fullmatch=True))
@example(label="a" * 80)
@example(label="a-_.")
def test_a_plain_label_is_the_name_of_a_record_among_the_records(label, tmp_path_factory):
    run = run_labelled(label)
    store = Store(tmp_path_factory.mktemp("plain"))
    store.write_record(make_record(run.label, run.seed, run_id=run.run_id))
    [path] = store.record_paths()
    assert path.resolve().parent == (store.root / "runs").resolve()
    assert path.name.startswith(label)
    assert path.name.isprintable()


@FEW
@given(label=st.one_of(st.text(), st.text(alphabet="aé-_./", max_size=81)))
@example(label="\U0001d538" * 80)  # letters, of four bytes each: the name would be too long for file systems
@example(label="a" * 81)
def test_every_other_label_is_refused(label):
    if PLAIN_NAME.fullmatch(label):
        assert run_labelled(label).label == label
        return
    with pytest.raises(ConfigError, match="label"):
        run_labelled(label)


def test_a_run_folder_that_is_a_link_is_refused(tmp_path):
    store, elsewhere, run = Store(tmp_path / "store"), tmp_path / "elsewhere", smoke().runs()[0]
    elsewhere.mkdir()
    store.work_folder.mkdir(parents=True)
    (store.work_folder / run.run_id).symlink_to(elsewhere)
    for use in (lambda: store.run_folder(run.run_id), lambda: write_run(run, store)):
        with pytest.raises(StoreError, match="link"):
            use()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.write_record(make_record("../../x")),
        lambda store: store.write_manifest(make_manifest({}, name="../../x")),
    ],
    ids=["label", "experiment"],
)
def test_a_label_or_an_experiment_that_is_a_path_is_written_nowhere(write, tmp_path):
    store = Store(tmp_path / "a" / "store")
    with contextlib.suppress(UserError):
        write(store)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(store.root)]
