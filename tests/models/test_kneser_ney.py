"""Interpolated Kneser-Ney: by hand, against a plain counting of dictionaries, and as a floor that beats the bigram."""

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from bench.evaluate import sweep
from bench.experiments.recipes import floors
from models import KneserNey, KneserNeyConfig, Ngram, NgramConfig
from tests.conftest import CONTEXT, VOCAB_SIZE

BY_HAND = [0, 1, 0, 2, 0, 1, 1]  # of a vocabulary of 4, whose last token it does not hold


def fitted(text: list[int] | Tensor, order: int, vocab_size: int = 4) -> KneserNey:
    return KneserNey(KneserNeyConfig(vocab_size=vocab_size, order=order)).fit(torch.as_tensor(text))


def after(model: KneserNey, context: list[int]) -> list[float]:
    """What it says after a window of these tokens."""
    return model(torch.tensor([context]))[0, -1].exp().tolist()


def random_text(n_tokens: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Where low tokens are common and high ones rare, so that counts of all sizes and unseen contexts occur."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n_tokens, generator=generator).square() * vocab_size).long().tolist()


class Counted:
    """The definition, from the text and nothing else: one n-gram at a time, without a table."""

    def __init__(self, text: list[int], vocab_size: int) -> None:
        self.text, self.vocab_size = text, vocab_size

    def count(self, order: int, highest: bool) -> Counter[tuple[int, ...]]:
        """Occurrences of each n-gram; below the highest order, the distinct tokens seen before it."""
        occurrences = Counter(zip(*(self.text[i:] for i in range(order)), strict=False))
        if highest:
            return occurrences
        longer = set(zip(*(self.text[i:] for i in range(order + 1)), strict=False))
        return Counter(gram[1:] for gram in longer)

    def probability(self, token: int, context: tuple[int, ...], highest: bool = True) -> float:
        counts = self.count(len(context) + 1, highest)
        lower = 1 / self.vocab_size
        if context:
            lower = self.probability(token, context[1:], highest=False)
        following = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == context}
        if not following:
            return lower
        once, twice = (list(counts.values()).count(n) for n in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.0
        total = sum(following.values())
        return max(following.get(token, 0) - discount, 0) / total + discount * len(following) / total * lower


# by hand --------------------------------------------------------------------------------------------------------------


def test_an_order_two_model_by_hand():
    """Bigrams 01 twice; 10, 02, 20, 11 once: n1 = 4, n2 = 1, D = 4/6. Distinct tokens before 0: {1, 2}, before 1:
    {0, 1}, before 2: {0}, five in all: n1 = 1, n2 = 2, D = 1/5, of which 3 x 1/5 of 5 goes to the uniform 1/4.
    """
    model = fitted(BY_HAND, 2)
    spared = (1 / 5) * 3 / 5 / 4  # of token 3, which the text lacks
    unigram = [(2 - 1 / 5) / 5 + spared, (2 - 1 / 5) / 5 + spared, (1 - 1 / 5) / 5 + spared, spared]
    assert unigram == pytest.approx([0.39, 0.39, 0.19, 0.03])
    D = 2 / 3
    # after 0, seen three times: 1 twice, 2 once
    assert after(model, [0]) == pytest.approx(
        [D * 2 / 3 * 0.39, (2 - D) / 3 + D * 2 / 3 * 0.39, (1 - D) / 3 + D * 2 / 3 * 0.19, D * 2 / 3 * 0.03]
    )
    # after 1, seen twice with a token behind it: 0 and 1 once each; the last 1 has none
    assert after(model, [1]) == pytest.approx([(1 - D) / 2 + D * 0.39, (1 - D) / 2 + D * 0.39, D * 0.19, D * 0.03])
    # after 2, seen once: 0
    assert after(model, [2]) == pytest.approx([1 - D + D * 0.39, D * 0.39, D * 0.19, D * 0.03])
    # 3 was never seen: the order below alone
    assert after(model, [3]) == pytest.approx([0.39, 0.39, 0.19, 0.03])


def test_an_order_one_model_counts_occurrences_since_it_is_its_own_highest_order():
    """0 three times, 1 twice, 2 once: n1 = n2 = 1, D = 1/3, and 3 x 1/3 of 6 is spared for the uniform 1/4."""
    model = fitted([0, 1, 0, 2, 1, 0], 1)
    expected = [(3 - 1 / 3) / 6 + 1 / 24, (2 - 1 / 3) / 6 + 1 / 24, (1 - 1 / 3) / 6 + 1 / 24, 1 / 24]
    for context in ([0], [3], [2, 1]):
        assert after(model, context) == pytest.approx(expected)


# by definition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_its_definition_at_every_position_of_a_window(order):
    text = random_text(150, 6)
    model, definition = fitted(text, order, vocab_size=7), Counted(text, 7)
    window = random_text(9, 7, seed=1)
    found = model(torch.tensor([window]))[0].exp()
    for t in range(len(window)):
        context = tuple(window[max(0, t - order + 2) : t + 1]) if order > 1 else ()
        expected = torch.tensor([definition.probability(token, context) for token in range(7)])
        torch.testing.assert_close(found[t], expected, rtol=1e-5, atol=1e-7, msg=lambda m, t=t: f"position {t}: {m}")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_after_every_context_seen_or_not(order):
    model = fitted([*random_text(60, 4), 4], order, vocab_size=6)  # 4 once, 5 never
    contexts = torch.tensor(list(itertools.product(range(6), repeat=3)))
    p = model(contexts).exp()
    torch.testing.assert_close(p.sum(-1), torch.ones(len(contexts), 3), rtol=0, atol=1e-6)
    assert (p > 0).all()


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_it_is_causal_and_sees_its_order_and_no_further(order):
    model = fitted(random_text(400, 5), order, vocab_size=5)
    x = torch.tensor([random_text(12, 5, seed=seed) for seed in (1, 2)])
    for t in range(12):
        edited = x.clone()
        edited[:, t] = (x[:, t] + 1) % 5
        same = (model(edited) == model(x)).all(-1).all(0)
        assert same[:t].all()
        assert same[t + max(order - 1, 0) :].all()
        if order > 1:
            assert not same[t]


def test_the_rows_of_a_batch_do_not_meet():
    model = fitted(random_text(300, 5), 3, vocab_size=5)
    x = torch.tensor([random_text(10, 5, seed=seed) for seed in range(4)])
    torch.testing.assert_close(model(x), torch.cat([model(row[None]) for row in x]), rtol=0, atol=0)


# as a floor -----------------------------------------------------------------------------------------------------------


def test_on_a_held_out_text_it_is_better_than_the_bigram_and_at_order_two_no_worse(corpus):
    train = corpus.train.long()
    bigram = sweep(Ngram(NgramConfig(vocab_size=VOCAB_SIZE, order=2)).fit(train), corpus.val, CONTEXT).mean()
    found = {order: sweep(fitted(train, order, VOCAB_SIZE), corpus.val, CONTEXT).mean() for order in (1, 2, 3)}
    assert found[1] > bigram >= found[2] > found[3]


def test_the_floor_of_the_experiments_stays_finite_on_a_text_that_it_has_not_seen(corpus):
    (config,) = (cell.config.model for cell in floors(CONTEXT) if cell.label == "kneser_ney")
    losses = sweep(KneserNey(config).fit(corpus.train.long()), corpus.val, CONTEXT)
    assert losses.isfinite().all()
    assert losses.mean() < math.log(VOCAB_SIZE)


def test_its_size_is_the_distinct_ngrams_of_all_orders():
    # 1 to 3 tokens; an n-gram below the highest order counts where a token came before it
    assert fitted(BY_HAND, 1).n_fitted() == 3  # 0, 1, 2
    assert fitted(BY_HAND, 2).n_fitted() == 3 + 5  # 01, 10, 02, 20, 11
    assert fitted(BY_HAND, 3).n_fitted() == 3 + 5 + 5  # 010, 102, 020, 201, 011


def test_fitting_again_forgets_the_first_text():
    model = fitted(random_text(50, 4, seed=1), 3).fit(torch.tensor(BY_HAND))
    x = torch.tensor([[0, 1, 2, 3, 0, 1]])
    torch.testing.assert_close(model(x), fitted(BY_HAND, 3)(x), rtol=0, atol=0)


# refused --------------------------------------------------------------------------------------------------------------


def test_the_longest_order_that_is_allowed_still_counts_without_overflow():
    text = random_text(300, VOCAB_SIZE)
    model = fitted(text, 10, VOCAB_SIZE)  # 65^10 < 2^62
    p = after(model, text[20:29])
    assert sum(p) == pytest.approx(1.0, abs=1e-5)
    assert p[text[29]] == max(p)


def test_a_text_shorter_than_the_order_is_refused():
    with pytest.raises(ValueError, match="a text of 2 tokens holds no 3-gram"):
        fitted([0, 1], 3)
