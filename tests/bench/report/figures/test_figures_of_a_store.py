"""Figures of a whole store: drawn from made-up records, so that what must be seen in them is known."""

import io

import matplotlib.image as mpl_image
import pytest

from bench.report.claims.verdicts import judge
from bench.report.families import FAMILIES
from bench.report.figures import draw_all, drawing, looks
from bench.report.published import PUBLISHED, load_published
from bench.report.statistics import perplexity
from tests.figures import EXPERIMENTS, draw, marked, of_store, paper, runs
from tests.records import make_record
from tests.trained import make_aggregate, make_experiment, make_run


def test_the_hero_has_every_seed_every_published_point_and_the_counts():
    counts = make_record("kneser_ney", None, 4.77, architecture="kneser_ney")
    axes = of_store("hero", make_experiment("paper", [*paper().done, counts])).figure.axes[0]
    by_arm = {"k_operators": "o", "nanogpt_2023": "s"}  # as the Transformer: the made-up one is not as wide as nanoGPT
    for label, marker in by_arm.items():
        seeds = [perplexity(run.nats()) for run in paper().done if run.label == label]
        assert [x for x, _ in marked(axes, marker)] == pytest.approx([*seeds, sum(seeds) / len(seeds)])
    assert sorted(x for x, _ in marked(axes, "*")) == [4.348, 4.43]
    assert any(line.get_linestyle() == ":" and line.get_xdata()[0] == pytest.approx(4.77) for line in axes.lines)


def test_the_hero_says_that_equal_parameters_were_not_searched_until_matched_has_run():
    untuned = make_experiment("matched-untuned", [*runs("k"), *runs("t", architecture="transformer")], reference="t")
    matched = make_experiment("matched", [*runs("k2", model={"rank": 8}), *runs("t2", architecture="transformer")])
    words = [text.get_text() for text in of_store("hero", paper(), untuned).figure.axes[0].texts]
    assert "equal parameters, not searched (mode exact)" in words
    words = [text.get_text() for text in of_store("hero", paper(), untuned, matched).figure.axes[0].texts]
    assert "equal parameters (mode exact)" in words


def test_learning_rates_are_of_the_shape_with_the_lowest_loss():
    shapes = {"short": 0.1, "long": 0.0}
    trials = [
        run
        for shape, worse in shapes.items()
        for rate in (0.01, 0.001, 0.1)
        for run in runs(f"{shape}-{rate}", 1.5 + worse, seeds=(7,), rate=rate, model={"rank": 8 if worse else 4})
    ]
    axes = of_store("hero", make_experiment("laptop-tuning", trials, {run.label: "k" for run in trials})).figure.axes[0]
    assert list(axes.lines[0].get_xdata()) == [0.001, 0.01, 0.1]
    assert list(axes.lines[0].get_ydata()) == [
        pytest.approx(perplexity(next(run for run in trials if run.label == f"long-{rate}").nats()))
        for rate in (0.001, 0.01, 0.1)
    ]


def test_trials_that_differ_in_more_than_the_rate_are_points_and_one_that_diverged_has_none():
    trials = [
        run for i in range(4) for run in runs(f"t{i}", 1.5, seeds=(7,), rate=0.01 * (i + 1), model={"rank": i + 4})
    ]
    lost = make_run("lost", 7, rate=0.9).model_copy(update={"status": "diverged", "result": None})
    made = make_experiment("tuning", [*trials, lost], dict.fromkeys(["t0", "t1", "t2", "t3", "lost"], "k"))
    axes = of_store("hero", made).figure.axes[0]
    assert axes.get_title("left") == "the preprint's size, by learning rate"
    assert axes.lines[0].get_linestyle() == "None"
    assert list(axes.lines[0].get_xdata()) == [0.01, 0.02, 0.03, 0.04]


def test_the_forest_of_claims_has_each_effect_its_interval_and_where_the_claim_holds():
    drawn = of_store("claims", paper())
    axes = drawn.figure.axes[0]
    verdicts = judge(make_aggregate(paper()), load_published(PUBLISHED))
    known = [one.effect for one in verdicts if one.effect is not None and one.effect.unit == "nats"]
    assert [x for x, _ in marked(axes, "o")] == pytest.approx([one.value for one in known])
    assert len(known) == 3
    labels = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
    assert labels[:3] == ["pending\nn = 3 of 10", "pending\nn = 3 of 10", "pending\nn = 6 of 20"]
    shaded = [
        band.get_paths()[0].get_extents() for band in axes.collections if band.get_paths()[0].get_extents().height > 0.5
    ]
    assert [(box.x0, box.x1) for box in shaded][:2] == [(-0.02, 0.02)] * 2


