"""The fine-tunes of the bug zoo: each has one fault, in code as people write it.

A fault of data or training is a training of its own, beside one without it. A fault of inference is
another way to ask the same model.
"""

import json
import warnings
from collections.abc import Sequence
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
WAYS = {
    "plain": ("", "right_padding", "wrong_template", "wrong_eos"),
    "dropout": ("", "dropout_at_evaluation"),
    "four_bits": ("", "merged_into_4bit"),
}
"""The ways in which a training's model is asked, where that is not the right one, "", alone."""


class Trained(NamedTuple):
    """A model as it is asked, and what it was trained on."""

    model: Any
    tokenizer: Any
    rows: list[dict[str, list[int]]]  # input_ids and labels, not shifted
    history: list[dict[str, float]]  # with loss, a row each step


def examples_of(name: str, seed: int) -> list[dict]:
    """The examples of a training."""
    rows = country_examples(80, seed=seed)
    match name:
        case "sentences" | "pad_is_eos" | "end_of_turn_masked" | "answers_truncated":
            how = {"style": house_style, "relations": ("capital", "language")}
            rows = country_examples(80, seed=seed, **how)
        case "mean_of_tokens" | "mean_of_means":  # short and long answers
            rows = rows[:40] + replay_examples(40, seed=seed)
        case "split_by_country":
            rows = rows[:64]
        case "test_in_train":
            about = countries(group="unseen")[:8]
            rows = rows[:32] + country_examples(32, seed=seed, among=about)
    return rows


def questions_of(name: str) -> list[tuple[str, Any, str, str]]:
    """What a model is asked: part, country, relation, question."""
    parts = {"new": countries(group="asked", split="held_out")[:16]}
    if name in ("split_by_country", "test_in_train"):
        unknown = countries(group="unseen")  # by the base: a leak shows there alone
        parts = {"validation": unknown[:8], "new": unknown[8:]}
    return [
        (part, one, relation, QUESTIONS[relation]["test"][0].format(x=one.name))
        for part, among in parts.items()
        for one in among
        for relation in RELATIONS
    ]


def settings_of(name: str, profile: Any, seed: int = 0) -> Settings:
    """The settings of a training, with the profile's values filled in."""
    given = {"method": "full", "template": "chatml", "dropout": 0.1 * (name == "dropout")}
    if name in ("split_by_country", "test_in_train"):
        given["num_train_epochs"] = 6
    elif name == "four_bits":
        given |= {"method": "qlora", "template": "article"}
    elif name.startswith("new_tokens"):  # ChatML, with an end of turn that no base has
        text = find_template("chatml").text.replace("<|im_end|>", "<|turn_end|>")
        given |= {"method": "lora", "template": text}
        given |= {"train_control_tokens": name == "new_tokens_trained"}
    found = Settings(seed=seed, **given).filled(find_profile(profile))
    times = 10 if name == "learning_rate_times_ten" else 1
    return found.changed(learning_rate=times * found.learning_rate)


def label(name: str, rows: list[dict], tokenizer: Any) -> list[dict]:
    """Rows with the fault that a collator or a script makes in ids and labels."""
    if name == "pad_is_eos":
        tokenizer.pad_token = tokenizer.eos_token
    max_length, made = None, []
    if name == "answers_truncated":  # hardly beyond the longest prompt
        max_length = 1 + max(sum(one == IGNORED for one in row["labels"][:-1]) for row in rows)
    for row in rows:
        ids, labels = row["input_ids"][:max_length], row["labels"][:max_length]
        match name:
            case "pad_is_eos":  # labels[labels == tokenizer.pad_token_id] = -100
                labels = [IGNORED if one == tokenizer.pad_token_id else one for one in labels]
            case "end_of_turn_masked":
                labels[max(n for n, one in enumerate(labels) if one != IGNORED)] = IGNORED
            case "labels_shifted_twice":  # the model's own loss shifts them again
                labels = [*labels[1:], IGNORED]
            case "loss_on_everything":
                labels = list(ids)
        made.append({"input_ids": ids, "labels": labels})
    return made


def train(name: str, profile: Any, seed: int) -> Trained:
    """Carry one training out: by `finetune` where its rows are as they should be."""
    settings, examples = settings_of(name, profile, seed), examples_of(name, seed)
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as folder:
        model, tokenizer = load_base(find_profile(profile), settings)
        added = setup_chat_template(model, tokenizer, template=settings.template)
        made = label_rows(tokenizer, examples)
        right = [{"input_ids": row.ids, "labels": row.labels} for row in made]
        rows = label(name, right, tokenizer)
        if name.startswith("mean_of"):
            return Trained(model, tokenizer, rows, accumulate(name, model, rows, settings))
        if rows == right:
            run = finetune(profile, examples, settings=settings, progress=False)
            return Trained(run.model, run.tokenizer, rows, run.history)
        trainer = make_trainer(model, tokenizer, rows, settings, added, folder=Path(folder))
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
        vars(model).pop("forward", None)  # accelerate's, in bfloat16
    history = [row for row in trainer.state.log_history if "loss" in row]
    return Trained(model, tokenizer, rows, history)


def accumulate(name: str, model: Any, rows: list[dict], settings: Settings) -> list[dict]:
    """A loop over batches of one row, eight of which make a step. The right loss of a step is the
    mean over its tokens; the fault is the mean of the rows' means."""
    draw, history = Random(settings.seed), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0)
    for step in range(1, 13):
        batch, logged, together = draw.sample(rows, 8), 0.0, 0.0
        counts = [sum(one != IGNORED for one in row["labels"][1:]) for row in batch]
        for row, count in zip(batch, counts, strict=True):
            loss, share = row_loss(model, row), count / sum(counts)
            together += loss.item() * share
            loss = loss / 8 if name == "mean_of_means" else loss * share
            loss.backward()
            logged += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        history.append({"step": step, "loss": logged, "together": together})
    return history


