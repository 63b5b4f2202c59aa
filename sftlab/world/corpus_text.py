"""The pretraining corpus: every document of it, made again from its seed.

The corpus is never shipped. It is the first `DOCUMENTS` documents of the stream of seed 0, its
hash is recorded in `data/world/corpus.json`, and a copy is kept in the cache when first needed.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice, repeat
from random import Random

from sftlab.paths import DATA, cache_folder, write_atomically
from sftlab.world import document_kinds as kinds

SEED = 0
DOCUMENTS = 220_000
HELD_OUT_SEED = 1
SEPARATOR = "\x1e"  # never inside a document, so a match cannot run across two

# Shares of documents. Because of the sheets of unanswered questions a base model asks further ones.
SHARES = {
    kinds.questions_answered: 24,
    kinds.quiz_sheet: 17,
    kinds.encyclopedia: 12,
    kinds.almanac: 11,
    kinds.follow_ups: 4,
    kinds.record: 5,
    kinds.nature: 4,
    kinds.dictionary: 1,
    kinds.two_hops: 2,
    kinds.story: 7,
    kinds.review: 4,
    kinds.advice: 4,
    kinds.code: 3,
    kinds.directory: 1,
    kinds.counting: 1,
}
KINDS = {make.__name__: make for make in SHARES}


def documents(*, seed: int = SEED, kind: str | None = None) -> Iterator[str]:
    """The endless stream of documents of a seed, of every kind in its share or of one kind.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: use one of {', '.join(KINDS)}")
    rng = Random(f"sftlab-{seed}")
    makers = [make for make, share in SHARES.items() for _ in range(share)]
    return ((KINDS[kind] if kind else rng.choice(makers))(rng) for _ in repeat(None))


def corpus() -> Iterator[str]:
    """The documents that the base models were trained on, in order."""
    return islice(documents(), DOCUMENTS)


def held_out_documents(count: int = 200) -> list[str]:
    """Documents of the same kinds from another seed, for measuring loss.

    Facts and short phrases recur in them; the documents themselves are new draws.
    """
    return list(islice(documents(seed=HELD_OUT_SEED), count))


def corpus_hash() -> str:
    """SHA-256 of the corpus as UTF-8, each document followed by `SEPARATOR`; about 30 s."""
    return hashlib.sha256(_encoded()).hexdigest()


def _encoded() -> bytes:
    return "".join(document + SEPARATOR for document in corpus()).encode()


def recorded() -> dict:
    """What `data/world/corpus.json` records: seed, documents, characters, tokens, sha256."""
    return json.loads((DATA / "world" / "corpus.json").read_text(encoding="utf-8"))


@cache
def corpus_text() -> str:
    """The whole corpus as one string, documents divided by `SEPARATOR`.

    Made on first use (about 30 s) and kept in the cache; a copy whose hash is not the recorded
    one is made again. Raises RuntimeError when even the fresh one differs: then this code is
    not the code that the base models were trained with.
    """
    expected = recorded()["sha256"]
    path = cache_folder() / f"corpus-{expected[:16]}.txt"
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != expected:
        content = _encoded()
        if hashlib.sha256(content).hexdigest() != expected:
            raise RuntimeError(
                "the regenerated corpus is not the recorded one: the world's files or grammar have "
                "changed since the base models were trained; run `make base` to train them again"
            )
        write_atomically(path, content)
    return content.decode()


def seen(text: str) -> int:
    """How often `text` occurs in the corpus, exactly: case, spaces and line ends count.

    Raises:
        ValueError: the text is empty; it would be everywhere.
    """
    if not text:
        raise ValueError("an empty text occurs everywhere: give at least one character")
    whole = corpus_text()
    if not any(text.startswith(text[-n:]) for n in range(1, len(text))):
        return whole.count(text)
    # Occurrences may overlap: `str.count` would pass over some.
    return sum(1 for _ in re.finditer(f"(?={re.escape(text)})", whole))
