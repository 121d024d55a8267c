"""A corpus as token ids on a device: one pipeline for every model.

Character vocabulary, sorted by code point. Tiny Shakespeare is split as in nanoGPT and in K-Operators' released code:
the first int(0.9 n) characters are for training, the rest for validation.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench import synthetic
from bench.corpora import CORPORA, N_FOLDS
from bench.errors import CorpusError
from bench.fetch import find_text

BLANK_LINE = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as token ids on one device, split by position."""

    name: str
    sha256: str
    vocabulary: str  # character of each token id
    train: Tensor  # (n_train,) uint8
    val: Tensor  # (n_val,) uint8
    test: Tensor | None = None  # (n_test,) uint8, scored once, at the end
    cuts: tuple[int, ...] = ()  # positions in `train` where a separate text starts


def encode(text: str, vocabulary: str) -> Tensor:
    """Token ids (n,) int64 of a text; CorpusError names a character that is not in the vocabulary."""
    ids = {character: index for index, character in enumerate(vocabulary)}
    unknown = sorted(set(text) - set(ids))
    if unknown:
        raise CorpusError(f"{unknown[0]!r} is not one of the {len(ids)} characters of the corpus")
    return torch.tensor([ids[character] for character in text], dtype=torch.int64)


def decode(tokens: Tensor, vocabulary: str) -> str:
    """The text of token ids (n,)."""
    return "".join(vocabulary[token] for token in tokens.tolist())


def load_corpus(name: str, device: torch.device, data_dir: Path | None = None) -> Corpus:
    """The corpus `name` on `device`, its sha256 checked. CorpusError where it is missing or altered.

    It is read from `data_dir` (or BENCH_DATA_DIR) if given; otherwise from the user's cache, downloaded into it first
    where it is missing.
    """
    facts = CORPORA[name]
    text = synthetic.text() if facts.path is None else find_text(name, data_dir).read_bytes().decode("utf-8")
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != facts.sha256:
        raise CorpusError(
            f"the text generated for corpus {name!r} has another sha256 than pinned: numpy or Python differ"
        )
    vocabulary = "".join(sorted(set(text)))
    ids = {ord(character): index for index, character in enumerate(vocabulary)}
    tokens = torch.frombuffer(bytearray(text.translate(ids).encode("latin-1")), dtype=torch.uint8).to(device)
    if facts.fold is None:
        start, end = int(facts.train_share * len(tokens)), int((1 - facts.test_share) * len(tokens))
        train = tokens[:start]
    else:
        start, end = fold_bounds(text, facts.fold)
        train = torch.cat([tokens[:start], tokens[end:]])
    cuts = (start,) if 0 < start < len(train) else ()
    test = tokens[end:] if facts.test_share else None
    return Corpus(
        name=name, sha256=facts.sha256, vocabulary=vocabulary, train=train, val=tokens[start:end], test=test, cuts=cuts
    )


def fold_bounds(text: str, fold: int) -> tuple[int, int]:
    """Start and end of a tenth of a text, each after the blank line that is nearest to an exact tenth."""
    ends = [0, *(_nearest_start(text, len(text) * i / N_FOLDS) for i in range(1, N_FOLDS)), len(text)]
    return ends[fold], ends[fold + 1]


def _nearest_start(text: str, position: float) -> int:
    """The start after a blank line that is nearest to a position; the earlier one of equals."""
    before = text.rfind(BLANK_LINE, 0, int(position))
    after = text.find(BLANK_LINE, max(int(position) - len(BLANK_LINE), 0))
    starts = [found + len(BLANK_LINE) for found in (before, after) if found >= 0]
    if not starts:
        raise CorpusError("a text without blank lines has no folds")
    return min(starts, key=lambda start: abs(start - position))
