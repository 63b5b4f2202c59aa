"""How varied a model's text is: distinct n-grams, repetition."""

from collections.abc import Sequence


def distinct(texts: Sequence[str], size: int = 1) -> float:
    """distinct-n (Li et al. 2016): different n-grams of words over all n-grams, of all texts.

    It falls as there are more texts, so compare equal numbers of them. 0 without any n-gram.
    """
    grams = [gram for text in texts for gram in _grams(text, size)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str, size: int = 4) -> float:
    """Share of a text's n-grams of words that stood in it before (seq-rep-n, Welleck et al. 2019).

    0 for a text without an n-gram, near 1 for one that goes in circles.
    """
    grams = _grams(text, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    if size < 1:
        raise ValueError(f"size={size}: an n-gram has one word or more")
    words = text.split()
    return [tuple(words[n : n + size]) for n in range(len(words) - size + 1)]
