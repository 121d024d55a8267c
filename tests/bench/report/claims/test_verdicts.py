"""No verdict before the planned seeds are in; a diverged seed; laptop and other modes decide nothing."""

import pytest

from bench.experiments.grid import REPORTING_SEEDS
from bench.report.claims.evidence import PLANNED_SEEDS
from bench.report.claims.registered import JUDGED_ON, RULES, rules_sha256
from bench.report.claims.verdicts import ASKED_AT_LAPTOP_SIZE, judge
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import read_results
from jobs.outcome import rules_in_force
from tests.bench.report.claims.test_rules_losses import arm, matched
from tests.judging import SEEDS, TEN, THEIRS, Made, diverged, runs


def test_every_claim_has_its_rule_and_without_runs_none_has_started(made):
    published = load_published(PUBLISHED)
    assert [claim.id for claim in published.claim] == list(RULES) == [f"C{i}" for i in range(1, 11)]
    assert {name for claim in published.claim for name in claim.experiments} == set(JUDGED_ON)
    verdicts = judge(read_results(made.store), published)
    assert {one.outcome for one in verdicts} == {"not started"}
    assert all(one.numbers == () and one.mode is None for one in verdicts)


def test_planned_seeds_are_those_fixed_before_any_run():
    assert PLANNED_SEEDS == REPORTING_SEEDS == TEN
    planned = {(one.experiment, one.label): one.n_seeds for rule in RULES.values() for one in rule.arms}
    assert planned["paper", "k_operators"] in (1, 10)
    assert {n for (experiment, _), n in planned.items() if experiment in ("ablation", "stress")} == {5}


@pytest.mark.parametrize("nats", [THEIRS, THEIRS + 1.0])
def test_no_verdict_before_the_planned_seeds_are_in_whatever_happens(made, nats):
    verdict = made.add("paper", diverged(arm("k_operators", nats, n=9))).verdict("C1")
    assert verdict.outcome == "pending"
    assert verdict.numbers[0] == "k_operators 9 of 10 seeds, 1 diverged"
    assert verdict.numbers[1].startswith("so far ")
    assert verdict.seeds_needed is None


def test_one_diverged_seed_of_one_launched_decides_nothing(made, tmp_path):
    """In C1, C3 and C9 this was `not reproduced`, however many seeds the plan has."""
    for name, claims in (("paper", ("C1", "C3")), ("stress", ("C9",))):
        labels = ("k_operators", "nanogpt_2023") if name == "paper" else ("refine-lr1", "refine-lr10")
        here = Made(tmp_path / name).add(name, *[diverged(runs(label, 1.5, seeds=SEEDS[:1])) for label in labels])
        assert [here.verdict(claim).outcome for claim in claims] == ["pending"] * len(claims)


def test_other_seeds_than_the_planned_ones_change_no_verdict(made, tmp_path):
    ten = arm("k_operators", THEIRS)
    more = [*ten, *runs("k_operators", 9.0, seeds=(77, 78), spread=(0.0, 0.0))]
    assert made.add("paper", more).verdict("C1").numbers == Made(tmp_path / "x").add("paper", ten).verdict("C1").numbers
    others = Made(tmp_path / "others").add("paper", runs("k_operators", THEIRS, seeds=(77, 78, 79, 80, 81)))
    assert others.verdict("C1").outcome == "not started"


def test_a_diverged_seed_rules_out_reproduced_and_an_arm_without_survivor_reproduces_nothing(made, tmp_path):
    one = made.add("paper", diverged(arm("k_operators", THEIRS))).verdict("C1")
    assert one.outcome == "inconclusive"
    assert one.numbers[-1] == "k_operators 10 seeds, 1 diverged"
    every = Made(tmp_path / "all").add("paper", diverged(arm("k_operators", THEIRS), 10))
    assert every.verdict("C1").outcome == "not reproduced"
    worse = Made(tmp_path / "worse").add("paper", diverged(arm("k_operators", THEIRS + 0.1)))
    assert worse.verdict("C1").outcome == "not reproduced"


def test_a_claim_waits_for_every_arm_of_its_rule(made):
    assert made.add("paper", arm("k_operators", 1.4)).verdict("C3").outcome == "pending"
    assert "nanogpt_2023 0 of 10 seeds" in made.verdict("C3").numbers[0]


def test_laptop_records_stand_beside_a_verdict_and_never_change_it(made, tmp_path):
    before = matched(made, -0.05)
    arms = [
        runs("k_operators", 1.9, seeds=SEEDS[:3]),
        *(
            runs(label, 1.7, seeds=SEEDS[:3], architecture="transformer")
            for label in ("transformer", "transformer_rotary", "modern")
        ),
    ]
    made.add(
        "laptop-all",
        *[
            [one.model_copy(update={"run_id": f"{i}{j}".zfill(12)}) for j, one in enumerate(records)]
            for i, records in enumerate(arms)
        ],
    )
    after = made.verdict("C10")
    assert (after.outcome, after.numbers) == (before.outcome, before.numbers)
    assert before.at_laptop_size == ()
    assert "+0.2000" in after.at_laptop_size[0]
    alone = Made(tmp_path / "alone").add("laptop-all", *arms)
    assert alone.verdict("C10").outcome == "not started"
    assert alone.verdict("C10").at_laptop_size
    assert "C1" not in ASKED_AT_LAPTOP_SIZE


def test_the_experiments_that_rules_judge_carry_their_hash_and_the_ledger_sees_another(made):
    assert rules_in_force("matched") == rules_sha256()
    assert rules_in_force("laptop-all") is None
    made.add("paper", arm("k_operators", 1.4))
    ours, published = read_results(made.store), load_published(PUBLISHED)
    assert judge(ours, published)[0].changed_since == ()
    assert judge(ours, published, rules_now="0" * 64)[0].changed_since == ("paper",)
