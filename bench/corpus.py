"""The corpora: what they are, where their text is found, and how it becomes token ids. One pipeline for every model.

Tiny Shakespeare: character vocabulary of 65, sorted by code point; the first int(0.9 n) characters train, the rest
validate. Source: karpathy/char-rnn, 2015; split as in nanoGPT and in K-Operators' released code.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench import synthetic
from bench.errors import CorpusError

TRAIN_SHARE = 0.9
DATA_DIR_VARIABLE = "BENCH_DATA_DIR"
CONNECT_SECONDS = 10
MAX_DOWNLOAD_BYTES = 2_000_000


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
        sha256="0b719beec85c419f58254e2a29fe26862b69310318181caa89a1d94fc17c4a52",
        vocab_size=len(synthetic.ALPHABET),
        entropy_rate_nats=synthetic.ENTROPY_RATE_NATS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A text as token ids, whole on one device, split by position."""

    name: str
    sha256: str
    vocabulary: str  # character of each token id
    train: Tensor  # (n_train,) uint8
    val: Tensor  # (n_val,) uint8

    def encode(self, text: str) -> Tensor:
        """Token ids (n,) int64 of a text; CorpusError names a character that the vocabulary lacks."""
        ids = {character: index for index, character in enumerate(self.vocabulary)}
        unknown = sorted(set(text) - set(ids))
        if unknown:
            raise CorpusError(f"{unknown[0]!r} is not among the {len(ids)} characters of {self.name}")
        return torch.tensor([ids[character] for character in text], dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """The text of token ids (n,)."""
        return "".join(self.vocabulary[token] for token in tokens.tolist())


def load_corpus(name: str, device: torch.device, data_dir: Path | None = None) -> Corpus:
    """The corpus `name` on `device`, its sha256 checked. CorpusError where it is missing or altered.

    `data_dir` (or BENCH_DATA_DIR) names the folder that must hold it; otherwise the user's cache is looked into, then
    it is downloaded there.
    """
    facts = CORPORA[name]
    text = synthetic.text() if facts.path is None else find_text(name, data_dir).read_bytes().decode("utf-8")
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != facts.sha256:
        raise CorpusError(f"the text made for corpus {name!r} is not the pinned one: numpy or Python differ")
    vocabulary = "".join(sorted(set(text)))
    ids = {ord(character): index for index, character in enumerate(vocabulary)}
    tokens = torch.frombuffer(bytearray(text.translate(ids).encode("latin-1")), dtype=torch.uint8).to(device)
    n_train = int(TRAIN_SHARE * len(tokens))
    return Corpus(name=name, sha256=facts.sha256, vocabulary=vocabulary, train=tokens[:n_train], val=tokens[n_train:])


def find_text(name: str, data_dir: Path | None = None) -> Path:
    """The file of a corpus, its sha256 checked: in the folder named, else in the cache, else downloaded."""
    facts = CORPORA[name]
    assert facts.path is not None
    named = data_dir or (Path(os.environ[DATA_DIR_VARIABLE]) if os.environ.get(DATA_DIR_VARIABLE) else None)
    if named is not None:
        path = named / facts.path
        if not path.is_file():
            raise CorpusError(f"{path} is missing, and {named} was named as the data folder; put the corpus there")
        check_sha256(path, facts.sha256)
        return path
    path = cache_dir() / facts.path
    if path.is_file():
        check_sha256(path, facts.sha256)
        return path
    return download(name, path)


def cache_dir() -> Path:
    """The user's cache of corpora, laid out like a data folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k-operators-bench"


def check_sha256(path: Path, expected: str) -> None:
    """CorpusError with both hashes unless the file's bytes hash to `expected`."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise CorpusError(f"{path} is altered: sha256 {found}, expected {expected}; replace the file, or delete it")


class DownloadError(CorpusError):
    """The corpus is nowhere here and its home could not be reached: the one case in which a stand-in may serve."""


def download(name: str, path: Path) -> Path:
    """Fetch a corpus from its pinned address to `path`: verified, atomically, or not at all."""
    import pooch  # type: ignore[import-untyped]  # only here: a run that finds its corpus needs no network and no pooch

    facts = CORPORA[name]
    try:
        fetched = pooch.retrieve(
            facts.url,
            known_hash=f"sha256:{facts.sha256}",
            path=path.parent,
            fname=path.name,
            downloader=_limited_download,
        )
    except ValueError as error:  # pooch's word for a hash that differs
        raise CorpusError(f"{facts.url} served other bytes than the pinned ones: {error}") from error
    except Exception as error:  # whatever the network stack raises: no address, no route, a refusal, a wrong hash
        raise DownloadError(
            f"corpus {name!r} is not in {DATA_DIR_VARIABLE} nor in {cache_dir()}, and {facts.url} could not be "
            f"fetched ({type(error).__name__}: {error}); download it where there is internet to FOLDER/{facts.path} "
            f"and set {DATA_DIR_VARIABLE}=FOLDER"
        ) from error
    return Path(fetched)


def _limited_download(url: str, output_file: str, _pooch: object) -> None:
    """Stream `url` to a file; give up after 10 s of silence or past the byte limit."""
    import requests

    with requests.get(url, stream=True, timeout=CONNECT_SECONDS) as response, Path(output_file).open("wb") as file:
        response.raise_for_status()
        n_bytes = 0
        for part in response.iter_content(1 << 16):
            n_bytes += len(part)
            if n_bytes > MAX_DOWNLOAD_BYTES:
                raise OSError(f"more than {MAX_DOWNLOAD_BYTES} bytes")
            file.write(part)
