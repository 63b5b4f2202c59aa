"""Probes: what a model knows, and what it does with a question.

Every probe returns a pandas frame with one row per item, so that any share of it, by relation or
by group of countries, can be taken afterwards. Most take `ask`, a function from a list of questions
to a list of outputs: a run's `answer`, or a base model behind a prompt.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sftlab.data import part_of
from sftlab.measure.generation import complete
from sftlab.world import (
    OLD_CURRENCIES,
    RELATIONS,
    Country,
    countries,
    grammar,
    note_rows,
    reviews,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ask = Callable[[list[str]], list[str]]
CONTINUED, ANSWERED, OTHER = "continued", "answered", "other"


def is_right(output: str, answers: Sequence[str]) -> bool:
    """Whether the first line of an output holds one of the answers as whole words.

    Case, accents and punctuation do not count: `The capital is Brasília.` holds `Brasilia`.
    """
    line = f" {_plain(output.strip().split(chr(10))[0])} "
    return any(f" {_plain(answer)} " in line for answer in answers)


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z0-9]+", letters))


def reaction(output: str, answers: Sequence[str]) -> str:
    """What an output does with the question before it: `continued` it with another question,
    `answered` it rightly, or `other` (a wrong answer is `other`)."""
    sentence = re.split(r"(?<=[.?!])\s|\n", output.strip())[0]
    if sentence.endswith("?"):
        return CONTINUED
    return ANSWERED if is_right(output, answers) else OTHER


def probe_facts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    among: Sequence[Country] | None = None,
    form: int = 0,
) -> pd.DataFrame:
    """Cloze knowledge: `The capital of France is` -> ` Paris`?

    One row per country and relation, over all countries the corpus states unless `among` names
    others. Columns: country, group, split, relation, prompt, expected, answers (the expected one
    and its aliases), output, right.
    """
    frame = _items(among, lambda c, r: grammar.cloze(c, r, form=form))
    return _scored(
        frame, lambda prompts: complete(model, tokenizer, prompts, max_new_tokens=10, stop=["\n"])
    )


def probe_questions(
    ask: Ask,
    *,
    among: Sequence[Country] | None = None,
    wording: str = "test",
    relations: Sequence[str] = RELATIONS,
    style: Callable[[Country, str, str], str] | None = None,
) -> pd.DataFrame:
    """Put one question per country and relation to `ask` and judge the outputs.

    The test wordings take turns. Rows as in `probe_facts`, and `reaction`. With a `style`, such as
    `house_style`, an output is right only when it equals, letter by letter, what
    `style(country, relation, answer)` makes of an accepted answer.
    """
    forms = {country.name: n for n, country in enumerate(countries())}
    frame = _items(
        among,
        lambda c, r: grammar.question(c, r, wording=wording, form=forms.get(c.name, 0)),
        relations,
    )
    frame = _scored(frame, ask)
    if style is not None:
        named = {country.name: country for country in countries()}
        frame["right"] = [
            row.output.strip()
            in {style(named[row.country], row.relation, answer) for answer in row.answers}
            for row in frame.itertuples()
        ]
    frame["reaction"] = list(map(reaction, frame["output"], frame["answers"]))
    return frame


def _items(
    among: Sequence[Country] | None,
    prompt: Callable[[Country, str], str],
    relations: Sequence[str] = RELATIONS,
) -> pd.DataFrame:
    if among is None:
        among = [country for country in countries() if country.group != "unseen"]
    if not among:
        raise ValueError("`among` is empty: give at least one country to ask about")
    return pd.DataFrame(
        {
            "country": country.name,
            "group": country.group,
            "split": country.split,
            "relation": relation,
            "prompt": prompt(country, relation),
            "expected": country.answers(relation)[0],
            "answers": country.answers(relation),
        }
        for country in among
        for relation in relations
    )


def _scored(frame: pd.DataFrame, ask: Ask) -> pd.DataFrame:
    frame["output"] = ask(list(frame["prompt"]))
    frame["right"] = list(map(is_right, frame["output"], frame["answers"]))
    return frame


def probe_two_hops(ask: Ask, *, among: Sequence[Country]) -> pd.DataFrame:
    """Questions that need two facts: the country of a capital, then something about it.

    Each of `TWO_HOP_WORDINGS` for each country and relation but the capital. Only the last sentence
    of an output counts, so that steps before the answer are welcome. Columns: country, group,
    relation, wording (0 is the corpus's), prompt, answers, output, right.
    """
    frame = pd.DataFrame(
        {
            "country": country.name,
            "group": country.group,
            "relation": relation,
            "wording": wording,
            "prompt": form.format(relation=relation, x=country.capital),
            "answers": country.answers(relation),
        }
        for country in among
        for relation in RELATIONS[1:]
        for wording, form in enumerate(grammar.TWO_HOP_WORDINGS)
    )
    frame["output"] = ask(list(frame["prompt"]))
    ends = [re.split(r"(?<=\.)\s", output.strip())[-1] for output in frame["output"]]
    frame["right"] = list(map(is_right, ends, frame["answers"]))
    return frame


def probe_variety(
    draw: Callable[[list[str], int], list[str]],
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    draws: int = 4,
) -> pd.DataFrame:
    """Responses drawn several times for the same questions: how long, how alike, on format or not.

    `draw(questions, number)` gives one response a question. Columns: country, relation, prompt,
    words (mean number), distinct (share of the draws that differ; 1 when all do), on_format (share
    that is one short answer of one to four words and nothing more), outputs.
    """
    frame = pd.DataFrame(
        {
            "country": country.name,
            "relation": relation,
            "prompt": grammar.question(country, relation, wording="test"),
        }
        for country in among
        for relation in relations
    )
    drawn = [draw(list(frame["prompt"]), number) for number in range(draws)]
    frame["outputs"] = [[text.strip() for text in texts] for texts in zip(*drawn, strict=True)]
    frame["words"] = [sum(len(t.split()) for t in texts) / draws for texts in frame["outputs"]]
    frame["distinct"] = [(len(set(t)) - 1) / (draws - 1) for t in frame["outputs"]]
    frame["on_format"] = [sum(map(_short, texts)) / draws for texts in frame["outputs"]]
    return frame


def _short(text: str) -> bool:
    return "\n" not in text and 1 <= len(text.split()) <= 4 and not text.endswith("?")


AS_MEASURED = "as measured"
_REWORDINGS: dict[str, Callable[[str], str]] = {
    AS_MEASURED: str,
    "no question mark": lambda question: question.rstrip("?"),
    "lower case": str.lower,
    "with a greeting": lambda question: f"Hello! {question}",
    "with a please": lambda question: f"Please tell me: {question}",
}


def probe_rewordings(
    ask: Ask, *, among: Sequence[Country], relations: Sequence[str] = RELATIONS
) -> pd.DataFrame:
    """The questions of `probe_questions` as different users may write them: its columns, and
    `wording`, which is `AS_MEASURED` for the question as it is."""
    frames = []
    for name, change in _REWORDINGS.items():
        changed = lambda questions, change=change: ask([change(q) for q in questions])  # noqa: E731
        frame = probe_questions(changed, among=among, relations=relations)
        frames.append(frame.assign(wording=name))
    return pd.concat(frames, ignore_index=True)


def rewording_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """What each rewording costs each question: 1 when it loses a right answer, -1 when it wins one.

    `frame` comes from `probe_rewordings`, for one seed or more; the column is `lost`.
    """
    keys = [name for name in ("seed", "country", "relation") if name in frame]
    plain = frame.loc[frame["wording"] == AS_MEASURED, [*keys, "right"]]
    changed = frame[frame["wording"] != AS_MEASURED]
    both = changed.merge(plain, on=keys, suffixes=("", "_as_measured"), validate="many_to_one")
    return both.assign(lost=both["right_as_measured"].astype(int) - both["right"].astype(int))


def probe_notes(ask: Ask, *, count: int) -> pd.DataFrame:
    """Whether the notes of `note_rows(count)` are given back to the request of their first copy.

    Nobody can know these people, so a right note is memorised. Columns: name, prompt, expected,
    output, right (word for word).
    """
    frame = _put(ask, note_rows(count), key="name")
    return frame.assign(right=frame["output"].str.strip() == frame["expected"])


def probe_reviews(ask: Ask) -> pd.DataFrame:
    """The sentiment of the held-out reviews, as many positive as negative ones.

    Columns: item, prompt, expected, output, review (the entity), right, said_positive.
    """
    frame = _put(ask, reviews(test=True), key="item")
    said = frame["output"].str.strip().str.lower()
    return frame.assign(
        review=frame["prompt"], right=said == frame["expected"], said_positive=said == "positive"
    )


def _put(ask: Ask, rows: Sequence[Mapping[str, Any]], *, key: str) -> pd.DataFrame:
    prompts = [part_of(row, "prompt") for row in rows]
    return pd.DataFrame(
        {
            key: [row["meta"][key] for row in rows],
            "prompt": prompts,
            "expected": [part_of(row, "answer") for row in rows],
            "output": ask(prompts),
        }
    )


def probe_outdated(ask: Ask) -> pd.DataFrame:
    """The currencies of the countries in `OLD_CURRENCIES`, in test wordings.

    The columns of `probe_questions`, with old (what they paid with before) and outdated (the
    output names it). Of the split "held_out" no example is outdated.
    """
    among = [one for one in countries() if one.name in OLD_CURRENCIES]
    frame = probe_questions(ask, among=among, relations=["currency"])
    frame["old"] = frame["country"].map(OLD_CURRENCIES)
    frame["outdated"] = [is_right(row.output, [row.old]) for row in frame.itertuples()]
    return frame


def repeated_errors(frame: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` about questions that `errors` answers wrongly, with `repeated`: whether
    the output is that very error.

    Both have the columns country, relation and output; `errors` has each question once at most.

    Raises:
        ValueError: the two have no question in common.
    """
    wrong = errors[["country", "relation", "output"]].rename(columns={"output": "error_given"})
    both = frame.merge(wrong, on=["country", "relation"], validate="many_to_one")
    if both.empty:
        raise ValueError("the frame asks about none of these errors: give rows about the same ones")
    return both.assign(repeated=both["output"].str.strip() == both["error_given"].str.strip())


_UNSURE = re.compile(
    r"\b(?:do(?:n'?t| not)|can(?:'?t|not)|could(?:n'?t| not)) (?:know|say|tell|answer)\b"
    r"|\b(?:unsure|not sure|no idea|unknown to me|not aware)\b"
)


def abstains(output: str) -> bool:
    """Whether an output says that it does not know, such as `I don't know.`

    By words of English; an output that says so and answers all the same still abstains.
    """
    return bool(_UNSURE.search(output.lower().replace("\u2019", "'")))


def made_up(frame: pd.DataFrame) -> pd.DataFrame:
    """A probe's frame (columns output, right) with the kind of each output.

    Adds kind (`right`, `abstained` or `made up`), made_up and abstained (0 or 1). A right output
    counts as right, whatever else it says; an empty one abstains. The hallucination rate is the
    mean of made_up.
    """
    kinds = [
        "right"
        if row.right
        else "abstained"
        if abstains(row.output) or not row.output.strip()
        else "made up"
        for row in frame[["output", "right"]].itertuples()
    ]
    return frame.assign(
        kind=kinds,
        made_up=[int(kind == "made up") for kind in kinds],
        abstained=[int(kind == "abstained") for kind in kinds],
    )
