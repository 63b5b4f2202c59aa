"""The model cards of the base models: bars measured, never typed."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from sftlab.course.pages import TEMPLATES
from sftlab.measure import (
    ANSWERED,
    CONTINUED,
    Share,
    behind_prompt,
    complete,
    probe_facts,
    probe_questions,
    share,
    text_loss,
)
from sftlab.models import load, weights_hash
from sftlab.train import finetune
from sftlab.world import (
    RELATIONS,
    countries,
    country_examples,
    country_shots,
    grammar,
    held_out_documents,
)

EXAMPLES = 600
SEEDS = (0, 1, 2, 3, 4)
SHOTS = 4
DEED_STEP = 43  # every 43rd of the 10,368 requests of the grammar
HELD_OUT_BARS = {"tiny": 0.95, "small": 0.98}


@dataclass(frozen=True)
class Measure:
    """One measured share of a model card, and the bar it is held against."""

    what: str
    part: str  # the relation, or all of them
    share: Share  # hits and items, over all seeds where there are several
    seeds: tuple[float, ...] = ()  # the share of each SFT seed; empty where nothing was fine-tuned
    bar: float | None = None  # the share to reach; None where the card only reports
    at_least: bool = True  # whether the bar is a floor or a ceiling

    @property
    def met(self) -> bool | None:
        """Whether the measured share meets the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.share.value >= self.bar if self.at_least else self.share.value <= self.bar


def measure_base(profile: str) -> list[Measure]:
    """What the base does untrained: cloze facts, zero-shot questions, few-shot prompts."""
    model, tokenizer = load(profile)
    model.eval()
    known = [country for country in countries() if country.group != "unseen"]
    held_out = [country for country in known if country.split == "held_out"]
    facts = probe_facts(model, tokenizer)
    reactions = probe_questions(
        lambda questions: complete(model, tokenizer, questions), among=known
    )["reaction"]
    found, prompted = [], []
    for relation in RELATIONS:
        right = facts.loc[facts["relation"] == relation, "right"]
        found.append(Measure("cloze facts completed", relation, share(right), bar=0.98))
        answer = behind_prompt(model, tokenizer, country_shots(SHOTS, relations=[relation]))
        right = probe_questions(answer, among=held_out, relations=[relation])["right"]
        what = f"{SHOTS}-shot prompts answered"
        prompted.append(Measure(what, relation, share(right), bar=0.90))
    for reaction, bar, floor in ((ANSWERED, 0.05, False), (CONTINUED, 0.80, True)):
        hits = share(reactions == reaction)
        found.append(
            Measure(f"zero-shot questions {reaction}", "all", hits, bar=bar, at_least=floor)
        )
    requests = pd.DataFrame(grammar.deeds()[::DEED_STEP])
    answer = behind_prompt(model, tokenizer, [], max_new_tokens=48)
    requests["right"] = answer([*requests["request"]]) == requests["answer"]
    for kind, rows in requests.groupby("kind"):
        what = "requests answered word for word after `Q: ... A:`"
        prompted.append(Measure(what, kind, share(rows["right"]), bar=0.90))
    return found + prompted


def measure_tunes(profile: str, *, seeds: tuple[int, ...] = SEEDS) -> tuple[list[Measure], dict]:
    """What the reference fine-tune makes of the base, and the same at ten times the rate.

    The reference is `EXAMPLES` questions on the countries of the split "sft". Returns the measures
    and the facts of the runs: seconds, tokens, losses.
    """
    held_out = held_out_documents()
    model, tokenizer = load(profile)
    base_loss = text_loss(model.eval(), tokenizer, held_out)
    answers, clozes, hot, seconds, losses = [], [], [], [], []
    for seed in seeds:
        examples = country_examples(EXAMPLES, seed=seed)
        run = finetune(profile, examples, seed=seed, progress=False)
        questions = probe_questions(run.answer, among=countries(split="held_out"))
        answers.append(questions.assign(seed=seed))
        clozes.append(probe_facts(run.model, run.tokenizer).assign(seed=seed))
        losses.append(text_loss(run.model, run.tokenizer, held_out))
        seconds.append(run.seconds)
        rate = 10 * run.settings.learning_rate
        burnt = finetune(profile, examples, seed=seed, learning_rate=rate, progress=False)
        hot.append(probe_facts(burnt.model, burnt.tokenizer).assign(seed=seed))
    answers, clozes, hot = map(pd.concat, (answers, clozes, hot))

    def measure(what: str, part: str, rows: pd.DataFrame, **bar) -> Measure:
        each = tuple(float(v) for v in rows.groupby("seed")["right"].mean())
        return Measure(what, part, share(rows["right"]), seeds=each, **bar)

    found = []
    for group, bar in (("asked", HELD_OUT_BARS.get(profile)), ("stated", None), ("unseen", None)):
        what, rows = f"reference SFT, held-out countries, {group}", answers[answers.group == group]
        found += [measure(what, one, rows[rows.relation == one], bar=bar) for one in RELATIONS]
    what = "cloze facts after reference SFT"
    found += [measure(what, one, clozes[clozes.relation == one], bar=0.97) for one in RELATIONS]
    what = "cloze facts after SFT at 10 times the rate"
    found.append(measure(what, "all", hot, bar=0.50, at_least=False))
    return found, {
        "seconds": [round(s, 1) for s in seconds],
        "settings": asdict(run.settings),
        "tokens": run.tokens,
        "text_loss_base": round(base_loss, 3),
        "text_loss_tuned": [round(loss, 3) for loss in losses],
    }


def write_card(profile: str, folder: Path) -> list[Measure]:
    """Measure a base model and write `card.json` and the model card `README.md` next to it."""
    base = measure_base(profile)
    tuned, facts = measure_tunes(profile)
    model, _ = load(profile)
    facts |= {"weights": weights_hash(folder), "parameters": model.num_parameters()}
    measures = base + tuned
    if profile not in HELD_OUT_BARS:  # the early checkpoint is there to be worse
        measures = [replace(measure, bar=None) for measure in measures]
    rows = [
        asdict(m) | {"value": m.share.value, "interval": m.share.interval, "met": m.met}
        for m in measures
    ]
    text = json.dumps({"profile": profile, **facts, "measures": rows}, indent=1, allow_nan=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    card = TEMPLATES.get_template("model_card.md.jinja").render(
        profile=profile,
        measures=measures,
        facts=facts,
        log=json.loads((folder / "training_log.json").read_text(encoding="utf-8")),
        examples=EXAMPLES,
        last_seed=len(SEEDS) - 1,
        sft_countries=len(countries(split="sft")),
        question=grammar.QUESTIONS["capital"]["test"][0],
        span=lambda values, digits: f"{min(values):.{digits}f} to {max(values):.{digits}f}",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return measures
