"""Tables and figures of throughput are written once, and go with the measurements that they were made from."""

import random
from pathlib import Path

from bench.report.output import make_tables, write_tables
from bench.store import Store
from tests.command_line import run_python
from tests.measurements import SLUG, growth, session, timed, write
from tests.records import make_record, manifest_of


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for f in ("tables", "figures") for p in (root / f).glob("*")}


def test_files_of_measurements_that_cannot_be_read_any_more_are_kept(tmp_path):
    store = write(tmp_path, growth())
    assert len(write_tables(store, make_tables(store))) == 5
    write(tmp_path, "{")
    assert write_tables(store, make_tables(store)) == []
    assert len(files_of(tmp_path)) == 5


def test_a_rerun_writes_nothing_and_the_order_of_the_benchmarks_does_not_matter(tmp_path):
    content = growth()
    store = write(tmp_path, content)
    made = make_tables(store)
    names = {path.name for path in write_tables(store, made)}
    assert names == {
        *(f"throughput-{SLUG}.{suffix}" for suffix in ("md", "csv", "tex")),
        *(f"growth-{SLUG}.{suffix}" for suffix in ("svg", "png")),
    }
    before = files_of(tmp_path)
    assert write_tables(store, make_tables(store)) == []
    rng = random.Random(1)
    for _ in range(3):
        rng.shuffle(content["benchmarks"])
        write(tmp_path, content)
        assert make_tables(store).text == made.text
        assert write_tables(store, make_tables(store)) == []
    assert files_of(tmp_path) == before


def test_files_go_with_the_measurements_they_came_from_and_others_stay(tmp_path):
    record = make_record()
    store = Store(tmp_path)
    store.write_record(record)
    store.write_manifest(manifest_of([record]))
    write(tmp_path, growth(), "gone")
    write(tmp_path, growth(), "kept")
    write_tables(store, make_tables(store))
    (tmp_path / "figures" / "notes.svg").write_text("mine")
    before = set(files_of(tmp_path))
    (tmp_path / "throughput" / "gone.json").unlink()
    touched = {str(path.relative_to(tmp_path)) for path in write_tables(store, make_tables(store))}
    assert touched == {
        *(f"tables/throughput-gone.{suffix}" for suffix in ("md", "csv", "tex")),
        *(f"figures/growth-gone.{suffix}" for suffix in ("svg", "png")),
    }
    assert set(files_of(tmp_path)) == before - touched
    (tmp_path / "throughput" / "kept.json").unlink()
    write_tables(store, make_tables(store))
    assert not [name for name in files_of(tmp_path) if "kept" in name]
    assert (tmp_path / "figures" / "notes.svg").exists()
    assert (tmp_path / "tables" / "laptop-cost.md").exists()


def test_a_figure_goes_when_growth_is_no_longer_measured(tmp_path):
    store = write(tmp_path, growth())
    write_tables(store, make_tables(store))
    write(tmp_path, session(timed()))
    write_tables(store, make_tables(store))
    assert sorted(files_of(tmp_path)) == [f"tables/throughput-{SLUG}.{suffix}" for suffix in ("csv", "md", "tex")]


def test_the_command_prints_the_table_and_writes_the_figure(tmp_path):
    write(tmp_path, growth())
    code = "import sys; sys.argv = ['bench', 'table', '--store', sys.argv[1]]\nfrom bench.app import app; app()"
    assert f"## throughput: {SLUG}" in run_python(code, str(tmp_path))
    assert (tmp_path / "figures" / f"growth-{SLUG}.png").exists()
