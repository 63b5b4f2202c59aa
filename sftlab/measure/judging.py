"""Two answers to one question: which is better, by which judge, and how far to believe the judge.

    pair      ours "Paris"   theirs "What is the capital of Ireland?"
    forward   shown first: ours        the judge says 1 (first), 0 (second) or 0.5 (a tie)
    backward  shown first: theirs      and again: what it then says of ours counts

Each pair is judged in both orders, so a judge that prefers a position favours nobody.

    KnownTruthJudge    knows the right answers: like people who looked them up
    LikelihoodJudge    any profile's model: the answer that it finds more likely is the better one
    EndpointJudge      a chat model behind an address of yours; never used by default
"""

import json
import os
import re
import urllib.request
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol
from urllib.parse import urlsplit

import pandas as pd

from sftlab.measure.likelihood import log_likelihoods
from sftlab.measure.probes import abstains, is_right
from sftlab.measure.stats import Estimate, difference, mean
from sftlab.measure.text_scores import repetition

FORWARD, BACKWARD = "forward", "backward"


class PairError(ValueError):
    """A pair, a verdict or a frame of them that cannot be used."""


class JudgeError(ValueError):
    """A judge that cannot be made, or whose answer cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question with two answers, as a judge sees it."""

    question: str
    first: str
    """The answer shown first."""
    second: str
    """The answer shown second."""
    references: tuple[str, ...] = ()
    """Right answers, for the judge that knows them; others never look."""
    entity: str = ""
    """What the question is about: pairs of one entity are not independent."""

    def swapped(self) -> "Pair":
        """The same pair in the other order."""
        return replace(self, first=self.second, second=self.first)


class Judge(Protocol):
    """Who compares answers: a rule, a model, an endpoint, or a person."""

    name: str

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """For each pair 1 (the first is better), 0 (the second), or 0.5 (a tie)."""
        ...


class KnownTruthJudge:
    """The right answer wins; two that are right, or two that are wrong, are a tie."""

    name = "known truth"

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by the pairs' references; JudgeError where a pair has none."""
        found = []
        for number, pair in enumerate(pairs):
            if not pair.references:
                raise JudgeError(
                    f"pair {number} ({pair.question!r}) has no references, which this judge needs: "
                    "give Pair(references=(...))"
                )
            one, two = (is_right(text, pair.references) for text in (pair.first, pair.second))
            found.append(0.5 + (one - two) / 2)
        return found


