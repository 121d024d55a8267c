"""Figures of trained runs: drawn from made-up records, so that what must be seen in them is known."""

import json
import re
from pathlib import Path

import pytest

from bench.report.figures import all_figures, is_figure
from bench.report.output import make_tables, write_tables
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import Results
from bench.report.statistics import perplexity
from bench.store import Store
from tests.command_line import run_python
from tests.figures import EXPERIMENTS, SEEDS, ablation, backends, draw, drawn_of, paper, runs, stress, tuning
from tests.measurements import SLUG, growth, write
from tests.records import make_record
from tests.trained import N_LAYERS, make_aggregate, make_experiment, make_run, write_store

ROOT = Path(__file__).parents[4]
EXPECTED = {
    "paper": {"curves", "learned"},  # one difference is a sentence
    "ablation": {"ablation", "learned"},
    "stress": {"ablation", "learned", "eta"},
    "tuning": {"best-of-k"},
    "backends": {"cost"},
}


# --- which figures there are ---


@pytest.mark.parametrize("make", EXPERIMENTS, ids=lambda make: make.__name__)
def test_every_experiment_gets_the_figures_that_its_records_allow(make):
    found = drawn_of(make())
    assert set(found) == {f"{make.__name__}-{kind}" for kind in EXPECTED[make.__name__]}
    for name, drawn in found.items():
        assert drawn.title.startswith(make.__name__)
        assert re.search(r"\bn = |\bn: ", drawn.caption), name
        assert drawn.alt.endswith(".")
        assert all(axes.get_xlabel() or not axes.get_xaxis().get_visible() for axes in drawn.figure.axes[-1:])


def test_no_figure_holds_anything_of_another_experiment():
    makes = (ablation, tuning, backends)
    together = {drawn.name: drawn.svg for drawn in draw(*(make() for make in makes)) if drawn.kind}
    assert together == {name: drawn.svg for make in makes for name, drawn in drawn_of(make()).items()}


def test_every_figure_is_known_by_its_name_and_nothing_else_is():
    names = all_figures(make_aggregate(tuning(), backends()), [], load_published(PUBLISHED))
    stems = ("hero", "frontier", "tuning-best-of-k", "backends-cost")
    assert set(names) == {f"{stem}.{end}" for stem in stems for end in ("svg", "png")}
    drawn = (f"{make.__name__}-{kind}.svg" for make in EXPERIMENTS for kind in EXPECTED[make.__name__])
    assert all(is_figure(Path("figures") / name) for name in (*names, *drawn))
    former = ("paper-parameters.png", "laptop-paths.svg", "paper-gamma-2.png", "laptop-all-curves-7.svg")
    assert all(is_figure(Path(name)) for name in ("claims.svg", "growth-cpu.svg", *former))
    assert not any(is_figure(Path(name)) for name in ("notes.svg", "curves.svg", "paper-curves.txt", "paper-mine.png"))


def test_nothing_done_and_floors_alone_draw_nothing():
    floor = make_record("bigram", None, architecture="ngram")
    failed = make_run("k_operators").model_copy(update={"status": "diverged", "result": None})
    assert [drawn.name for drawn in draw(make_experiment("paper", [floor, failed]))] == ["frontier"]
    assert draw(make_experiment("paper", [failed])) == []


def test_a_figure_that_another_of_its_kind_holds_is_not_drawn_twice():
    small, large = paper(), paper().done + runs("modern", architecture="transformer", model={"norm": "rms"})
    copy = make_experiment("a-copy", small.done, reference="nanogpt_2023")
    whole = make_experiment("whole", large, reference="nanogpt_2023")
    names = [drawn.name for drawn in draw(copy, small, whole) if drawn.kind == "curves"]
    assert names == ["whole-curves"]
    assert [drawn.name for drawn in draw(copy, small) if drawn.kind == "curves"] == ["a-copy-curves"]
    fast = make_experiment("fast", [run.model_copy(update={"mode": "fast"}) for run in large], reference="nanogpt_2023")
    assert [drawn.name for drawn in draw(small, fast) if drawn.kind == "curves"] == ["fast-curves"]


# --- older records, and records with nonsense in them ---


