"""Losses by play leave out the window with the boundary, and blocks of text never cross it."""

import math

import numpy as np
import pytest
import torch

from bench.corpus import decode, load_corpus
from bench.record import Record
from bench.report.over_text import LONG, SHORT, over_text
from bench.report.plays import BOUNDARY, FIRST_LINE, nats_by_play, split_windows
from bench.report.resampling import block_bootstrap
from tests.records import make_record

N_VAL = 111_540


def with_windows(nats: list[float], **changes) -> Record:
    """A record with these losses by window at its best step, 250, and others at its last."""
    record = make_record(**changes)
    assert record.result is not None
    windows = {250: nats, 500: [9.0] * len(nats)}
    return record.model_copy(update={"result": record.result.model_copy(update={"window_nats": windows})})


def test_the_tempest_starts_at_the_boundary(data_dir):
    corpus = load_corpus("tinyshakespeare", torch.device("cpu"), data_dir)
    text = decode(corpus.val, corpus.vocabulary)
    assert len(text) == N_VAL
    assert text[:BOUNDARY].endswith("'Tis a wonder, by your leave, she will be tamed so.\n\n")
    assert text[FIRST_LINE:].startswith("Boatswain!")
    assert text[BOUNDARY:].startswith("Master:\nBoatswain!\n\nBoatswain:\nHere, master: what cheer?")


@pytest.mark.parametrize(
    ("context", "excluded"), [(256, 300), (128, 600), (64, 1201), (4, 19221), (1, BOUNDARY - 1), (BOUNDARY, 0)]
)
def test_only_the_window_with_the_boundary_counts_for_neither_play(context, excluded):
    n = (N_VAL - 1) // context
    first, second = split_windows(list(map(float, range(n))), context)
    assert [*first, float(excluded), *second] == list(map(float, range(n)))
    last_of_first, first_of_second = excluded * context, (excluded + 1) * context + 1  # scored characters
    assert last_of_first < BOUNDARY < first_of_second


def test_the_loss_on_a_play_is_the_mean_over_its_windows_at_the_best_step():
    windows = [1.0] * 150 + [2.0] * 150 + [50.0] + [3.0] * 134
    assert nats_by_play(with_windows(windows)) == pytest.approx((1.5, 3.0))
    assert nats_by_play(with_windows(windows, context=128)) is None  # half of the first play, none of the second


@pytest.mark.parametrize(
    "record",
    [
        with_windows([1.0] * 435, corpus="tinyshakespeare-fold9"),
        with_windows([1.0] * 435, corpus="warpeace"),
        with_windows([]),
        make_record(status="diverged"),
    ],
    ids=["fold", "other text", "no windows", "no result"],
)
def test_other_texts_and_records_without_windows_have_no_plays(record):
    assert nats_by_play(record) is None


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_parts_keep_their_length_so_a_difference_between_them_widens_nothing():
    # each part is constant, so every resample within parts has the same sum: 300 * 1 + 134 * 4 over 434
    within = block_bootstrap([1.0] * 300, [4.0] * 134, block=8)
    assert within == pytest.approx((836 / 434, 836 / 434))
    assert width(block_bootstrap([1.0] * 300 + [4.0] * 134, block=8)) > 0.5


def test_one_part_is_the_plain_bootstrap_and_parts_add_their_variances():
    rng = np.random.default_rng(4)
    parts = [rng.normal(0, 0.3, 300).tolist(), rng.normal(5, 0.6, 134).tolist()]
    sds = [width(block_bootstrap(part, block=1)) * len(part) / 434 for part in parts]
    assert width(block_bootstrap(*parts, block=1)) == pytest.approx(math.hypot(*sds), rel=0.03)


def test_no_part_or_one_of_less_than_two_blocks_gives_no_interval():
    assert block_bootstrap() is None
    assert block_bootstrap([0.5] * 100, [0.5] * 15, block=8) is None
    assert block_bootstrap([0.5] * 100, [math.inf] * 16, block=8) is None


@pytest.mark.parametrize("context", [256, 128, 32])
def test_blocks_have_the_same_length_in_characters_at_every_context(context):
    n = (N_VAL - 1) // context
    by_window = np.random.default_rng(5).normal(size=n).tolist()
    found = over_text(by_window, context=context, corpus="tinyshakespeare")
    assert found.short == block_bootstrap(by_window, block=SHORT // context)
    assert found.long == block_bootstrap(by_window, block=LONG // context)
    assert found.within_plays == block_bootstrap(*split_windows(by_window, context), block=SHORT // context)
    assert (SHORT, LONG) == (2 * 1024, 16 * 1024)


def test_longer_blocks_give_a_wider_interval_where_the_text_changes_slowly():
    scenes = np.repeat(np.random.default_rng(6).normal(size=7), 64)[:435].tolist()  # 16 kB each at context 256
    found = over_text(scenes, context=256, corpus="tinyshakespeare")
    assert width(found.long) > 1.5 * width(found.short)


def test_another_text_has_no_interval_within_plays():
    found = over_text([0.5] * 435, context=256, corpus="warpeace")
    assert found == ((0.5, 0.5), (0.5, 0.5), None)


def test_a_window_longer_than_a_block_is_a_block():
    by_window = [0.1, 0.2, 0.3, 0.4]
    assert over_text(by_window, context=32_768, corpus="warpeace").long == block_bootstrap(by_window, block=1)
