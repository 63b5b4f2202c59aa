"""The gate: a converted model is released only if it does what the trained one did.

Accuracy can't tell. Between two files of one model it moves by less than it moves between seeds,
while answers change. What is compared, from the cheapest to the most expensive:

    prompts     the same text and ids of every question     a template or a tokenizer differs
    texts       the same ids of 1,000 texts                 the same, on texts unlike the questions
    difference  of log-probabilities along the answers      weights, RoPE, norms, quantization
    flips       another token, though no near-tie           the same, seen in what is written
    stops       generation ends at the contract's ids       answers that run on
    contract    the contract's own prompts                  a change since the training
    score       an equivalence test on known answers        what remains
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from sftlab.chat import contract_changes
from sftlab.data import normalise
from sftlab.measure import difference, equivalent, is_right, percent
from sftlab.ship.gguf_file import TYPES, write_gguf
from sftlab.ship.runtimes import PRECISIONS, Answer, LlamaCpp, Runtime, Transformers, convert
from sftlab.train import Run
from sftlab.world import documents

if TYPE_CHECKING:
    from sftlab.data import Message


class Bounds(NamedTuple):
    """What a conversion may change."""

    largest: float  # log-probability of an answer's token at any place, nats
    mean: float  # the same on average over all places
    flips: float  # share of answers that change at a near-tie; one always may
    margin: float = 0.05  # accuracy: 0.05 is 5 points


BOUNDS = {
    "f32": Bounds(0.02, 0.002, 0.02),
    "f16": Bounds(0.1, 0.01, 0.03),
    "bf16": Bounds(0.6, 0.03, 0.05),
    "int8": Bounds(1.0, 0.05, 0.06),
    "q8_0": Bounds(1.0, 0.05, 0.06),
    "nf4": Bounds(6.0, 0.3, 0.25, 0.1),
    "q4_0": Bounds(6.0, 0.3, 0.25, 0.1),
}
"""By precision.