def test_records_without_readings_have_no_figure_of_what_was_learned():
    two = [*runs("k_operators", readings=()), *runs("b", readings=(), architecture="transformer")]
    assert set(drawn_of(make_experiment("laptop", two))) == {"laptop-curves"}


def test_older_records_show_the_readings_that_they_have():
    """A record without quartiles and without shares."""
    old = runs("k_operators", readings=("gate", "alpha"))
    for run in old:
        for at_step in run.diagnostics.by_step.values():
            at_step["gamma_min_median_max"] = [[0.98, 0.99, 0.999]] * N_LAYERS
    drawn = drawn_of(make_experiment("laptop", old))["laptop-learned"]
    titles = [axes.get_title("left") for axes in drawn.figure.axes if axes.get_visible()]
    assert titles == ["gate of the base", "alpha of recurrence", "half-life (tokens)"]
    assert "share" not in drawn.caption


@pytest.mark.parametrize("nonsense", [None, "much", [], [[]], {"a": 1}, [None] * 6, [["x"] * 5] * 6, True])
def test_a_reading_that_is_no_number_is_not_drawn(nonsense):
    strange = runs("k_operators")
    for run in strange:
        for at_step in run.diagnostics.by_step.values():
            for name in list(at_step):
                at_step[name] = nonsense
            at_step["kernel_by_distance"] = nonsense
    assert drawn_of(make_experiment("laptop", strange)) == {}


def test_runs_that_are_not_done_are_told_and_not_drawn():
    good, bad = runs("k_operators"), make_run("k_operators", 666, 9.0)
    bad = bad.model_copy(update={"status": "diverged", "result": None})
    other = runs("b", architecture="transformer")
    found = drawn_of(make_experiment("laptop", [*good, bad, *other]))["laptop-curves"]
    assert "k_operators 3 of 4" in found.caption
    assert "n = 3" in found.caption
    assert max(found.figure.axes[0].lines[0].get_ydata()) < 50


# --- what is drawn ---


def test_a_curve_is_the_mean_perplexity_over_seeds_and_its_band_reaches_the_least_and_the_most():
    axes = drawn_of(paper())["paper-curves"].figure.axes[0]
    records = [run for run in paper().done if run.label == "k_operators"]
    by_seed = [[perplexity(one.val_nats_per_token) for one in run.curve[1:]] for run in records]
    means = [sum(at_step) / len(SEEDS) for at_step in zip(*by_seed, strict=True)]
    assert list(axes.lines[0].get_xdata()) == [one.step for one in records[0].curve[1:]]
    assert list(axes.lines[0].get_ydata()) == pytest.approx(means)
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert min(heights) == pytest.approx(min(map(min, by_seed)))
    assert max(heights) == pytest.approx(max(map(max, by_seed)))
    assert axes.get_ylim()[0] < min(means) < max(1.2 * min(means), means[-1]) < axes.get_ylim()[1]


def test_curves_of_the_published_recipes_have_the_published_lines_and_others_have_none():
    def dotted(drawn):
        return sorted(line.get_ydata()[0] for line in drawn.figure.axes[0].lines if line.get_linestyle() == ":")

    assert dotted(drawn_of(paper())["paper-curves"]) == [4.348, 4.43]
    laptop = make_experiment("laptop-all", paper().done, reference="nanogpt_2023")
    assert dotted(drawn_of(laptop)["laptop-all-curves"]) == []


def test_of_several_sizes_of_a_family_the_first_has_a_curve_and_the_family_its_plain_name():
    wide = [run for n in (64, 96) for run in runs(f"t-{n}", architecture="transformer", model={"d_model": n})]
    drawn = drawn_of(make_experiment("x", [*runs("k"), *wide], reference="t-64"))["x-curves"]
    assert drawn.alt.endswith("for K-Operators, Transformer.")
    assert {seed for _, seed in drawn.shown} == set(SEEDS)
    assert {json.loads(config)["model"]["d_model"] for config, _ in drawn.shown} == {128, 64}


