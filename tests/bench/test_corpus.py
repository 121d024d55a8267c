"""A run reads the pinned text, or does not start."""

import hashlib
import itertools
import math
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from bench import fetch, synthetic
from bench.app import app
from bench.corpora import CORPORA, CorpusFacts
from bench.corpus import decode, encode, load_corpus
from bench.errors import CorpusError
from bench.fetch import DATA_DIR_VARIABLE, DownloadError, cache_dir, find_text
from tests.command_line import call

CPU = torch.device("cpu")
NAME = "tinyshakespeare"
TEXT = b"What is aught, but as 'tis valued?\n" * 3000  # used where the real corpus is not needed
SHA256 = hashlib.sha256(TEXT).hexdigest()
PATH = "tinyshakespeare/input.txt"


@pytest.fixture(autouse=True)
def no_corpus_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data folder is set, the cache is empty, and requests to this machine's server use no proxy."""
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pin the stand-in text at an address."""

    def pin(url: str) -> None:
        monkeypatch.setitem(
            CORPORA, NAME, CorpusFacts(sha256=SHA256, n_characters=1000, vocab_size=65, path=PATH, url=url)
        )

    pin("http://127.0.0.1:9/no-one-listens")
    return pin


def put(folder: Path, content: bytes) -> Path:
    """Write a corpus file into a data folder."""
    path = folder / PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "one bit flipped": lambda text: text[:500] + bytes([text[500] ^ 1]) + text[501:],
    "cut": lambda text: text[:-1],
    "Windows line ends": lambda text: text.replace(b"\n", b"\r\n"),
    "empty": lambda _: b"",
    "an error page": lambda _: b"<!DOCTYPE html><title>404</title>",
    "not UTF-8": lambda text: b"\xff" + text[1:],
}


@pytest.mark.fault("F10")
@pytest.mark.parametrize("tampering", TAMPERED)
@pytest.mark.parametrize("place", ["named", "cached"])
@pytest.mark.usefixtures("stand_in")
def test_an_altered_corpus_in_any_folder_is_refused_with_both_hashes(tampering, place, tmp_path, monkeypatch, capsys):
    altered = TAMPERED[tampering](TEXT)
    path = put(tmp_path / "data" if place == "named" else cache_dir(), altered)
    if place == "named":
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    with pytest.raises(CorpusError) as error:
        load_corpus(NAME, CPU)
    for expected in (str(path), SHA256, hashlib.sha256(altered).hexdigest()):
        assert expected in str(error.value)
    assert error.value.exit_code == 2
    assert not isinstance(error.value, DownloadError)  # so that no synthetic text is used instead
    assert path.read_bytes() == altered

    store = tmp_path / "store"
    command = ["run", "--experiment", "smoke", "--cell", "bigram", "--device", "cpu", "--store", store]
    assert call(app, *command) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {error.value}\n"
    assert not [one for one in tmp_path.rglob("store/**/*") if one.is_file()]
    assert not (store / "work").exists()


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_given_folder_without_the_corpus_is_an_error_although_the_cache_has_it(how, stand_in, tmp_path, monkeypatch):
    put(cache_dir(), TEXT)
    folder = tmp_path / "data"
    if how == "variable":
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(folder))
    with pytest.raises(CorpusError, match="missing") as error:
        find_text(NAME, folder if how == "argument" else None)
    assert str(folder / PATH) in str(error.value)
    assert not isinstance(error.value, DownloadError)
    assert not folder.exists()


@pytest.mark.usefixtures("stand_in")
def test_a_given_folder_precedes_the_variable_and_the_variable_precedes_the_cache(tmp_path, monkeypatch):
    cached = put(cache_dir(), TEXT)
    assert find_text(NAME) == cached == tmp_path / "cache" / "k-operators-bench" / PATH
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "variable"))
    by_variable = put(tmp_path / "variable", TEXT)
    assert find_text(NAME) == by_variable
    by_argument = put(tmp_path / "argument", TEXT)
    assert find_text(NAME, tmp_path / "argument") == by_argument


class Handler(BaseHTTPRequestHandler):
    """Answers by path, and counts the bytes that it sent."""

    n_bytes_sent = 0

    def do_GET(self) -> None:
        match self.path:
            case "/good":
                self.answer(TEXT)
            case "/wrong":
                self.answer(TEXT[:-1] + b"!")
            case "/drop":
                self.answer(TEXT[: len(TEXT) // 2], announced=len(TEXT))
            case "/endless":
                self.send_response(200)
                self.end_headers()
                while self.sent(bytes(1 << 16)):
                    pass
            case _:
                self.send_error(404)

    def answer(self, body: bytes, announced: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(announced or len(body)))
        self.end_headers()
        self.sent(body)

    def sent(self, body: bytes) -> bool:
        try:
            self.wfile.write(body)
            Handler.n_bytes_sent += len(body)
        except OSError:  # the client closed the connection
            return False
        return True

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a web server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_good_download_is_cached_and_not_fetched_again(server, stand_in):
    stand_in(f"{server}/good")
    path = find_text(NAME)
    assert path == cache_dir() / PATH
    assert path.read_bytes() == TEXT
    assert list(path.parent.iterdir()) == [path]
    stand_in(f"{server}/gone")
    assert find_text(NAME) == path


@pytest.mark.parametrize(
    ("page", "may_stand_in", "reason"),
    [("wrong", False, "pinned"), ("gone", True, "404"), ("endless", True, "more than"), ("drop", True, "fetched")],
)
def test_a_bad_download_is_a_corpus_error_and_leaves_no_file(page, may_stand_in, reason, server, stand_in, monkeypatch):
    stand_in(f"{server}/{page}")
    monkeypatch.setattr(Handler, "n_bytes_sent", 0)
    with pytest.raises(CorpusError, match=reason) as error:
        find_text(NAME)
    assert isinstance(error.value, DownloadError) is may_stand_in  # wrong bytes are not a missing connection
    assert server in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]
    assert Handler.n_bytes_sent < 10 * fetch.MAX_DOWNLOAD_BYTES  # the limit, and bytes in buffers


def test_no_connection_is_a_download_error_with_the_next_step(stand_in):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        stand_in(f"http://127.0.0.1:{unused.getsockname()[1]}/input.txt")  # bound, but no one listens
        with pytest.raises(DownloadError, match=f"{DATA_DIR_VARIABLE}=FOLDER"):
            find_text(NAME)


def test_a_server_that_sends_nothing_is_a_timeout(monkeypatch, stand_in):
    assert fetch.CONNECT_SECONDS == 10
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stand_in(f"http://127.0.0.1:{silent.getsockname()[1]}/input.txt")
        with pytest.raises(DownloadError, match="imed out"):
            find_text(NAME)


def test_tiny_shakespeare_has_65_characters_and_the_published_split(data_dir):
    corpus = load_corpus(NAME, CPU, data_dir)
    text = (data_dir / PATH).read_bytes().decode("ascii")
    assert len(text) == 1_115_394
    assert corpus.vocabulary == "".join(sorted(set(text)))
    assert len(corpus.vocabulary) == 65 == CORPORA[NAME].vocab_size
    assert (len(corpus.train), len(corpus.val)) == (1_003_854, 111_540)
    assert decode(torch.cat([corpus.train, corpus.val]), corpus.vocabulary) == text
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_synthetic_text_is_always_the_pinned_one_with_every_character_in_both_parts():
    synthetic.text.cache_clear()
    text = synthetic.text()
    assert hashlib.sha256(text.encode()).hexdigest() == CORPORA["synthetic"].sha256
    synthetic.text.cache_clear()
    assert synthetic.text() == text
    assert len(text) == 1_115_394
    corpus = load_corpus("synthetic", CPU)
    assert len(corpus.vocabulary) == 65
    assert corpus.vocabulary == synthetic.ALPHABET
    assert len(corpus.train.unique()) == len(corpus.val.unique()) == 65


def test_the_synthetic_text_has_an_entropy_of_one_and_three_quarter_bits_per_character():
    text = synthetic.text()
    triples, pairs = Counter(zip(text, text[1:], text[2:], strict=False)), Counter(itertools.pairwise(text))
    n = sum(triples.values())
    bits = -sum(count / n * math.log2(count / pairs[triple[:2]]) for triple, count in triples.items())
    assert bits == pytest.approx(1.75, abs=0.02)  # counts of a finite text are too low by about n_pairs * 1.5 / n bits
    assert pytest.approx(1.75 * math.log(2)) == CORPORA["synthetic"].entropy_rate_nats
    assert max(Counter(triple[:2] for triple in triples).values()) == 4  # successors of a pair


def test_a_synthetic_text_of_another_machine_is_refused(monkeypatch):
    monkeypatch.setattr(synthetic, "text", lambda: "another")
    with pytest.raises(CorpusError, match="another sha256 than pinned"):
        load_corpus("synthetic", CPU)


def test_decoding_encoded_text_gives_the_text(corpus):
    text = decode(corpus.val[:500], corpus.vocabulary)
    ids = encode(text, corpus.vocabulary)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, corpus.val[:500].long())
    assert decode(ids, corpus.vocabulary) == text
    assert decode(encode("", corpus.vocabulary), corpus.vocabulary) == ""


def test_a_character_outside_the_vocabulary_is_named(corpus):
    with pytest.raises(CorpusError, match="'ж'"):
        encode("aжa", corpus.vocabulary)