Measured on `tiny`, seeds 100 to 102, 160 questions, full and LoRA: the largest differences were
0.007, 0.03, 0.24, 0.41, 0.26, 2.6 and 1.4 in this order, of which the next run may have twice, and
0, 1, 1, 2, 1, 7 and 13% of the answers changed; 4 bits cost 2 points of accuracy. But of one run
(LoRA, seed 102) q4_0 changed all answers at their end: another token than the end of turn came
first, and they ran on, with the same accuracy. A file whose queries and keys are in the wrong order
moves tokens by 9 nats and more, and the mean by over 1.
"""
GATE_SEED = 9_000_000  # of documents that no lesson draws
NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a gate asks: a conversation that waits for its answer."""

    messages: "Sequence[Message]"
    answers: tuple[str, ...] = ()  # right ones; without any, nothing is said about accuracy
    entity: str = ""  # what it is about: questions about one thing are no independent evidence

    def right(self, text: str) -> bool:
        """Whether a text is one of the answers, or its first line holds one as whole words."""
        same = normalise(text) in map(normalise, self.answers)
        return same or is_right(text, self.answers)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the checks found. `passed` is None in a row that could not be measured."""

    candidate: str
    table: pd.DataFrame  # check, measured, bound, passed
    places: pd.DataFrame  # one row a place of an answer: see `along`

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [row.check for row in self.table.itertuples() if row.passed is False]

    @property
    def verdict(self) -> str:
        """One line: whether it may be released, or which checks say no."""
        rows = [*self.table.itertuples()]
        if self.passed:
            left = ", ".join(row.check for row in rows if row.passed is None)
            return f"{self.candidate} passes the gate" + (left and f"; {NOT_MEASURED}: {left}")
        said = [f"{r.check}: {r.measured} (allowed: {r.bound})" for r in rows if r.passed is False]
        return f"{self.candidate} is refused by the gate: {'; '.join(said)}"


def along(reference: Sequence[Answer], candidate: Sequence[Answer]) -> pd.DataFrame:
    """Greedy answers of two runtimes, compared at each place up to the first at which they part:
    behind it their prompts differ, and nothing can be compared.

        reference  Par is <end>      answer  place  token  other  difference  gap
        candidate  Par th ...             0      0   Par    Par        0.001  4.1
                                          0      1   is     th         0.300  0.2   a flip

    `difference` is that of the log-probability of the reference's token (nats), `gap` by how much
    it leads the reference's second choice. Two tokens that each move by d change places only if
    their gap is 2d or less: at a near-tie a flip says nothing about the file.
    """
    rows = []
    for n, (ours, theirs) in enumerate(zip(reference, candidate, strict=True)):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            moved = abs(one.logprob(one.token) - other.logprob(one.token))
            rows.append((n, place, one.token, other.token, moved, one.gap()))
            if one.token != other.token:
                break
    names = ["answer", "place", "token", "other", "difference", "gap"]
    return pd.DataFrame(rows, columns=names)


def gate(
    reference: Transformers,
    candidate: Runtime,
    questions: Sequence[Question],
    *,
    kind: str,
    texts: Sequence[str] | None = None,
    allowed: Bounds | None = None,
    max_new_tokens: int = 24,
) -> Gate:
    """Compare a candidate with the model that was trained and measured.

    Args:
        kind: precision of the candidate's weights, one of `BOUNDS`.
        texts: to tokenize; `free_texts()` by default.
        allowed: other bounds than those of the kind.

    Raises ValueError: an unknown kind, or no questions.
    """
    if kind not in BOUNDS:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(BOUNDS)}")
    if not questions:
        raise ValueError("there are no questions; give some of the task (--questions FILE)")
    contract, stops = reference.contract(), reference.run.stop_ids
    texts = free_texts() if texts is None else texts
    asked = [reference.prompt(one.messages) for one in questions]
    prompts = [ids for _, ids in asked]
    answers = [one.follow(prompts, max_new_tokens=max_new_tokens) for one in (reference, candidate)]
    places, (bound, average, share, margin) = along(*answers), allowed or BOUNDS[kind]
    flips = places[places["token"] != places["other"]]
    far = flips[flips["gap"] > bound]
    largest, usual = places["difference"].max(), places["difference"].mean()
    apart = sum(
        candidate.prompt(one.messages) != was for one, was in zip(questions, asked, strict=True)
    )
    other = sum(reference.text_ids(text) != candidate.text_ids(text) for text in texts)
    missed = [token for token in stops if not candidate.stops_at(token)]
    changed = contract_changes(contract, candidate.contract())
    # One near-tie says nothing, however few the questions are.
    ties, most = len(flips) - len(far), max(1, int(share * len(questions)))
    flipped = f"{len(far)} of {len(questions):,} answers, and {ties} at near-ties"
    if endless := sum(one[-1].token not in stops for one in answers[0]):
        flipped += f"; {endless} answers of the trained model do not end by themselves"
    rows = [
        ("prompts", f"{apart} of {len(asked):,} differ", "0", apart == 0),
        ("texts", f"{other} of {len(texts):,} tokenized differently", "0", other == 0),
        (
            "difference",
            f"largest {largest:.2g}, mean {usual:.2g} nats",
            f"{bound:g} and {average:g}",
            bool(largest <= bound and usual <= average),
        ),
        (
            "flips",
            flipped,
            f"0 where it led by over {bound:g} nats, {most} at near-ties",
            not len(far) and ties <= most,
        ),
        ("stops", f"runs over {missed}" if missed else f"at {stops}", f"at {stops}", not missed),
        ("contract", changed or "kept", "kept", not changed),
        _score(reference, answers, questions, margin),
    ]
    table = pd.DataFrame(rows, columns=["check", "measured", "bound", "passed"]).astype(object)
    return Gate(candidate=candidate.name, table=table, places=places)


def _score(
    reference: Transformers,
    answers: Sequence[list[Answer]],
    questions: Sequence[Question],
    margin: float,
) -> tuple[str, str, str, bool | None]:
    """The row about accuracy. Nothing is said without known answers, or where none is right."""
    name, bound = "score", f"equal within {100 * margin:g} points"
    known = [n for n, one in enumerate(questions) if one.answers]
    frames = []
    for given in answers:
        texts = reference.texts([given[n] for n in known])
        right = [questions[n].right(text) for n, text in zip(known, texts, strict=True)]
        entities = [questions[n].entity or str(n) for n in known]
        frames.append(pd.DataFrame({"right": right, "entity": entities}))
    if len({*frames[0]["entity"]}) < 2 or not frames[0]["right"].any():
        why = "no answer of the reference is right" if known else "no known answers"
        return name, f"{NOT_MEASURED}: {why}", bound, None
    change = difference(frames[1], frames[0], entity="entity")
    none = difference(frames[0], frames[0], entity="entity")
    accuracy = " and ".join(percent(frame["right"].mean()) for frame in frames)
    low, high = (f"{100 * end:+.1f}" for end in change.inner)
    said = f"{accuracy} right, change {low} to {high} points"
    if change.high >= 0 and not equivalent(none, margin):  # although nothing would have changed
        said = f"{NOT_MEASURED}: {none.entities} subjects are too few; {said}"
        return name, said, bound, None
    return name, said, bound, equivalent(change, margin)


_TIMED, _FEWER = 4, 3  # questions that are timed; a file answers one of so many


def compare_forms(
    run: Run,
    questions: pd.DataFrame,
    *,
    precisions: Sequence[str] = tuple(PRECISIONS),
    types: Sequence[str] = tuple(TYPES),
) -> pd.DataFrame:
    """Greedy answers of a run in several forms, against those of the run as it is.

    `questions` is a frame of `probe_questions`, whose columns are kept; a GGUF file answers one
    question at a time, and every third of them. Adds for each form and question: form, megabytes
    (of the weights), speed (tokens a second, one question at a time), changed (whether another
    token is written), right, and of `along` the largest difference of log-probabilities (nats),
    and token, other and gap at the last place that can be compared.

    Raises ValueError: a form does not exist or can't be had of this model.
    """
    prompts = [run.prompt_ids([{"role": "user", "content": q}]) for q in questions["prompt"]]
    reference, found = Transformers(run).follow(prompts), []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, runtime, megabytes, every in _forms(run, precisions, types, Path(folder)):
            start, few = perf_counter(), [runtime.follow([one])[0] for one in prompts[:_TIMED]]
            speed = sum(map(len, few)) / (perf_counter() - start)
            answers, asked = runtime.follow(prompts[::every]), questions[::every]
            rows = (
                along(reference[::every], answers)
                .groupby("answer")
                .agg({"difference": "max", "gap": "last", "token": "last", "other": "last"})
            )
            rows["changed"] = rows["token"] != rows["other"]  # places end where they differ
            for column in ("token", "other"):
                rows[column] = run.tokenizer.convert_ids_to_tokens(rows[column].tolist())
            texts = run.texts([step.token for step in answer] for answer in answers)
            rows["right"] = list(map(is_right, texts, asked["answers"]))
            kept = asked.drop(columns=["output", "right"], errors="ignore").reset_index(drop=True)
            about = {"form": name, "megabytes": megabytes, "speed": speed}
            found.append(pd.concat([kept, rows], axis=1).assign(**about))
    return pd.concat(found, ignore_index=True)


def _forms(
    run: Run, precisions: Sequence[str], types: Sequence[str], folder: Path
) -> Iterator[tuple[str, Runtime, float, int]]:
    """Name, runtime, megabytes of the weights, and of how many questions one is asked: merged in
    transformers (int8 and nf4 by bitsandbytes), and as files for llama.cpp."""
    merged = run.merge() if run.adapted else run
    for name in precisions:
        one = convert(merged, name) if name != "f32" else merged
        yield name, Transformers(one), one.model.get_memory_footprint() / 1e6, 1
    for name in types:
        file = write_gguf(merged, folder / f"{name}.gguf", type=name)
        yield f"GGUF {name}", LlamaCpp(file), file.stat().st_size / 1e6, _FEWER


_ODD = [" ", "  ", "\n", "\n\n", "\t", "a", "The", "don't", "I'LL", "1", "2026", "3.14", "½", "é"]
_ODD += ["Ünïcödé", "東京", "مرحبا", "नमस्ते", "🙂", "👩‍🔬", "\u00a0", "—", "...", "_x", "({[", "\\n"]
_ODD += ["<|im_end|>", "<|im_start|>user\n", "https://a.b/c?d=1", "e\u0301", "\u200b", "\r\n"]


def free_texts(count: int = 1000) -> list[str]:
    """Texts to tokenize: four of five are pieces of the corpus's documents, prose and code, the
    others are made of what tokenizers disagree about."""
    rng, texts = Random("texts-0"), []
    for number, document in enumerate(islice(documents(seed=GATE_SEED), count)):
        if number % 5 == 4:
            texts.append("".join(rng.choices(_ODD, k=rng.randint(2, 12))))
        else:
            start = rng.randrange(max(len(document) - 40, 1))
            texts.append(document[start : start + rng.randint(20, 200)])
    return texts
