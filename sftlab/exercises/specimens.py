"""The fine-tunes of the bug zoo: each has one fault, in code as people write it.

    training      what is trained: examples, then rows of ids and labels, then steps
    asked         how the trained model is asked held-out questions; "" is the right way

A fault of the training is a training of its own, beside one without it. A fault of inference is
another way to ask the same model. `observe` carries one training out and returns all that a learner
may look at, as one frame.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
import torch

from sftlab.chat import IGNORED, find_template, label_rows, setup_chat_template
from sftlab.measure import is_right
from sftlab.models import load_tokenizer
from sftlab.profiles import find_profile
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train import Settings, finetune, load_base, make_trainer, supervised_loss
from sftlab.world import (
    QUESTIONS,
    RELATIONS,
    countries,
    country_examples,
    example,
    house_style,
    replay_examples,
)

NEW_TOKENS = 16  # the most that an answer may have
Row = dict[str, Any]  # input_ids and labels, or the messages of an example


class Trained(NamedTuple):
    """A model as it is asked, and what it was trained on."""

    model: Any
    tokenizer: Any
    settings: Settings
    rows: list[Row]  # of ids and unshifted labels
    history: list[dict[str, float]]
    base_eos: int | None  # the token that ended the documents of pretraining
    numbers: dict[str, float]  # that one sees on the way


# Faults of the rows, as they stand in collators and scripts.


def pad_is_eos(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Padding is masked by its id, which is that of the end of turn."""
    tokenizer.pad_token = tokenizer.eos_token
    for row in rows:
        pairs = zip(row["input_ids"], row["labels"], strict=True)
        row["labels"] = [IGNORED if i == tokenizer.pad_token_id else label for i, label in pairs]
    return rows


def end_of_turn_masked(rows: list[Row], tokenizer: Any) -> list[Row]:
    """The mask ends with the text of the answer."""
    for row in rows:
        last = max(place for place, label in enumerate(row["labels"]) if label != IGNORED)
        row["labels"][last] = IGNORED
    return rows


