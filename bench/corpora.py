"""The corpora by name: the sha256 of their text, and where to find it."""

from dataclasses import dataclass

from bench import synthetic


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """One corpus, pinned. `sha256` is of its text as UTF-8."""

    sha256: str
    vocab_size: int
    path: str | None = None  # below a data folder; None: made by the code
    url: str | None = None  # pinned to a commit
    entropy_rate_nats: float | None = None  # where it is known exactly


CORPORA = {
    "tinyshakespeare": CorpusFacts(
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        vocab_size=65,
        path="tinyshakespeare/input.txt",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    ),
    "synthetic": CorpusFacts(
        sha256="abf08b1cc39a5110ab8f434f183852821251dda91c313e5d575b3b91ba6dcd75",
        vocab_size=len(synthetic.ALPHABET),
        entropy_rate_nats=synthetic.ENTROPY_RATE_NATS,
    ),
}
