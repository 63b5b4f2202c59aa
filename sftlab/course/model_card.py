"""The model cards of the base models: bars measured, never typed."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jinja2
import pandas as pd

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
HELD_OUT_BARS = {"tiny": 0.95, "small": 0.98}


@dataclass(frozen=True)
class Measure:
    """One measured share of a model card, and the bar it is held against."""

    what: str
    part: str
    """The relation, or all of them."""
    share: Share
    """Hits and items, over all seeds where there are several."""
    seeds: tuple[float, ...] = ()
    """The share of each SFT seed; empty where nothing was fine-tuned."""
    bar: float | None = None
    """The share to reach; None where the card only reports."""
    at_least: bool = True
    """Whether the bar is a floor or a ceiling."""

    @property
    def met(self) -> bool | None:
        """Whether the measured share meets the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.share.value >= self.bar if self.at_least else self.share.value <= self.bar


def measure_base(profile: str) -> list[Measure]:
    """What the base does untrained: cloze facts, bare questions, few-shot prompts."""
    model, tokenizer = load(profile)
    model.eval()
    known = [country for country in countries() if country.group != "unseen"]
    held_out = [country for country in known if country.split == "held_out"]
    facts = probe_facts(model, tokenizer)
    bare = probe_questions(lambda questions: complete(model, tokenizer, questions), among=known)
    found, prompted = [], []
    for relation in RELATIONS:
        right = facts.loc[facts["relation"] == relation, "right"]
        found.append(Measure("cloze facts completed", relation, share(right), bar=0.98))
        answer = behind_prompt(model, tokenizer, country_shots(SHOTS, relations=[relation]))
        right = probe_questions(answer, among=held_out, relations=[relation])["right"]
        what = f"{SHOTS}-shot prompts answered"
        prompted.append(Measure(what, relation, share(right), bar=0.90))
    for reaction, bar, floor in ((ANSWERED, 0.05, False), (CONTINUED, 0.80, True)):
        hits = share(bare["reaction"] == reaction)
        found.append(Measure(f"bare questions {reaction}", "all", hits, bar=bar, at_least=floor))
    return found + prompted


def measure_tunes(profile: str, *, seeds: tuple[int, ...] = SEEDS) -> tuple[list[Measure], dict]:
    """What the reference fine-tune makes of the base, and the same at ten times the rate.

    The reference is `EXAMPLES` questions on the countries of the split "sft". Returns the measures
    and the facts of the runs: seconds, tokens, losses.
    """
    answers, clozes, hot, seconds, losses = [], [], [], [], []
    held_out = held_out_documents()
    for seed in seeds:
        examples = country_examples(EXAMPLES, seed=seed)
        run = finetune(profile, examples, seed=seed, progress=False)
        among = countries(split="held_out")
        answers.append(probe_questions(run.answer, among=among).assign(seed=seed))
        clozes.append(probe_facts(run.model, run.tokenizer).assign(seed=seed))
        losses.append(text_loss(run.model, run.tokenizer, held_out))
        seconds.append(run.seconds)
        rate = 10 * run.settings.learning_rate
        burnt = finetune(profile, examples, seed=seed, learning_rate=rate, progress=False)
        hot.append(probe_facts(burnt.model, burnt.tokenizer).assign(seed=seed))
    answers, clozes = pd.concat(answers), pd.concat(clozes)
    found = []

    def over_seeds(what: str, part: str, rows: pd.DataFrame, **bar) -> None:
        each = tuple(float(v) for v in rows.groupby("seed")["right"].mean())
        found.append(Measure(what, part, share(rows["right"]), seeds=each, **bar))

    for group in ("asked", "stated", "unseen"):
        for relation in RELATIONS:
            rows = answers[(answers["group"] == group) & (answers["relation"] == relation)]
            bar = HELD_OUT_BARS.get(profile) if group == "asked" else None
            over_seeds(f"reference SFT, held-out countries, {group}", relation, rows, bar=bar)
    for relation in RELATIONS:
        rows = clozes[clozes["relation"] == relation]
        over_seeds("cloze facts after reference SFT", relation, rows, bar=0.97)
    what = "cloze facts after SFT at 10 times the rate"
    over_seeds(what, "all", pd.concat(hot), bar=0.50, at_least=False)
    model, tokenizer = load(profile)
    facts = {
        "seconds": [round(s, 1) for s in seconds],
        "settings": asdict(run.settings),
        "tokens": run.tokens,
        "text_loss_base": round(text_loss(model.eval(), tokenizer, held_out), 3),
        "text_loss_tuned": [round(loss, 3) for loss in losses],
    }
    return found, facts


def write_card(profile: str, folder: Path) -> list[Measure]:
    """Measure a base model and write `card.json` and the model card `README.md` next to it."""
    base = measure_base(profile)
    tuned, facts = measure_tunes(profile)
    model, _ = load(profile)
    facts["weights"] = weights_hash(folder)
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    measures = base + tuned
    if profile not in HELD_OUT_BARS:  # the early checkpoint is there to be worse
        measures = [replace(measure, bar=None) for measure in measures]
    rows = [
        asdict(m) | {"value": m.share.value, "interval": m.share.interval, "met": m.met}
        for m in measures
    ]
    text = json.dumps({"profile": profile, **facts, "measures": rows}, indent=1)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sftlab.course"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    card = environment.get_template("model_card.md.jinja").render(
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
