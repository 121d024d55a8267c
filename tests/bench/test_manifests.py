"""An experiment has one manifest per mode."""

from bench.record import to_bytes
from bench.store import Store
from tests.records import make_manifest


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "experiments").iterdir())


def test_each_mode_has_its_own_manifest(tmp_path):
    store = Store(tmp_path)
    manifests = [make_manifest({}, "paper", mode=mode) for mode in ("exact", "fast", "exact")]
    for manifest in manifests:
        store.write_manifest(manifest)
    assert files(store) == ["paper.fast.json", "paper.json"]
    assert store.manifests()[0] == [manifests[1], manifests[0]]


def test_an_older_manifest_of_fast_mode_is_replaced_only_by_one_of_fast_mode(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "paper.json").write_bytes(to_bytes(make_manifest({}, "paper", mode="fast")))
    newer = make_manifest({"a": {"42": "0" * 12}}, "paper", mode="fast")
    store.write_manifest(newer)
    assert (files(store), store.manifests()[0]) == (["paper.json"], [newer])
    exact = make_manifest({}, "paper")
    for _ in range(2):
        store.write_manifest(exact)
    assert (files(store), store.manifests()[0]) == (["paper.exact.json", "paper.json"], [exact, newer])


def test_a_manifest_that_cannot_be_read_is_replaced(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "paper.fast.json").write_text("{")
    store.write_manifest(make_manifest({}, "paper", mode="fast"))
    assert (files(store), store.manifests()[1]) == (["paper.fast.json"], [])
