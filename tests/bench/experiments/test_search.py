"""One search for every family, in two stages; what it chooses follows from the records alone."""

import math

import pytest

from bench.errors import ConfigError
from bench.experiments import FROM_RECORDS, find_experiment
from bench.experiments.grid import REPORTING_SEEDS, TUNING_SEED
from bench.experiments.matched import AXES, FAMILIES, arm, matched, searches, tuning
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from bench.experiments.search import DROPOUTS, N_TRIALS, RATES, STAGE_2_SEEDS, points, with_point
from tests.searching import Made, by_number

SEEDS_OF_THREE = (TUNING_SEED, *STAGE_2_SEEDS)


def test_the_seeds_of_the_search_report_nothing():
    assert SEEDS_OF_THREE == (1000, 1001, 1002)
    assert not set(SEEDS_OF_THREE) & set(REPORTING_SEEDS)


def test_every_family_has_the_same_twenty_points():
    assert len(set(points())) == N_TRIALS == 20
    cells = tuning(Made(lambda *_: None)).cells
    assert [cell.group for cell in cells] == [family for family in FAMILIES for _ in range(N_TRIALS)]
    recipes = {family: [cell.config.training for cell in cells if cell.group == family] for family in FAMILIES}
    assert len({tuple(found) for found in recipes.values()}) == 1
    assert all(training.n_steps * training.batch_size == 3500 * 64 for training in recipes["lstm"] if training)


def test_the_first_two_trials_are_the_published_recipes():
    theirs, ours = (with_point(arm("k_operators"), point) for point in points()[:2])
    assert ours == K_OPERATORS_PAPER
    training, published = with_point(arm("transformer"), points()[0]).training, NANOGPT.training
    assert training is not None
    assert published is not None
    for name in ("learning_rate", "final_learning_rate", "schedule", "betas", "weight_decay"):
        assert getattr(training, name) == getattr(published, name)
    assert training.warmup_steps / training.n_steps == published.warmup_steps / published.n_steps
    assert with_point(arm("transformer"), points()[0]).model.dropout == NANOGPT.model.dropout
    assert theirs.training == training


def test_an_architecture_with_one_dropout_gets_one_rate_near_the_mean_of_the_four_published_ones():
    four = [getattr(K_OPERATORS_PAPER.model, f"{site}_dropout") for site in ("emb", "mlp", "residual", "head")]
    rate = with_point(arm("modern"), points()[1]).model.dropout
    assert rate == min(DROPOUTS, key=lambda one: abs(one - sum(four) / 4))


def test_the_other_points_cover_the_learning_rates_of_each_recipe_and_every_dropout():
    others = points()[2:]
    for recipe in ("nanogpt", "k_operators"):
        shares = [math.log(one.learning_rate / RATES[0], RATES[1] / RATES[0]) for one in others if one.recipe == recipe]
        assert sorted(int(9 * share + 0.01) for share in shares) == list(range(9))  # rounded to three digits
    assert {one.dropout for one in others} == set(DROPOUTS)


def test_no_version_of_scipy_moves_a_point():
    assert [(one.recipe, one.learning_rate, one.dropout) for one in points()[2:8]] == [
        ("k_operators", 0.00139, 0.05),
        ("nanogpt", 0.00646, 0.1),
        ("k_operators", 0.0005, 0.2),
        ("nanogpt", 0.00232, 0.3),
        ("k_operators", 0.0108, 0.0),
        ("nanogpt", 0.000835, 0.05),
    ]
    assert points()[-1].learning_rate == 0.000422


def of_one_family(losses: dict[int, tuple[float | None, ...]]) -> Made:
    """Losses of K-Operators' trials by number, on 1000, 1001 and 1002; the others come far behind, in order."""

    def loss(label: str, seed: int) -> float | None:
        number = int(label[-2:])
        return dict(zip(SEEDS_OF_THREE, losses.get(number, (9.0 + number,)), strict=False)).get(seed)

    return Made(loss)


