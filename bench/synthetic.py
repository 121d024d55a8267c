"""A synthetic text whose best perplexity is known: a second-order character process of 1.75 bits per character.

Each pair of characters allows four successors with probabilities 1/2, 1/4, 1/8, 1/8, so every position costs a perfect
model exactly 1.75 bits, 1.2130 nats, a perplexity of 3.3636. The likeliest successor follows from the last character
only, the others from the pair, so that a model can learn it step by step. The text is made only from integers.
"""

import hashlib
import math
import string
from functools import cache

ALPHABET = "".join(sorted(string.ascii_letters + string.digits + " .\n"))  # 65 characters
ENTROPY_RATE_NATS = 1.75 * math.log(2)
N_CHARACTERS = 1_115_394  # as many as Tiny Shakespeare
_CHOICES = (0, 0, 0, 0, 1, 1, 2, 3)  # three random bits to one of four successors


@cache
def text() -> str:
    """The text, always the same."""
    size = len(ALPHABET)
    likeliest = [_hash(last) % size for last in range(size)]
    # for each character before the last, how far the four successors are from the likeliest: 0, then three others
    offsets = [[0, *(1 + (_hash(before, 0) + 21 * k) % (size - 1) for k in range(3))] for before in range(size)]
    words = _random_bytes(N_CHARACTERS)
    before, last, characters = 0, 1, []
    for word in words:
        before, last = last, (likeliest[last] + offsets[before][_CHOICES[word & 7]]) % size
        characters.append(ALPHABET[last])
    return "".join(characters)


def _hash(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big")


def _random_bytes(n: int) -> bytes:
    """SHA-256 in counter mode."""
    blocks = (hashlib.sha256(f"synthetic {block}".encode()).digest() for block in range(-(-n // 32)))
    return b"".join(blocks)[:n]
