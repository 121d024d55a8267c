"""The permuted protocol changes only the order of the tokens in the first half of a window."""

import pytest
import torch
from torch import Tensor, nn

from bench.evaluate import permuted, sweep_starts
from models import ARCHITECTURES, KneserNey, KneserNeyConfig, Ngram, NgramConfig, build
from tests.conftest import CONTEXT, TINY_MODELS, VOCAB_SIZE

HALF = CONTEXT // 2


class Reader(nn.Module):
    """Keeps its inputs, and predicts what its model predicts."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.read: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.read.append(x.clone())
        return torch.zeros(*x.shape, VOCAB_SIZE) if self.model is None else self.model(x)

    def windows(self) -> tuple[Tensor, Tensor]:
        """All inputs in the order of the text, and all in another order: (n, T) twice."""
        plain, disturbed = torch.cat(self.read).chunk(2)
        return plain, disturbed


class Seen(nn.Module):
    """Predicts the tokens of the window so far, whose counts are multiplied by `fade` at each position."""

    def __init__(self, fade: float) -> None:
        super().__init__()
        self.fade = fade

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.zeros(len(x), VOCAB_SIZE, dtype=torch.float64)
        logits = []
        for token in x.unbind(1):
            counts = self.fade * counts + nn.functional.one_hot(token, VOCAB_SIZE)
            logits.append((counts + 1).log())
        return torch.stack(logits, dim=1)


@pytest.mark.parametrize("context", [2, 7, CONTEXT])
def test_the_first_half_has_the_same_tokens_in_another_order_and_the_second_is_unchanged(corpus, context):
    reader = Reader()
    permuted(reader, corpus.val, context)
    plain, disturbed = reader.windows()
    starts = sweep_starts(corpus.val, context)
    assert torch.equal(plain, torch.stack([corpus.val[i : i + context].long() for i in starts]))
    half = context // 2
    assert torch.equal(disturbed[:, half:], plain[:, half:])
    assert torch.equal(disturbed[:, :half].sort(1).values, plain[:, :half].sort(1).values)
    moved = (disturbed != plain).any(1).float().mean().item()
    assert moved == 0 if half == 1 else moved > 0.5


def test_tokens_move_to_any_position_and_rows_of_a_batch_have_different_orders():
    val = torch.arange(64 * CONTEXT + 1) % 64  # each window's first half is 8 distinct tokens, ascending
    reader = Reader()
    permuted(reader, val, CONTEXT)
    plain, disturbed = reader.windows()
    orders = (disturbed - plain[:, :1])[:64, :HALF]
    assert len(orders.unique(dim=0)) > 55
    landed = torch.stack([(orders == i).float().argmax(1) for i in range(HALF)], dim=1)
    assert all(set(column.tolist()) == set(range(HALF)) for column in landed.unbind(1))


@pytest.mark.parametrize("order", [1, 2])
def test_a_unigram_or_bigram_model_has_the_same_loss(corpus, order):
    """The first scored position reads the second half's first token, which stays."""
    model = Ngram(NgramConfig(vocab_size=VOCAB_SIZE, order=order)).fit(corpus.train.long())
    plain, disturbed, *_ = permuted(model, corpus.val, CONTEXT)
    assert disturbed == plain


def test_a_trigram_model_differs_only_at_the_first_scored_position(corpus):
    model = KneserNey(KneserNeyConfig(vocab_size=VOCAB_SIZE, order=3)).fit(corpus.train.long())
    reader = Reader(model)
    plain, disturbed, n_tokens, _ = permuted(reader, corpus.val, CONTEXT)
    logits, permuted_logits = (model(x) for x in reader.windows())
    differs = (logits != permuted_logits).any(-1).any(0)
    assert differs[HALF:].tolist() == [True] + [False] * (HALF - 1)
    targets = corpus.val[sweep_starts(corpus.val, CONTEXT) + HALF + 1].long()[:, None]
    added = logits[:, HALF].gather(1, targets) - permuted_logits[:, HALF].gather(1, targets)
    assert (disturbed - plain) * n_tokens == pytest.approx(added.sum().item(), rel=1e-4)
    assert disturbed > plain


def test_a_model_of_counts_has_the_same_loss_and_one_of_positions_another(corpus):
    plain, disturbed, *_ = permuted(Seen(fade=1.0), corpus.val, CONTEXT)
    assert disturbed == pytest.approx(plain, rel=1e-9)
    plain, disturbed, *_ = permuted(Seen(fade=0.5), corpus.val, CONTEXT)
    assert abs(disturbed - plain) > 1e-5


@pytest.mark.parametrize(("context", "scored"), [(16, 8), (7, 4), (1, 1)])
def test_every_window_is_scored_on_its_second_half(corpus, context, scored):
    _, _, n_tokens, _ = permuted(Reader(), corpus.val, context)
    assert n_tokens == (len(corpus.val) - 1) // context * scored


def test_targets_are_those_of_the_text_where_the_first_half_is_permuted():
    """In this text x + 1 follows x: its model has no loss with any order of the first half."""

    class NextOne(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 50.0 * nn.functional.one_hot((x + 1) % VOCAB_SIZE, VOCAB_SIZE).double()

    plain, disturbed, *_ = permuted(NextOne(), torch.arange(200) % VOCAB_SIZE, CONTEXT)
    assert plain == disturbed == pytest.approx(0.0, abs=1e-9)


def test_the_plain_loss_is_the_mean_of_the_second_halves(corpus):
    torch.manual_seed(0)
    model = build(TINY_MODELS["k_operators"]).eval()
    starts = sweep_starts(corpus.val, CONTEXT)
    x, y = (torch.stack([corpus.val[i + j : i + j + CONTEXT].long() for i in starts]) for j in (0, 1))
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(x).transpose(1, 2), y, reduction="none")
    assert permuted(model, corpus.val, CONTEXT)[0] == pytest.approx(losses[:, HALF:].mean().item(), rel=1e-6)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_orders_are_the_same_every_time_and_nothing_else_changes(corpus, kind):
    torch.manual_seed(0)
    model = build(TINY_MODELS[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = permuted(model, corpus.val, CONTEXT)
    torch.manual_seed(1)
    state, text = torch.get_rng_state(), corpus.val.clone()
    assert permuted(model, corpus.val, CONTEXT) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(corpus.val, text)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_model_reads_the_same_orders(corpus):
    readers = [Reader(), Reader(Ngram(NgramConfig(vocab_size=VOCAB_SIZE, order=1)))]
    for reader in readers:
        permuted(reader, corpus.val, CONTEXT)
    assert torch.equal(*(reader.windows()[1] for reader in readers))


def test_a_text_too_short_for_two_windows_is_refused():
    with pytest.raises(ValueError, match=f"too short for two windows of {CONTEXT}"):
        permuted(Reader(), torch.zeros(2 * CONTEXT, dtype=torch.uint8), CONTEXT)