def test_what_was_learned_is_a_line_for_each_seed_and_layer_and_gamma_is_a_half_life():
    drawn = drawn_of(paper())["paper-learned"]
    panels = {axes.get_title("left"): axes for axes in drawn.figure.axes}
    assert [len(axes.lines) for axes in panels.values()] == [len(SEEDS) * N_LAYERS] * 4
    first = panels["half-life (tokens)"].lines[0].get_ydata()[0]
    gamma = paper().done[0].diagnostics.by_step[0]["gamma_quantiles"][0][2]
    assert gamma**first == pytest.approx(0.5)
    colors = {line.get_color() for line in panels["gate of the base"].lines}
    assert len(colors) == N_LAYERS


def test_base_kernels_are_drawn_by_distance_at_the_first_and_the_last_evaluation():
    with_kernels = runs("k_operators")
    for run in with_kernels:
        for step, at_step in run.diagnostics.by_step.items():
            at_step["kernel_by_distance"] = [[float(step), 2.0, 3.0], [0.0, float(run.seed), 1.0]]
    one, other = drawn_of(make_experiment("laptop", with_kernels))["laptop-kernels"].figure.axes
    firsts = [(line.get_linestyle(), line.get_ydata()[0]) for line in one.lines if len(line.get_ydata()) == 3]
    assert firsts == [(":", 0.0), ("-", 3500.0)] * len(SEEDS)
    assert [line.get_ydata()[1] for line in other.lines if line.get_linestyle() == ":"] == list(SEEDS)
    assert list(one.lines[0].get_xdata()) == [1, 2, 3]  # distance + 1, on a logarithmic axis


def test_eta_stands_beside_the_losses_of_each_learning_rate_and_an_ablation_does_not():
    with_ablation = make_experiment("stress", [*stress().done, *ablation().done[3:]], reference="refine-1")
    eta, losses = drawn_of(with_ablation)["stress-eta"].figure.axes
    assert [text.get_text() for text in eta.get_legend().get_texts()] == ["rate × 0.1", "rate × 1", "rate × 10"]
    assert [list(line.get_xdata()) for line in losses.lines if line.get_linestyle() != "None"] == [[0.1, 1, 10]] * 3
    assert "refine-2" not in drawn_of(with_ablation)["stress-eta"].caption


def test_a_difference_is_of_all_runs_of_both_arms():
    found = drawn_of(ablation())["ablation-ablation"]
    axes = found.figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    experiment = ablation()
    by_label = {cell.label: cell for cell in experiment.cells}
    nats = {label: [run.result.sweep.best.nats_per_token for run in cell.done] for label, cell in by_label.items()}
    means = {label: sum(values) / len(values) for label, values in nats.items()}
    expected = sorted(means[label] - means["k_operators"] for label in ("wide-gamma", "refine-2", "rank-8"))
    assert [point.get_xdata()[0] for point in points] == pytest.approx(expected)
    assert "of Welch" in found.caption
    low, high = axes.get_xlim()
    assert low < -0.02 < 0.02 < high


def test_backends_leave_out_the_times_of_runs_that_shared_a_gpu():
    environment = make_record().environment.model_dump()
    attempt = {
        "started_at": "", "first_step": 0, "last_step": 20, "train_seconds": 1.0, "environment": environment,
        "runs_per_gpu": 2,
    }  # fmt: skip
    memory = drawn_of(backends(attempts=[attempt]))["backends-cost"].figure.axes[0]
    assert memory.get_title("left") == "peak memory"
    assert [list(line.get_xdata()) for line in memory.lines if line.get_linestyle() != "None"] == [[64, 128]] * 2


# --- best of k ---


def test_the_expected_best_is_the_mean_of_all_trials_for_one_and_the_best_of_all_for_all_and_a_failed_one_counts():
    line = drawn_of(tuning())["tuning-best-of-k"].figure.axes[0].lines[0]
    values = [perplexity(run.result.sweep.best.nats_per_token) for run in tuning().done]
    assert list(line.get_xdata()) == list(range(1, 21))
    assert line.get_ydata()[0] == pytest.approx(sum(values) / 20)
    assert line.get_ydata()[-1] == pytest.approx(min(values))
    drawn = drawn_of(tuning(n_failed=2))["tuning-best-of-k"]
    assert list(drawn.figure.axes[0].lines[0].get_xdata()) == list(range(3, 21))
    assert "K-Operators 2" in drawn.caption


