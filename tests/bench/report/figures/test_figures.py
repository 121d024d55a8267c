"""Figures of trained runs: drawn from made-up records, so that what must be seen in them is known."""

import math
import re
from pathlib import Path

import pytest

from bench.report.figures import all_figures, draw_all, is_figure
from bench.report.figures.drawing import Drawn
from bench.report.output import make_tables, write_tables
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import Results
from bench.report.statistics import perplexity
from bench.store import Store
from tests.command_line import run_python
from tests.measurements import SLUG, growth, write
from tests.records import make_record
from tests.trained import N_LAYERS, make_aggregate, make_experiment, make_run, write_store

ROOT = Path(__file__).parents[4]
SEEDS = (42, 69, 420)
FROZEN, PLAIN = {"eta": "frozen"}, {"refine_steps": 0}


def runs(label: str, nats: float = 1.49, seeds=SEEDS, **changes):
    return [make_run(label, seed, nats, **changes) for seed in seeds]


def paper() -> Results:
    arms = [*runs("k_operators"), *runs("nanogpt_2023", 1.47, architecture="transformer", n_params=10_745_088)]
    return make_experiment("paper", arms, reference="nanogpt_2023")


def ablation() -> Results:
    arms = [
        *runs("k_operators"),
        *runs("wide-gamma", 1.50, model={"gamma_min": 0.15}),
        *runs("refine-2", 1.48, model={"refine_steps": 2}),
        *runs("rank-8", 1.55, seeds=(7, 8, 9), model={"rank": 8}),  # no seed in common
    ]
    return make_experiment("ablation", arms, reference="k_operators")


def stress() -> Results:
    arms = [
        run
        for form, model in (("refine", {}), ("plain", PLAIN), ("frozen", FROZEN))
        for multiple in (0.1, 1, 10)
        for run in runs(f"{form}-{multiple:g}", 1.5 + 0.1 * abs(math.log10(multiple)), model=model, rate=multiple / 100)
    ]
    return make_experiment("stress", arms, reference="refine-1")


def tuning(n_failed: int = 0) -> Results:
    arms = [make_run(f"trial-{i}", 1000, 1.5 + 0.01 * i, rate=0.01 + i / 1000) for i in range(20)]
    arms[:n_failed] = [run.model_copy(update={"status": "diverged", "result": None}) for run in arms[:n_failed]]
    return make_experiment("tuning", arms, {run.label: "k_operators" for run in arms})


def backends(**changes) -> Results:
    arms = [
        run
        for backend in ("mask", "chunked")
        for context in (64, 128)
        for run in runs(f"{backend}-{context}", model={"backend": backend, "context": context}, n_steps=20, **changes)
    ]
    return make_experiment("backends", arms)


EXPERIMENTS = (paper, ablation, stress, tuning, backends)
EXPECTED = {
    "paper": {"curves", "parameters", "gamma", "paths", "differences"},
    "ablation": {"curves", "gamma", "gamma-2", "paths", "differences"},
    "stress": {"curves", "curves-2", "curves-3", "curves-4", "gamma", "paths", "eta", "differences"},
    "tuning": {"best-of-k"},
    "backends": {"cost"},
}


def draw(*experiments: Results) -> list[Drawn]:
    return draw_all(make_aggregate(*experiments), [], load_published(PUBLISHED))


def drawn_of(experiment: Results) -> dict[str, Drawn]:
    return {drawn.name: drawn for drawn in draw(experiment)}


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
    together = {drawn.name: drawn.svg for drawn in draw(*(make() for make in makes))}
    assert together == {name: drawn.svg for make in makes for name, drawn in drawn_of(make()).items()}


def test_every_figure_is_known_by_its_name_and_nothing_else_is():
    names = all_figures(make_aggregate(tuning(), backends()), [], load_published(PUBLISHED))
    assert set(names) == {f"{stem}.{end}" for stem in ("tuning-best-of-k", "backends-cost") for end in ("svg", "png")}
    drawn = (f"{make.__name__}-{kind}.svg" for make in EXPERIMENTS for kind in EXPECTED[make.__name__])
    assert all(is_figure(Path("figures") / name) for name in (*names, *drawn))
    assert is_figure(Path("growth-cpu.svg"))
    assert not any(is_figure(Path(name)) for name in ("notes.svg", "curves.svg", "paper-curves.txt", "paper-mine.png"))


def test_nothing_done_and_floors_alone_draw_nothing():
    floor = make_record("bigram", None, architecture="ngram")
    failed = make_run("k_operators").model_copy(update={"status": "diverged", "result": None})
    assert drawn_of(make_experiment("paper", [floor, failed])) == {}


# --- older records, and records with nonsense in them ---


def test_records_without_readings_have_curves_alone():
    experiment = make_experiment("ablation", [*runs("k_operators", readings=()), *runs("b", rate=0.02, readings=())])
    assert {name.split("-")[1] for name in drawn_of(experiment)} == {"curves"}


def test_older_records_show_the_readings_that_they_have():
    """A record without quartiles, without shares and without eta."""
    old = runs("k_operators", readings=("gate", "alpha"))
    for run in old:
        for at_step in run.diagnostics.by_step.values():
            at_step["gamma_min_median_max"] = [[0.98, 0.99, 0.999]] * N_LAYERS
    found = drawn_of(make_experiment("laptop", old))
    assert [axes.get_title("left") for axes in found["laptop-paths"].figure.axes] == [
        "gate of the base",
        "alpha of recurrence",
    ]
    assert "share" not in found["laptop-paths"].caption
    assert "quartiles" not in found["laptop-gamma"].caption