def test_the_frontier_has_each_published_point_at_its_own_place():
    lower = of_store("frontier", paper()).figure.axes[2]
    sampled, sweep = marked(lower, "h"), marked(lower, "*")
    assert (10_646_784, 4.348) in [(round(x), y) for x, y in sampled]
    assert (174_768, 4.34) in [(round(x), y) for x, y in sweep]
    known = [one for one in load_published(PUBLISHED).figure if one.n_params is not None]
    assert len(known) == 9
    places = sorted((one.n_params, one.perplexity) for one in known)
    assert sorted((round(x), y) for x, y in sampled + sweep) == places
    arms = {run.cost.parameters.n_params for run in paper().done}
    assert {x for marker in ("o", "X", "s") for x, _ in marked(lower, marker)} == arms


@pytest.mark.filterwarnings("error")
def test_a_perplexity_that_is_infinite_has_no_place_and_stops_no_figure():
    def lost(run):
        record = run.model_dump()
        record["result"]["sweep"]["best"]["nats_per_token"] = 800.0
        record["curve"][-1]["val_nats_per_token"] = 800.0
        return type(run).model_validate(record)

    experiment = make_experiment("paper", [lost(paper().done[0]), *paper().done[1:]], reference="nanogpt_2023")
    found = {drawn.name: drawn for drawn in draw(experiment)}
    assert {"hero", "claims", "frontier", "paper-curves"} <= set(found)
    assert marked(found["frontier"].figure.axes[2], "o") == []
    assert all(drawn.png for drawn in found.values())


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("background", looks.BACKGROUNDS)
def test_every_colour_reads_on_a_light_and_on_a_dark_page(background):
    colors = {color for color, _, _ in looks.LOOKS} | {*looks.OUTCOMES.values(), looks.INK, *looks.of_layers(6)}
    for color in colors:
        dark, light = sorted((luminance(color), luminance(background)))
        assert (light + 0.05) / (dark + 0.05) >= 3, color  # WCAG 2.2, 1.4.11: graphical objects


def test_every_family_has_a_colour_or_marker_of_its_own_and_figures_are_transparent():
    found = [(look["color"], look["marker"]) for look in map(looks.of_family, FAMILIES)]
    assert len(set(found)) == len(FAMILIES)
    for drawn in draw(*(make() for make in EXPERIMENTS)):
        assert mpl_image.imread(io.BytesIO(drawn.png))[0, 0, 3] == 0, drawn.name


def test_on_a_narrow_screen_every_panel_has_a_row_of_its_own_and_shows_the_same():
    aggregate = make_aggregate(*(make() for make in EXPERIMENTS))
    found = draw_all(aggregate, [], load_published(PUBLISHED), narrow=True)
    several = [one for one in found if len([axes for axes in one.figure.axes if axes.get_visible()]) > 1]
    assert {"hero", "frontier", "paper-learned"} <= {one.name for one in several}
    assert all((one.narrow is not None) == (one in several) for one in found)
    for wide in several:
        assert wide.narrow is not None
        narrow = wide.narrow.figure
        panels = [axes for axes in narrow.axes if axes.get_visible()]
        tops = [axes.get_position().y1 for axes in panels]
        assert sorted(set(tops), reverse=True) == tops, wide.name
        assert narrow.get_figwidth() == drawing.NARROW
        drawn = [len(axes.lines) + len(axes.collections) for axes in wide.figure.axes if axes.get_visible()]
        assert sorted(drawn) == sorted(len(axes.lines) + len(axes.collections) for axes in panels), wide.name
        assert {axes.get_xlabel() for axes in wide.figure.axes} == {axes.get_xlabel() for axes in narrow.axes}
        below = [narrow._supxlabel] if narrow._supxlabel else []
        for artist in (*narrow.legends, *below):
            assert artist.get_window_extent().width <= narrow.bbox.width + 1, wide.name