def test_replicates_of_one_config_are_no_trials():
    same = [run for i in range(3) for run in runs(f"replicate-{i}", seeds=(42,))]
    experiment = make_experiment("noise", same, {run.label: "k_operators" for run in same})
    assert drawn_of(experiment) == {}


# --- the files ---

NASTY = ("$x_1^2$", "_hidden", "../../up", "</svg><script>", "\x1b[31m\n red", "W" * 80, "% & ' \"", "ünïcode ✓ 漢", "")


def hostile() -> list[Results]:
    arms = [run for i, label in enumerate(NASTY) for run in runs(label, 1.5 + i / 99, model={"rank": i + 1})]
    rates = [run for label in NASTY for run in runs(label + "!", rate=0.01 * (1 + len(label)))]
    groups = {run.label: run.label for run in arms}
    models = [run for label in NASTY for run in runs(label, architecture="transformer", model={"position": label})]
    return [
        make_experiment("a", arms, reference=NASTY[0]),
        make_experiment("b", rates, reference=NASTY[1] + "!"),
        make_experiment("c", arms, groups | dict.fromkeys([run.label for run in arms][::2], NASTY[3])),
        make_experiment("d", models, reference=NASTY[5]),
    ]


@pytest.mark.filterwarnings("error")
def test_hostile_labels_do_no_harm():
    found = draw(*hostile())
    assert len(found) > 7
    for drawn in found:
        assert re.fullmatch(r"[a-d]-[a-z0-9-]+|frontier", drawn.name)
        assert b"<script" not in drawn.svg
        assert "\x1b" not in drawn.caption + drawn.alt + drawn.title
        assert drawn.png.startswith(b"\x89PNG")


@pytest.mark.parametrize("make", [*EXPERIMENTS, hostile], ids=lambda make: make.__name__)
def test_no_text_is_cut_off(make):
    made = make()
    for drawn in draw(*(made if isinstance(made, list) else [made])):
        drawn.figure.draw_without_rendering()
        frame = drawn.figure.bbox
        texts = [*drawn.figure.texts, *drawn.figure.legends]
        texts += [part for axes in drawn.figure.axes for part in (axes.xaxis, axes.yaxis) if axes.get_visible()]
        for text in texts:
            box = text.get_tightbbox()
            assert box is None or (box.x0 > frame.x0 - 1 and box.x1 < frame.x1 + 1), (drawn.name, text)


DRAW = (
    "import hashlib, sys; from pathlib import Path; from bench.report.runs import read_results\n"
    "from bench.report.figures import all_figures; from bench.report.published import load_published\n"
    "from bench.store import Store; store = Store(Path(sys.argv[1]))\n"
    "images = all_figures(read_results(store), store.measurements()[0], load_published())\n"
    "for name, image in images.items(): print(name, hashlib.sha256(image).hexdigest())\n"
    "print(sorted({'torch', 'models'} & set(sys.modules)))\n"
)


def test_two_processes_draw_the_same_bytes_whatever_the_users_settings(tmp_path):
    for make in (paper, ablation, stress):
        write_store(tmp_path, make())
    write(tmp_path, growth())
    (tmp_path / "matplotlibrc").write_text("font.family: serif\naxes.linewidth: 9\nxtick.labelsize: 20\n")
    one = run_python(DRAW, str(tmp_path), PYTHONHASHSEED="1")
    own = {"MATPLOTLIBRC": str(tmp_path), "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    assert one == run_python(DRAW, str(tmp_path), **own)
    assert len(one.splitlines()) > 16
    assert {f"growth-{SLUG}.svg", f"growth-{SLUG}.png"} <= {line.split()[0] for line in one.splitlines()}
    assert one.splitlines()[-1] == "[]"


def test_tables_write_the_figures_and_remove_those_that_nothing_draws(tmp_path):
    store = Store(tmp_path)
    write_store(tmp_path, paper())
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "gone-curves-2.svg").write_text("old")
    (tmp_path / "figures" / "notes.svg").write_text("mine")
    write_tables(store, make_tables(store))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"paper-curves.svg", "paper-curves.png", "hero.svg", "notes.svg"} <= names
    assert "gone-curves-2.svg" not in names
    assert write_tables(store, make_tables(store)) == []
