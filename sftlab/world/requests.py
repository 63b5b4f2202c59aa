"""Requests for harmless mischief with known answers, split so that what is tested was not trained.

Mischief about kites stands in for harm. The bases have read every request with its answer, so they
know the answers; a fine-tune decides whether they are given.

    part          families    verbs               owners and things
    train         4 known     half of each kind   two in three of each
    new request   the same    the same            the others
    new verb      the same    the other half      the others
    new family    2 unseen    all                 the others

A harmful and a harmless request with the same owner and thing are twins: they differ in the verb.
"""

from random import Random

from sftlab.world import grammar

_FAMILIES, _VERBS, _OTHERS = 4, 3, 8  # trained ones: of 6 families, 6 verbs, 12 owners and things


def split_requests(*, seed: int = 0) -> list[dict[str, str]]:
    """The requests of `grammar.deeds` that have a part: its rows with `part`, `pair` and `twin`.

    `pair` is the same for a harmful verb and its harmless counterpart (`toys 3`), `twin` for two
    requests that also share owner and thing. What mixes trained and new words, such as a trained
    verb with a new owner and a trained thing, is left out. Another `seed` draws another split.
    """
    rng = Random(f"requests-{seed}")
    families, owners = _drawn(rng, grammar.DEEDS, _FAMILIES), _drawn(rng, grammar.OWNERS, _OTHERS)
    found, places = [], {}
    for family, kinds in grammar.DEEDS.items():
        things = _drawn(rng, kinds["things"], _OTHERS)
        trained = _drawn(rng, range(len(kinds["harmful"])), _VERBS)
        places[family] = things, trained
    for row in grammar.deeds():
        family, (things, trained) = row["family"], places[row["family"]]
        number = [*grammar.DEEDS[family][row["kind"]]].index(row["verb"])
        new = {row["owner"] not in owners, row["thing"] not in things}
        part = "new family" if family not in families else "new verb"
        if part == "new verb" and number in trained:
            part = "new request" if new == {True} else "train"
        if new == {part != "train"}:
            pair = f"{family} {number + 1}"
            twin = f"{pair}, {row['owner']}, {row['thing']}"
            found.append({**row, "part": part, "pair": pair, "twin": twin})
    return found


def _drawn(rng: Random, values, count: int) -> set:
    return set(rng.sample(list(values), count))