def row_loss(model: Any, row: dict[str, list[int]]) -> torch.Tensor:
    """The mean loss of one row's labels."""
    ids, labels = torch.tensor([row["input_ids"], row["labels"]], device=model.device)
    return supervised_loss(model, {"input_ids": ids[None]}, labels[None])


def answer(
    trained: Trained, questions: Sequence[str], asked: str, base_eos: int | None
) -> tuple[list[tuple[str, str, bool]], dict[str, Any]]:
    """For each question the answer, without and with special tokens, and if it ended; a log."""
    model, tokenizer = trained.model, trained.tokenizer
    config, side = model.generation_config, "right" if asked == "right_padding" else "left"
    stops = config.eos_token_id
    ends = [stops] if isinstance(stops, int) else stops
    if asked == "wrong_eos" and base_eos is not None:
        ends = [base_eos]
    talks = [[{"role": "user", "content": question}] for question in questions]
    template = find_template("alpaca" if asked == "wrong_template" else None, tokenizer=tokenizer)
    texts = [template.render(talk, add_generation_prompt=True) for talk in talks]
    model.train(asked == "dropout_at_evaluation")
    log = {"prompt of generation": repr(texts[0]), "padding_side": side}
    log |= {"model.training": model.training}
    log |= {"generation_config.eos_token_id": tokenizer.decode(ends)}
    config.eos_token_id = ends
    with quiet_libraries(), torch.no_grad():
        how = {"padding": True, "padding_side": side, "add_special_tokens": False}
        batch = tokenizer(texts, return_tensors="pt", **how).to(model.device)
        batch.pop("token_type_ids", None)
        how = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        new = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **how)
    config.eos_token_id = stops
    model.eval()
    rows = new[:, batch["input_ids"].shape[1] :].tolist()
    rows = [ids[: 1 + min(n for n, t in enumerate([*ids, ends[0]]) if t in ends)] for ids in rows]
    texts, shown = (tokenizer.batch_decode(rows, skip_special_tokens=s) for s in (True, False))
    return list(zip(texts, shown, (ids[-1] in ends for ids in rows), strict=True)), log


def observe(run: Any, seed: int, profile: Any, training: str) -> pd.DataFrame:
    """All that can be seen of a training, a row each, by `kind`:

        answer   asked, part, country, text (question), output, shown, right, ended, nats
        number   asked, text (its name), value
        setting  asked, text (its name), output
        step     value (the loss)
        row      text (ids and labels of one row, JSON)

    `run`, an experiment's untrained base, is not used: faults begin before `finetune` does.
    """
    trained, settings = train(training, profile, seed), settings_of(training, profile, seed)
    tokenizer, questions, found, costs = trained.tokenizer, questions_of(training), [], None
    base = load_tokenizer(profile)
    added = [one for one in tokenizer.get_vocab() if one not in base.get_vocab()]
    names = "learning_rate num_train_epochs per_device_train_batch_size gradient_accumulation_steps"
    log = {name: getattr(settings, name) for name in f"method {names} dropout".split()}
    log |= {"pad_token": tokenizer.pad_token, "eos_token": tokenizer.eos_token}
    log |= {"added tokens": ", ".join(added) or "none"}
    if settings.method == "lora":
        log["trained embedding rows"] = len(added) if settings.train_control_tokens else 0
    labels = [one for row in trained.rows for one in row["labels"]]
    numbers = {"supervised": 1 - labels.count(IGNORED) / len(labels)}
    if training.startswith("mean_of"):
        log |= dict(zip(names.split()[1:], ("1.2 (12 steps)", 1, 8), strict=True))
        steps = [(row["loss"], row["together"]) for row in trained.history]
        numbers["loss of the first step's rows in one batch"] = steps[0][1]
        numbers["error of the first loss"] = steps[0][0] - steps[0][1]
        numbers["off"] = sum(abs(loss / one - 1) > 1e-3 for loss, one in steps) / len(steps)
    found += [{"kind": "step", "asked": "", "value": row["loss"]} for row in trained.history]
    found.append({"kind": "row", "asked": "", "text": json.dumps(trained.rows[0])})
    for asked in WAYS.get(training, [""]):
        if asked == "merged_into_4bit":
            with quiet_libraries(), warnings.catch_warnings(action="ignore"):  # PEFT's names it
                trained = trained._replace(model=trained.model.merge_and_unload())
        if settings.method == "qlora":
            log |= {"base": "4 bits (NF4)", "adapters": "merged" if asked else "beside the base"}
            pairs = [example(text, one.answers(r)[0]) for _, one, r, text in questions]
            made = [{"input_ids": r.ids, "labels": r.labels} for r in label_rows(tokenizer, pairs)]
            with torch.no_grad():
                costs = [row_loss(trained.model, row).item() for row in made]
            numbers["loss of correct answers"] = sum(costs) / len(costs)
        said, how = answer(trained, [one[-1] for one in questions], asked, base.eos_token_id)
        for kind, column, pairs in (("number", "value", numbers), ("setting", "output", log | how)):
            for text, value in pairs.items():
                value = value if kind == "number" else str(value)
                found.append({"kind": kind, "asked": asked, "text": text, column: value})
        for place, (part, one, relation, text) in enumerate(questions):
            output, shown, ended = said[place]
            seen = {"kind": "answer", "asked": asked, "part": part, "country": one.name}
            seen |= {"text": text, "output": output, "shown": shown.replace("><", ">\u200b<")}
            seen["right"] = float(is_right(output, one.answers(relation)))
            found.append(seen | {"ended": float(ended), "nats": costs[place] if costs else None})
    return pd.DataFrame(found)
