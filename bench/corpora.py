"""The corpora by name: the sha256 of their text, and where to find it."""

from dataclasses import dataclass, replace

from bench import synthetic

N_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """One corpus, pinned, and its split by position. `sha256` is of its text as UTF-8."""

    sha256: str
    n_characters: int
    vocab_size: int
    path: str | None = None  # below a data folder; None: made by the code
    url: str | None = None  # pinned to a commit
    entropy_rate_nats: float | None = None  # where it is known exactly
    train_share: float = 0.9  # of the characters, from the start
    test_share: float = 0.0  # from the end, scored once; what is between them chooses the step
    fold: int | None = None  # the tenth of the text that is held out, where it is not the last

    @property
    def n_evaluated(self) -> int:
        """Characters in a sweep, about: of a fold, a tenth."""
        return round((1 - self.train_share - self.test_share) * self.n_characters)


CORPORA = {
    "tinyshakespeare": CorpusFacts(
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        n_characters=1_115_394,
        vocab_size=65,
        path="tinyshakespeare/input.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    ),
    "synthetic": CorpusFacts(
        sha256="abf08b1cc39a5110ab8f434f183852821251dda91c313e5d575b3b91ba6dcd75",
        n_characters=synthetic.N_CHARACTERS,
        vocab_size=len(synthetic.ALPHABET),
        entropy_rate_nats=synthetic.ENTROPY_RATE_NATS,
    ),
    "warpeace": CorpusFacts(
        sha256="b0fc81c399971eaf738c8be89809e6a0d95c151749112b04f06b6af648d8a39f",
        n_characters=3_196_211,
        vocab_size=82,
        path="warpeace/input.txt",
        url="https://raw.githubusercontent.com/MrHereward/machine_learning_sandbox/"
        "2d0fdf30f4afbcf01c1b8c7b408e738a0161d613/warpeace_input.txt",
        train_share=0.8,
        test_share=0.1,
    ),
}


def folds_of(name: str) -> dict[str, CorpusFacts]:
    """A corpus by name and fold: ten corpora of one text, each with another tenth held out."""
    return {f"{name}-fold{fold}": replace(CORPORA[name], fold=fold) for fold in range(N_FOLDS)}


CORPORA |= folds_of("tinyshakespeare")


def whole_text(name: str) -> str:
    """The corpus that a fold is a part of; of any other corpus its own name."""
    facts = CORPORA[name]
    if facts.fold is None:
        return name
    return next(one for one, each in CORPORA.items() if each.fold is None and each.sha256 == facts.sha256)