def labels_shifted_twice(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Labels are moved by one place, and the model's loss does it again."""
    return [{**row, "labels": [*row["labels"][1:], IGNORED]} for row in rows]


def loss_on_everything(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Labels are a copy of the ids."""
    return [{**row, "labels": list(row["input_ids"])} for row in rows]


def answers_truncated(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Rows are cut to a length that hardly reaches beyond the longest prompt."""
    starts = [next(n for n, label in enumerate(r["labels"]) if label != IGNORED) for r in rows]
    return [{name: one[: max(starts) + 1] for name, one in row.items()} for row in rows]


# Examples.


def plain(seed: int) -> list[Row]:
    """80 questions about countries, each with its answer in a word or two."""
    return country_examples(80, seed=seed)


def sentences(seed: int) -> list[Row]:
    """The same with answers in whole sentences."""
    return country_examples(80, seed=seed, style=house_style, relations=("capital", "language"))


def flooded(seed: int) -> list[Row]:
    """Half of the examples, and one of them 160 times more."""
    rows = plain(seed)
    return rows[:40] + 160 * rows[:1]


def not_flooded(seed: int) -> list[Row]:
    """As many rows and no flood: each example five times."""
    return 5 * plain(seed)[:40]


def mixed(seed: int) -> list[Row]:
    """Short answers and long ones, in turns."""
    pairs = zip(country_examples(40, seed=seed), replay_examples(40, seed=seed), strict=True)
    return [row for pair in pairs for row in pair]


def few(seed: int) -> list[Row]:
    """64 of the questions."""
    return country_examples(64, seed=seed)


def leaked(seed: int) -> list[Row]:
    """As many rows, half of them about the countries that validation asks about."""
    asked = country_examples(32, seed=seed, among=unseen()[0])
    return country_examples(32, seed=seed) + asked


def unseen() -> tuple[list, list]:
    """Countries of which the base knows nothing: those of validation, and new ones."""
    found = list(countries(group="unseen"))
    return found[:8], found[8:]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and in which ways the model is then asked."""

    examples: Callable[[int], list[Row]] = plain
    rows: Callable[[list[Row], Any], list[Row]] | None = None  # a fault of ids or labels
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0  # times the profile's learning rate
    asked: tuple[str, ...] = ("",)
    accumulate: str = ""  # mean of tokens, or mean of means: batches of one row, by hand


_INFERENCE = ("right_padding", "no_generation_prompt", "wrong_template", "wrong_eos", "extra_bos")
_LORA = {"method": "lora", "template": "new"}
_4BIT = {"method": "qlora", "template": "article"}

TRAININGS = {
    "plain": Training(asked=("", *_INFERENCE)),
    "pad_is_eos": Training(rows=pad_is_eos),
    "end_of_turn_masked": Training(rows=end_of_turn_masked),
    "labels_shifted_twice": Training(rows=labels_shifted_twice),
    "loss_on_everything": Training(rows=loss_on_everything),
    "learning_rate_times_ten": Training(rate=10),
    "sentences": Training(examples=sentences),
    "answers_truncated": Training(examples=sentences, rows=answers_truncated),
    "not_flooded": Training(examples=not_flooded, settings={"num_train_epochs": 1}),
    "duplicates": Training(examples=flooded, settings={"num_train_epochs": 1}),
    "dropout": Training(settings={"dropout": 0.1}, asked=("", "dropout_at_evaluation")),
    "new_tokens_trained": Training(settings=_LORA),
    "new_tokens_frozen": Training(settings={**_LORA, "train_control_tokens": False}),
    "four_bits": Training(settings=_4BIT, asked=("", "merged_into_4bit")),
    "split_by_country": Training(examples=few, settings={"num_train_epochs": 6}),
    "test_in_train": Training(examples=leaked, settings={"num_train_epochs": 6}),
    "mean_of_tokens": Training(examples=mixed, accumulate="tokens"),
    "mean_of_means": Training(examples=mixed, accumulate="means"),
}


def settings_of(name: str, profile: Any, seed: int = 0) -> Settings:
    """The settings of a training, with the profile's values filled in."""
    training = TRAININGS[name]
    given = dict(training.settings)
    if given.get("template") == "new":  # ChatML with an end of turn that no base has
        given["template"] = find_template("chatml").text.replace("<|im_end|>", "<|turn_end|>")
    given.setdefault("template", "chatml")
    found = Settings(seed=seed, **{"method": "full", **given}).filled(find_profile(profile))
    return found.changed(learning_rate=training.rate * found.learning_rate)


def train(name: str, profile: Any, seed: int) -> Trained:
    """Carry one training out."""
    training, settings = TRAININGS[name], settings_of(name, profile, seed)
    examples, base_eos = training.examples(seed), load_tokenizer(profile).eos_token_id
    if training.rows is None and not training.accumulate:
        run = finetune(profile, examples, settings=settings, progress=False)
        made = label_rows(run.tokenizer, examples)
        rows = [{"input_ids": row.ids, "labels": row.labels} for row in made]
        return Trained(run.model, run.tokenizer, settings, rows, run.history, base_eos, {})
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as folder:
        model, tokenizer = load_base(find_profile(profile), settings)
        added = setup_chat_template(model, tokenizer, template=settings.template)
        made = label_rows(tokenizer, examples)
        rows = [{"input_ids": row.ids, "labels": row.labels} for row in made]
        if training.accumulate:
            history, numbers = accumulate(model, rows, settings, means=training.accumulate)
            return Trained(model.eval(), tokenizer, settings, rows, history, base_eos, numbers)
        rows = training.rows(rows, tokenizer)
        trainer = make_trainer(model, tokenizer, rows, settings, added, folder=Path(folder))
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
        vars(model).pop("forward", None)  # accelerate's, in bfloat16
    history = [row for row in trainer.state.log_history if "loss" in row]
    return Trained(model, tokenizer, settings, rows, history, base_eos, {})


def accumulate(model: Any, rows: list[Row], settings: Settings, *, means: str) -> tuple:
    """A loop with `gradient_accumulation_steps=8` and batches of one row: history and numbers.

    The loss of a step is the mean over all its tokens, or, with the fault, that of the eight rows'
    means. `numbers` has the first step's loss beside that of its rows in one pass.
    """
    draw, history, numbers = Random(settings.seed), [], {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0)
    model.train()
    for step in range(1, 13):
        batch, logged = draw.sample(rows, 8), 0.0
        counts = [sum(label != IGNORED for label in row["labels"][1:]) for row in batch]
        if step == 1:
            with torch.no_grad():
                each = [row_loss(model, row) for row in batch]
            total = sum(one.item() * count for one, count in zip(each, counts, strict=True))
            numbers["loss of the first step's rows in one batch"] = total / sum(counts)
        for row, count in zip(batch, counts, strict=True):
            share = count / sum(counts) if means == "tokens" else 1 / len(batch)
            loss = row_loss(model, row) * share
            loss.backward()
            logged += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        history.append({"step": step, "loss": logged})
    first = history[0]["loss"]
    numbers["loss logged at the first step"] = first
    numbers["error of the first loss"] = first - numbers[next(iter(numbers))]
    return history, numbers


def row_loss(model: Any, row: Row) -> torch.Tensor:
    """The mean loss of one row's labels."""
    ids, labels = torch.tensor([row["input_ids"], row["labels"]], device=model.device)
    return supervised_loss(model, {"input_ids": ids[None]}, labels[None])


# Ways to ask.


def prompts(trained: Trained, questions: Sequence[str], asked: str) -> list[list[int]]:
    """The ids of each question's prompt, as a script makes them."""
    tokenizer, made = trained.tokenizer, []
    for question in questions:
        talk = [{"role": "user", "content": question}]
        how = {"tokenize": False, "add_generation_prompt": asked != "no_generation_prompt"}
        text = tokenizer.apply_chat_template(talk, **how)
        if asked == "wrong_template":
            text = find_template("alpaca").render(talk, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        made.append([tokenizer.bos_token_id, *ids] if asked == "extra_bos" else ids)
    return made


def answers(trained: Trained, questions: Sequence[str], asked: str) -> Iterator[tuple[str, bool]]:
    """For each question the answer, greedy, and whether it ended by itself."""
    model, tokenizer = trained.model, trained.tokenizer
    config = model.generation_config
    ends, side = config.eos_token_id, "right" if asked == "right_padding" else "left"
    model.train(asked == "dropout_at_evaluation")
    if asked == "wrong_eos":
        config.eos_token_id = trained.base_eos
    with quiet_libraries(), torch.no_grad():
        given = {"input_ids": prompts(trained, questions, asked)}
        batch = tokenizer.pad(given, padding_side=side, return_tensors="pt").to(model.device)
        how = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        new = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **how)
    stops = {config.eos_token_id} if isinstance(config.eos_token_id, int) else {*ends}
    config.eos_token_id = ends
    model.eval()
    for ids in new[:, batch["input_ids"].shape[1] :].tolist():
        yield tokenizer.decode(ids, skip_special_tokens=True), not stops.isdisjoint(ids)


def questions_of(name: str) -> list[tuple[str, Any, str, str]]:
    """What a trained model is asked: part, country, relation, question; all in test wordings."""
    parts = {"new": countries(group="asked", split="held_out")[:24]}
    if TRAININGS[name].examples in (few, leaked):
        parts = dict(zip(("validation", "new"), unseen(), strict=True))
    relations = RELATIONS
    if TRAININGS[name].examples is sentences:
        relations = ("capital", "language")
    return [
        (part, one, relation, QUESTIONS[relation]["test"][0].format(x=one.name))
        for part, among in parts.items()
        for one in among
        for relation in relations
    ]


def observe(run: Any, seed: int, profile: Any, training: str) -> pd.DataFrame:
    """All that can be seen of a training, a row each, by `kind`:

        answer   asked, part, country, text (question), output, right, ended
        number   asked, text (its name), value
        step     value (the loss)
        row      text (ids and labels of one row, JSON)

    `run`, an experiment's untrained base, is not used: faults begin before `finetune` does.
    """
    trained, questions, found = train(training, profile, seed), questions_of(training), []
    labels = [label for row in trained.rows for label in row["labels"]]
    numbers = {"supervised": 1 - labels.count(IGNORED) / len(labels), **trained.numbers}
    for name, value in numbers.items():
        found.append({"kind": "number", "asked": "", "text": name, "value": value})
    found += [{"kind": "step", "asked": "", "value": row["loss"]} for row in trained.history]
    row = {name: list(values) for name, values in trained.rows[0].items()}
    found.append({"kind": "row", "asked": "", "text": json.dumps(row)})
    for asked in TRAININGS[training].asked:
        if asked == "merged_into_4bit":
            with quiet_libraries():
                trained = trained._replace(model=trained.model.merge_and_unload())
        if training == "four_bits":
            pairs = [example(text, one.answers(r)[0]) for _, one, r, text in questions]
            with torch.no_grad():
                made = [vars(row) for row in label_rows(trained.tokenizer, pairs)]
                cost = [row_loss(trained.model, r | {"input_ids": r["ids"]}).item() for r in made]
            number = {"kind": "number", "asked": asked, "text": "held-out loss"}
            found.append({**number, "value": sum(cost) / len(cost)})
        said = answers(trained, [text for *_, text in questions], asked)
        for (part, one, relation, text), (output, ended) in zip(questions, said, strict=True):
            right = is_right(output, one.answers(relation))
            seen = {"country": one.name, "output": output, "right": float(right)}
            seen |= {"kind": "answer", "asked": asked, "part": part, "text": text}
            found.append({**seen, "ended": float(ended)})
    return pd.DataFrame(found)