@pytest.mark.parametrize("nonsense", [None, "much", [], [[]], {"a": 1}, [None] * 6, [["x"] * 5] * 6, True])
def test_a_reading_that_is_no_number_is_not_drawn(nonsense):
    strange = runs("k_operators")
    for run in strange:
        for at_step in run.diagnostics.by_step.values():
            for name in list(at_step):
                at_step[name] = nonsense
    assert set(drawn_of(make_experiment("laptop", strange))) == {"laptop-curves"}


def test_runs_that_are_not_done_are_told_and_not_drawn():
    good, bad = runs("k_operators"), make_run("k_operators", 666, 9.0)
    bad = bad.model_copy(update={"status": "diverged", "result": None})
    found = drawn_of(make_experiment("laptop", [*good, bad]))["laptop-curves"]
    assert "k_operators 3 of 4" in found.caption
    assert "n = 3" in found.caption
    assert max(found.figure.axes[0].lines[0].get_ydata()) < 50


# --- what is drawn ---


def test_a_curve_is_the_mean_perplexity_over_seeds_and_its_band_reaches_the_least_and_the_most():
    experiment = make_experiment("laptop", runs("k_operators"))
    whole, near = drawn_of(experiment)["laptop-curves"].figure.axes
    by_seed = [[perplexity(one.val_nats_per_token) for one in run.curve[1:]] for run in experiment.done]
    means = [sum(at_step) / len(SEEDS) for at_step in zip(*by_seed, strict=True)]
    assert list(whole.lines[0].get_xdata()) == [one.step for one in experiment.done[0].curve[1:]]
    assert list(whole.lines[0].get_ydata()) == pytest.approx(means)
    heights = whole.collections[0].get_paths()[0].vertices[:, 1]
    assert min(heights) == pytest.approx(min(map(min, by_seed)))
    assert max(heights) == pytest.approx(max(map(max, by_seed)))
    assert near.get_xlim()[0] == 1750


@pytest.mark.parametrize("n_arms", [1, 8, 9, 16, 33])
def test_no_figure_of_curves_has_more_than_eight_lines_and_no_arm_is_left_out(n_arms):
    arms = [run for i in range(n_arms) for run in runs(f"arm-{i}", seeds=(42,), model={"rank": i + 1})]
    shown = [
        drawn.alt for name, drawn in drawn_of(make_experiment("x", arms, reference="arm-0")).items() if "curves" in name
    ]
    labels = [re.findall(r"arm-\d+", alt) for alt in shown]
    assert all(len(each) <= 8 for each in labels)
    assert {label for each in labels for label in each} == {f"arm-{i}" for i in range(n_arms)}
    assert all(each[0] == "arm-0" for each in labels)


def test_published_points_stand_in_the_experiment_that_follows_the_recipes_alone():
    theirs = drawn_of(paper())["paper-parameters"]
    assert "4.348" in theirs.caption
    assert "10.65M parameters without positions" in theirs.caption
    assert "published" in str([text.get_text() for text in theirs.figure.legends[0].get_texts()])
    laptop = make_experiment("laptop-all", paper().done, reference="nanogpt_2023")
    assert "published" not in drawn_of(laptop)["laptop-all-parameters"].caption


def test_eta_stands_beside_the_losses_of_each_learning_rate_and_an_ablation_does_not():
    with_ablation = make_experiment("stress", [*stress().done, *ablation().done[3:]], reference="refine-1")
    eta, losses = drawn_of(with_ablation)["stress-eta"].figure.axes
    assert [text.get_text() for text in eta.get_legend().get_texts()] == ["rate × 0.1", "rate × 1", "rate × 10"]
    assert [list(line.get_xdata()) for line in losses.lines if line.get_linestyle() != "None"] == [[0.1, 1, 10]] * 3
    assert "refine-2" not in drawn_of(with_ablation)["stress-eta"].caption


def test_a_difference_is_of_all_runs_of_both_arms():
    found = drawn_of(ablation())["ablation-differences"]
    axes = found.figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    experiment = ablation()
    by_label = {cell.label: cell for cell in experiment.cells}
    nats = {label: [run.result.sweep.best.nats_per_token for run in cell.done] for label, cell in by_label.items()}
    means = {label: sum(values) / len(values) for label, values in nats.items()}
    expected = [means[label] - means["k_operators"] for label in ("wide-gamma", "refine-2", "rank-8")]
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
    assert "k_operators 2" in drawn.caption


def test_replicates_of_one_config_are_no_trials():
    same = [run for i in range(3) for run in runs(f"replicate-{i}", seeds=(42,))]
    experiment = make_experiment("noise", same, {run.label: "k_operators" for run in same})
    assert set(drawn_of(experiment)) == {"noise-curves"}


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
    assert len(found) > 8
    for drawn in found:
        assert re.fullmatch(r"[a-d]-[a-z0-9-]+", drawn.name)
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
    assert len(one.splitlines()) > 20
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
    assert {"paper-curves.svg", "paper-curves.png", "paper-parameters.svg", "notes.svg"} <= names
    assert "gone-curves-2.svg" not in names
    assert write_tables(store, make_tables(store)) == []


def test_models_that_differ_in_more_than_their_size_are_lines_of_their_own():
    kinds = {
        "modern": {"position": "rotary", "norm": "rms", "mlp": "swiglu"},
        "rotary": {"position": "rotary"},
        "none": {"position": "none"},
    }
    arms = [*runs("k_operators")]
    for name, model in kinds.items():
        for width in (64, 96, 128):
            arms += runs(f"{name}-{width}", architecture="transformer", model=model | {"d_model": width})
    (legend,) = drawn_of(make_experiment("x", arms, reference="rotary-64"))["x-parameters"].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "k_operators",
        "transformer, modern",
        "transformer, rotary",
        "transformer, no positions",
    ]