@pytest.mark.parametrize(
    ("losses", "finalists", "winner"),
    [
        ({4: (1.5, 1.5, 1.5), 7: (1.4, 1.4, 1.4), 2: (1.6, 1.6, 1.6)}, (7, 4, 2), 7),
        ({4: (1.5, 1.5, 1.5), 7: (1.4, 1.7, 1.7), 2: (1.6, 1.0, 1.6)}, (7, 4, 2), 2),  # three seeds turn it round
        ({4: (1.5, 1.5, 1.5), 7: (1.5, 1.5, 1.5), 2: (1.5, 1.5, 1.5), 9: (1.5,)}, (2, 4, 7), 2),  # ties
        ({4: (1.5, 1.5, 1.5), 7: (1.5, 1.25, 1.75), 2: (1.6, 1.6, 1.6)}, (4, 7, 2), 4),  # a tie of means
        ({4: (1.5, 1.5, 1.5), 7: (1.4, math.inf, 1.4), 2: (1.6, 1.6, 1.6)}, (7, 4, 2), 4),  # diverged in stage 2
        ({0: (math.inf,), 4: (1.5, 1.5, 1.5), 7: (1.4, 1.4, 1.4), 2: (1.6, 1.6, 1.6)}, (7, 4, 2), 7),
        ({4: (1.5, 1.5, None), 7: (1.4, 1.4, 1.4), 2: (1.6, 1.6, 1.6)}, (7, 4, 2), None),  # stage 2 is incomplete
        ({4: (None,), 7: (1.4, 1.4, 1.4), 2: (1.6, 1.6, 1.6)}, (), None),
    ],
)
def test_the_best_three_go_on_and_the_best_mean_of_three_seeds_wins(losses, finalists, winner):
    found = searches(of_one_family(losses), ["k_operators"])["k_operators"]
    assert found.finalists == finalists
    assert found.winner == winner
    assert [i for i, cell in enumerate(found.cells) if cell.seeds == SEEDS_OF_THREE] == sorted(finalists)
    assert all(cell.seeds == (TUNING_SEED,) for i, cell in enumerate(found.cells) if i not in finalists)


def test_a_diverged_trial_ranks_behind_every_other():
    all_but_two = {i: (math.inf, math.inf, math.inf) for i in range(N_TRIALS) if i not in (5, 8)}
    found = searches(of_one_family({**all_but_two, 5: (8.0, 8.0, 8.0), 8: (7.0, 7.0, 7.0)}), ["k_operators"])
    assert found["k_operators"].finalists == (8, 5, 0)
    assert found["k_operators"].winner == 8


def test_a_family_goes_on_when_its_own_trials_are_in_and_its_records_are_named():
    begun = tuning(Made(lambda label, seed: by_number(label, seed) if label.startswith("lstm") else None))
    assert {cell.group for cell in begun.cells if len(cell.seeds) > 1} == {"lstm"}
    assert len(begun.awaits) == 5 * N_TRIALS
    assert begun.awaits[0] == "k_operators-t00-s1000 (missing)"
    stage_1 = [cell.run(TUNING_SEED, "exact").run_id for cell in begun.cells if cell.group == "lstm"]
    assert begun.manifest().chosen_by == {"lstm": stage_1}
    assert find_experiment("tuning").manifest().chosen_by is None


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_matched_takes_the_winner_of_each_family_and_names_all_that_chose_it(mode):
    recorded = Made(lambda label, _: abs(int(label[-2:]) - FAMILIES.index(label[:-4]) - 3.0), mode)
    cells = {cell.label: cell for cell in matched(recorded).cells}
    assert cells.keys() == {
        "k_operators",
        *(f"{family}-{axis}" for family in ("transformer", "modern") for axis in AXES),
        *(f"{family}-params" for family in ("transformer_rotary", "transformer_none", "lstm")),
    }
    for label, cell in cells.items():
        family, _, axis = label.partition("-")
        point = points()[FAMILIES.index(family) + 3]
        assert cell.config == with_point(arm(family, axis or "params"), point)
    chosen_by = matched(recorded).manifest().chosen_by
    searched = tuning(recorded).on(corpus=None, mode=mode, seeds=None).manifest()
    assert chosen_by == {
        family: [run_id for cell in searched.cells if cell.group == family for run_id in cell.run_ids.values()]
        for family in FAMILIES
    }
    assert {len(run_ids) for run_ids in chosen_by.values()} == {N_TRIALS + 3 * 2}


def test_matched_is_refused_with_what_is_missing_and_the_next_command():
    def without_one(label: str, seed: int) -> float | None:
        return None if (label, seed) in {("modern-t02", 1001), ("lstm-t11", 1000)} else by_number(label, seed)

    with pytest.raises(ConfigError) as refused:
        find_experiment("matched", Made(without_one))
    assert str(refused.value) == (
        "the winners of tuning in mode exact are needed, and modern lacks 1 run of stage 2; lstm lacks 1 run of "
        "stage 1: modern-t02-s1001 (missing), lstm-t11-s1000 (missing). Next: python -m jobs launch --experiment tuning"
    )


def test_experiments_that_depend_on_records_are_found_by_name_without_any():
    assert set(FROM_RECORDS) == {"tuning", "matched", "folds", "warpeace"}
    assert len(find_experiment("tuning").runs()) == len(FAMILIES) * N_TRIALS