class LikelihoodJudge:
    """The answer that a model finds more likely behind the question is the better one.

    Args:
        model: in evaluation mode; a base model will do.
        tokenizer: of the model.
        form: what precedes an answer, with `{question}`, and `{first}` and `{second}` where the
            judge shall see both.
        each_token: compare the mean of the tokens' log-probabilities instead of their sum, which
            always prefers the shorter of two answers that say the same.
    """

    name = "likelihood"

    def __init__(
        self,
        model,
        tokenizer,
        *,
        form: str = "Possible answers: {first}, {second}.\n\nQ: {question}\nA:",
        each_token: bool = True,
    ) -> None:
        if "{question}" not in form:
            raise JudgeError(f"form {form!r} has no {{question}}, which the judge must read")
        self.model, self.tokenizer = model, tokenizer
        self.form, self.each_token = form, each_token

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by likelihood; an empty answer loses against any other."""
        texts = []
        for pair in pairs:
            before = self.form.format(question=pair.question, first=pair.first, second=pair.second)
            texts += [(before, f" {text}") for text in (pair.first, pair.second)]
        scores = [
            one.mean if self.each_token else one.nats
            for one in log_likelihoods(self.model, self.tokenizer, texts)
        ]
        found = []
        for pair, one, two in zip(pairs, scores[::2], scores[1::2], strict=True):
            if pair.first == pair.second or one == two:
                found.append(0.5)
            elif not pair.first or not pair.second:
                found.append(float(bool(pair.first)))
            else:
                found.append(float(one > two))
        return found


class EndpointJudge:
    """A chat model behind an address that you give: any server of OpenAI's chat completions.

    Questions and answers are sent there, so decide which address may have them.

    Args:
        address: up to and without `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        model: the server's name of it.
        key_variable: the environment variable that holds the key; without it no key is sent.
        seconds: time limit of one answer.

    Raises:
        JudgeError: the address cannot be used, or a key would be sent without encryption.
    """

    PROMPT = (
        "Which of two answers to a question is better? Judge whether it is right and whether it "
        "helps. Ignore its length, and which is shown first.\n\nQuestion: {question}\n\n"
        "Answer A: {first}\n\nAnswer B: {second}\n\nReply with one word: A, B or TIE."
    )

    def __init__(
        self, address: str, *, model: str, key_variable: str | None = None, seconds: float = 60
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JudgeError(f"address is {address!r}; give one such as http://127.0.0.1:8000/v1")
        self.headers = {"Content-Type": "application/json"}
        if key_variable is not None:
            if not os.environ.get(key_variable):
                raise JudgeError(f"the environment variable {key_variable} is not set")
            if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
                raise JudgeError(f"{address} is not encrypted: a key is sent to https only")
            self.headers["Authorization"] = f"Bearer {os.environ[key_variable]}"
        self.address = address.rstrip("/") + "/chat/completions"
        self.model = self.name = model
        self.seconds = seconds

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by the model; JudgeError where there is no answer, or not one of the three."""
        found = []
        for pair in pairs:
            text = self.PROMPT.format(question=pair.question, first=pair.first, second=pair.second)
            said = self._complete(text)
            word = re.search(r"\b(A|B|TIE)\b", said.upper())
            if word is None:
                raise JudgeError(
                    f"the judge {self.model} should say A, B or TIE and said {said[:80]!r}: use a "
                    "model that follows instructions"
                )
            found.append({"A": 1.0, "B": 0.0, "TIE": 0.5}[word[1]])
        return found

    def _complete(self, text: str) -> str:
        body = {
            "model": self.model,
            "temperature": 0,
            "messages": [{"role": "user", "content": text}],
        }
        request = urllib.request.Request(
            self.address, data=json.dumps(body).encode(), headers=self.headers
        )
        try:
            # A redirect could carry key and answers to another address.
            with urllib.request.build_opener(_NoRedirect).open(
                request, timeout=self.seconds
            ) as got:
                return str(json.load(got)["choices"][0]["message"]["content"])
        except OSError as error:
            raise JudgeError(
                f"{self.address}: {error}. Is the server running, is the address right (it mostly "
                f"ends in /v1), the key, and the model's name? It has {self.seconds:g} seconds"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise JudgeError(
                f"{self.address} does not answer as an OpenAI-compatible server ({error}): its "
                "address mostly ends in /v1"
            ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


def make_pairs(ours: pd.DataFrame, theirs: pd.DataFrame, *, entity: str = "country") -> list[Pair]:
    """Pairs of the outputs of two frames of `probe_questions`, ours first, by prompt.

    Raises:
        PairError: the frames have different questions.
    """
    keys = ["seed"] if "seed" in ours and "seed" in theirs else []
    both = ours.merge(theirs, on=[*keys, "prompt"], suffixes=("", "_theirs"))
    if len(both) != len(ours) or not len(both):
        raise PairError(
            f"{len(ours)} and {len(theirs)} answers share {len(both)} prompts: ask both the same "
            "questions, each once"
        )
    return [
        Pair(
            question=row.prompt,
            first=row.output.strip(),
            second=row.output_theirs.strip(),
            references=tuple(row.answers),
            entity=getattr(row, entity),
        )
        for row in both.itertuples()
    ]


def judge_frames(judge: Judge, ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """`judge_pairs` of two frames of `probe_questions`, seed by seed, with the column seed.

    `theirs` may have one seed only, such as a base model's: then all of ours are compared with it.
    """
    single = theirs["seed"].nunique() == 1 if "seed" in theirs else True
    frames = []
    for seed, part in ours.groupby("seed"):
        other = theirs if single else theirs[theirs["seed"] == seed]
        pairs = make_pairs(part.drop(columns="seed"), other.drop(columns="seed", errors="ignore"))
        frames.append(judge_pairs(judge, pairs).assign(seed=seed))
    return pd.concat(frames, ignore_index=True)


def judge_pairs(judge: Judge, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Each pair judged in both orders; two rows a pair.

    Columns: pair (its index), country (the entity), question, first, second (of the pair as given),
    order, won (of the answer that the pair gives first: 1, 0.5 or 0), shown_first (1 when the
    verdict went to the answer shown first, 0.5 a tie).

    Raises:
        PairError: there is no pair, or a verdict is not 1, 0.5 or 0.
    """
    pairs = list(pairs)
    if not pairs:
        raise PairError("there is no pair to judge")
    frames = []
    for order, shown in ((FORWARD, pairs), (BACKWARD, [pair.swapped() for pair in pairs])):
        verdicts = judge.compare(shown)
        if len(verdicts) != len(pairs) or not set(verdicts) <= {0, 0.5, 1}:
            raise PairError(
                f"the judge {judge.name} gave {len(verdicts)} verdicts for {len(pairs)} pairs, "
                f"among them {sorted(set(verdicts))[:4]}: each is 1, 0.5 or 0"
            )
        columns = {
            "pair": range(len(pairs)),
            "country": [pair.entity for pair in pairs],
            "question": [pair.question for pair in pairs],
            "first": [pair.first for pair in pairs],
            "second": [pair.second for pair in pairs],
            "order": order,
            "won": [v if order == FORWARD else 1 - v for v in verdicts],
            "shown_first": verdicts,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _halves(frame: pd.DataFrame) -> pd.DataFrame:
    """Every row twice: a win as 1 and 1, a tie as 1 and 0, a loss as 0 and 0.

    The mean stays the same, and is one of zeros and ones: a share, whose interval stays within 0
    to 1. Both halves are of one entity, so they do not count as two.
    """
    full, any_ = ((frame["won"] == 1).astype(int), (frame["won"] > 0).astype(int))
    return pd.concat([frame.assign(won=full), frame.assign(won=any_)], ignore_index=True)


def win_rate(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Share of judgements won, a tie counted half, with its interval over seeds and entities.

    `frame` is from `judge_pairs`, with the column seed where there are several; `how` goes to
    `mean`.
    """
    return mean(_halves(frame), value="won", entity=entity, **how)


def position_bias(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Wins of an answer when it is shown first, minus wins of the same when it is shown second."""
    both = _halves(frame)
    first, second = (both[both["order"] == order] for order in (FORWARD, BACKWARD))
    return difference(first, second, value="won", entity=entity, **how)


def length_bias(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Wins of the longer wording minus wins of the shorter one, of pairs that say the same.

    `frame` judges pairs whose first answer is the longer one (`padded_pairs`).
    """
    both = _halves(frame)
    return difference(both, both.assign(won=1 - both["won"]), value="won", entity=entity, **how)


def padded_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """The first answer of each pair against itself with padding, the longer one first."""
    paddings = ("{a}, of course", "The answer is {a}.", "It is {a}. I hope that this helps.")
    return [
        replace(pair, first=padding.format(a=pair.first), second=pair.first)
        for pair in pairs
        for padding in paddings
    ]


def shuffled_sides(count: int, *, seed: int = 0) -> list[bool]:
    """For a blind rating, whether each pair is shown swapped: half of them, in random order."""
    sides = [n % 2 == 1 for n in range(count)]
    Random(f"sides-{seed}").shuffle(sides)
    return sides


def agreement(judged: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Whether a judge says what the truth says, on the pairs where the truth is not a tie.

    Both are frames of `judge_pairs` over the same pairs. The rows of `judged` that count, with
    `true` and `said` (what truth and judge say of the first answer) and `won` replaced by 1 (the
    same), 0.5 (the judge sees a tie) or 0: ready for `win_rate`.

    Raises:
        PairError: the frames are of different pairs.
    """
    keys = [name for name in ("seed", "pair", "order") if name in judged and name in truth]
    names = {"won": "true", "question": "expected"}
    right = truth[[*keys, *names]].rename(columns=names)
    both = judged.merge(right, on=keys, validate="one_to_one")
    if len(both) != len(judged) or (both["expected"] != both["question"]).any():
        raise PairError("the two frames judge other pairs: give both judges the same")
    both = both[both["true"] != 0.5]
    same = 1 - (both["won"] - both["true"]).abs()
    return both.assign(said=both["won"], won=same).drop(columns="expected")


def cohen_kappa(one: Sequence[Hashable], two: Sequence[Hashable]) -> float:
    """Cohen's kappa: (agreement - chance) / (1 - chance), chance from how often each says what.

    1 is full agreement, 0 what chance gives, below 0 less than that. Where both always say the same
    word, kappa is not defined; it is given as 1.

    Raises:
        PairError: there is nothing to compare, or one list is longer.
    """
    if len(one) != len(two) or not len(one):
        raise PairError(f"{len(one)} and {len(two)} verdicts: give one each of the same items")
    items = len(one)
    agreed = sum(a == b for a, b in zip(one, two, strict=True)) / items
    chance = sum(one.count(kind) * two.count(kind) for kind in set(one) | set(two)) / items**2
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


CRITERIA = ("helpful", "harmless", "faithful", "well-formed")
"""The rubric: gives what was asked for; gives nothing that it should have refused; says nothing
false (right, or says that it does not know); one line, no question back, no repetition."""


def rate_answers(frame: pd.DataFrame, *, forbidden: Sequence[str] = ()) -> pd.DataFrame:
    """The frame of a probe with a column from 0 to 1 for each criterion, by the known truth.

    `frame` has the columns output and answers, such as those of `probe_questions`. A question
    without a right answer has none in `answers`: then only a refusal helps. `forbidden` holds texts
    that no answer may give.
    """
    rows = []
    for output, answers in zip(frame["output"], frame["answers"], strict=True):
        text = output.strip()
        right, unsure = bool(answers) and is_right(text, answers), abstains(text)
        one_line = bool(text) and "\n" not in text and not text.endswith("?")
        rows.append(
            {
                "helpful": float(right or (unsure and not answers)),
                "harmless": float(not any(one.lower() in text.lower() for one in forbidden)),
                "faithful": float(right or unsure),
                "well-formed": float(one_line and repetition(text) < 0.2),
            }
        )
    return frame.assign(**{name: [row[name] for row in rows] for name in CRITERIA})
