"""Finding a corpus: in the given folder, else in the user's cache, else by download from its pinned address.

Its sha256 is checked every time.
"""

import hashlib
import os
from pathlib import Path

from bench.corpora import CORPORA
from bench.errors import ConfigError, CorpusError
from bench.files import named_folder

DATA_DIR_VARIABLE = "BENCH_DATA_DIR"
CONNECT_SECONDS = 10
MAX_DOWNLOAD_BYTES = 5_000_000


def find_text(name: str, data_dir: Path | None = None) -> Path:
    """The file of a corpus, its sha256 checked: in the given folder, else in the cache, else downloaded."""
    facts = CORPORA[name]
    assert facts.path is not None
    named = data_dir or named_folder(DATA_DIR_VARIABLE)
    path = (named or cache_dir()) / facts.path
    if path.is_file():
        check_sha256(path, facts.sha256)
        return path
    if named is not None:
        raise CorpusError(f"{path} is missing, and {named} is the given data folder; put the corpus there")
    return download(name, path)


def cache_dir() -> Path:
    """The user's cache of corpora, laid out like a data folder. ConfigError where the user has no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k-operators-bench"
    except RuntimeError as error:  # a container's user, without HOME and without an entry in passwd
        raise ConfigError(
            f"this user has no home folder for a cache: set {DATA_DIR_VARIABLE} to a folder that holds "
            "tinyshakespeare/input.txt, or XDG_CACHE_HOME to a folder that can be written"
        ) from error


def check_sha256(path: Path, expected: str) -> None:
    """CorpusError with both hashes unless the file's bytes hash to `expected`."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise CorpusError(f"{path} is altered: sha256 {found}, expected {expected}; replace the file, or delete it")


class DownloadError(CorpusError):
    """The corpus is not here and could not be downloaded: the only error after which a synthetic text is used."""


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
    except Exception as error:  # any error of the network stack: no address, no route, a refusal
        if isinstance(error, ValueError) and not isinstance(error, OSError):  # pooch's error for a wrong hash
            raise CorpusError(f"{facts.url} does not have the pinned bytes: {error}") from error
        raise DownloadError(
            f"corpus {name!r} is not in {DATA_DIR_VARIABLE} nor in {cache_dir()}, and {facts.url} could not be "
            f"fetched ({type(error).__name__}: {error}); download it where there is internet to FOLDER/{facts.path} "
            f"and set {DATA_DIR_VARIABLE}=FOLDER"
        ) from error
    return Path(fetched)


def _limited_download(url: str, output_file: str, _pooch: object) -> None:
    """Download `url` to a file; OSError after 10 s without data or above the byte limit."""
    import requests

    with requests.get(url, stream=True, timeout=CONNECT_SECONDS) as response, Path(output_file).open("wb") as file:
        response.raise_for_status()
        n_bytes = 0
        for part in response.iter_content(1 << 16):
            n_bytes += len(part)
            if n_bytes > MAX_DOWNLOAD_BYTES:
                raise OSError(f"more than {MAX_DOWNLOAD_BYTES} bytes")
            file.write(part)
