"""The bug zoo: broken fine-tunes to diagnose from what one sees at work.

    zoo = Zoo("tiny", seeds=3)
    zoo.faults()                                             the names to choose from
    zoo.show(3)                                              a specimen's exhibits
    zoo.diagnose(3, fault="wrong_eos", evidence="samples")   what speaks for and against it
    zoo.without_fault(3)                                     the same run without it

A message about a guess is made of what that fault would show (zoo.toml) and of what its exhibit
shows here, which is read off the run: so it is true of any profile, and names no other fault.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
from markupsafe import Markup

from sftlab.chat import IGNORED, setup_tokenizer
from sftlab.exercises.definitions import marked
from sftlab.exercises.progress import record_attempt
from sftlab.exercises.specimens import examples_of, observe, questions_of, settings_of
from sftlab.measure import Estimate, difference, percent
from sftlab.models import load_tokenizer
from sftlab.show import Card, plot_loss, show_mask
from sftlab.sweeps import Experiment

_TEXTS = tomllib.loads(Path(__file__).with_name("zoo.toml").read_text(encoding="utf-8"))
FAULTS, SPECIMENS, EVIDENCE = _TEXTS["fault"], _TEXTS["specimen"], _TEXTS["evidence"]


class ZooError(ValueError):
    """A specimen, fault or exhibit that there is not, or one that can't be trained."""


class Zoo:
    """The specimens, trained on a profile when they are first looked at, and kept.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        seeds: how many (then 0, 1, ...), or which; exhibits are those of the first.
        jobs: processes that train at once, as for `Experiment.run`.
    """

    def __init__(self, profile: Any = "tiny", *, seeds: Any = 3, jobs: int | None = None) -> None:
        self.profile, self.jobs = profile, jobs
        self.seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        self._frames: dict[str, pd.DataFrame] = {}

    def faults(self) -> Card:
        """The names that `diagnose` takes."""
        rows = [[name, fault["what"]] for name, fault in FAULTS.items()]
        return _table(["fault", "what it is"], rows, rows, label="Faults")

    def show(self, number: int) -> Card:
        """The exhibits of a specimen; their names are those of the evidence."""
        rows, lines = [], []
        for name in EVIDENCE:
            picture, text = self._exhibit(number, name)
            lines.append([name, text])
            rows.append([name, picture + Markup("<br>").join(map(marked, text.split("; ")))])
        return _table(["evidence", "what it shows"], rows, lines, label=f"Specimen {number}")

    def diagnose(self, number: int, *, fault: Any = ..., evidence: Any = ...) -> Card:
        """What speaks for and against a guess; `...` is none. ZooError: an unknown name."""
        one = _specimen(number)
        if fault is ... or evidence is ...:
            return _message(number, "not attempted", ["Give `fault` and `evidence` a name each."])
        guess, kind = FAULTS[_known(fault, FAULTS, "fault")], "misconception"
        _known(evidence, EVIDENCE, "evidence")
        here = "; ".join(self._exhibit(number, e, guess.get("keys"))[1] for e in guess["look"])
        looks = " and ".join(f"**{name}**" for name in guess["look"])
        lines = [f"Right: {guess['what']}."]
        if fault != one["fault"]:
            lines = [f"It is not `{fault}`. If {guess['what']}, {guess['signs']}"]
            lines.append(f"Look again at {looks}: {here}.")
        elif evidence not in one["evidence"]:
            with_it, without = (self._exhibit(number, evidence, fault=f)[1] for f in (True, False))
            both = f"does not show the cause. With the fault: {with_it}. Without it: {without}."
            both = "looks the same without the fault." if with_it == without else both
            lines.append(f"But **{evidence}** {both} Which exhibit shows the cause?")
        else:
            kind = "right"
            lines.append(f"This is seen in {looks}: {here}.")
        wrong = fault != one["fault"]
        verdict = kind if wrong or kind == "right" else "wrong evidence"
        record_attempt(f"zoo-{number}", verdict, fault if wrong else "")
        return _message(number, kind, lines)

    def without_fault(self, number: int) -> Card:
        """The same run without its fault, paired by seed, and the cure; folded in HTML."""
        one, effect = _specimen(number), self.effect(number)
        means = [self.values(number, fault=f)[one["measure"]].mean() for f in (True, False)]
        both = [f"{n:.2f}" if one["measure"] == "nats" else percent(n) for n in means]
        lines = [f"The fault is `{one['fault']}`: {FAULTS[one['fault']]['what']}."]
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        apart = f"is {effect}"
        if one.get("each_seed"):
            by_seed = (f"{100 * value:+.0f}" for value in effect.by_seed)
            apart = f"is {' and '.join(by_seed)} points by seed"
        lines.append(
            f"Over {seeds} {_TEXTS['measure'][one['measure']]} is {both[0]} with the fault "
            f"and {both[1]} without it; the difference {apart}."
        )
        if not shows(number, effect):
            lines.append("This is **not** enough to show the symptom on this profile.")
        lines.append(f"The evidence is in **{'** or **'.join(one['evidence'])}**. {one['cure']}")
        body = Markup("").join(Markup("<p>{}</p>").format(marked(line)) for line in lines)
        folded = [("The fault, and the same run without it", body)]
        return _message(number, "solution", [], text=lines, folded=folded)

    def effect(self, number: int, *, switched_off: bool = False) -> Estimate:
        """The measure with the fault minus that without it, paired by seed; `switched_off`: without
        it in both places."""
        first, second = (self.values(number, fault=f) for f in (not switched_off, False))
        entity = "country" if "country" in first else None
        return difference(first, second, value=_specimen(number)["measure"], entity=entity)

    def values(self, number: int, *, fault: bool) -> pd.DataFrame:
        """The specimen's measure: a row an answer, or a row a seed."""
        rows, measure = self._rows(number, fault=fault), _specimen(number)["measure"]
        if measure in ("supervised", "off"):
            rows = rows[rows["text"] == measure][["seed", "value"]]
            return rows.set_axis(["seed", measure], axis=1)
        part, column = ("validation", "right") if measure == "validation" else ("new", measure)
        rows = rows[rows["part"] == part]
        return rows.assign(**{measure: rows[column].astype(float)})

    def _rows(self, number: int, *, fault: bool = True) -> pd.DataFrame:
        """What `observe` saw of the specimen, and of no other way to ask its model."""
        one = _specimen(number)
        arms = {name: {"training": name} for name, _ in (one["with"], one["without"])}
        if todo := {name: arm for name, arm in arms.items() if name not in self._frames}:
            how = {"measure": {"seen": observe}, "seeds": self.seeds}
            done = Experiment(self.profile, **how).run(todo, jobs=self.jobs, progress=False)
            if len(failed := done.frame["error"].dropna()):
                raise ZooError(f"specimen {number} can't be trained here: {failed.iloc[0]}")
            self._frames |= {name: done[name] for name in todo}
        training, asked = one["with" if fault else "without"]
        frame = self._frames[training]
        return frame[frame["kind"].isin(["step", "row"]) | (frame["asked"] == asked)]

    def _exhibit(
        self, number: int, name: str, keys: Sequence[str] | None = None, *, fault: bool = True
    ) -> tuple[Markup, str]:
        """An exhibit of the first seed: a picture or examples, and what can be read there; of the
        settings those of some `keys`."""
        seed, (training, _) = self.seeds[0], _specimen(number)["with" if fault else "without"]
        rows = self._rows(number, fault=fault)
        rows = rows[rows["seed"] == seed]
        of = {kind: rows[rows["kind"] == kind] for kind in rows["kind"].unique()}
        parts, examples = of["answer"].groupby("part", sort=False), examples_of(training, seed)
        match name:
            case "loss":
                losses = of["step"]["value"].tolist()
                last = losses[-max(1, len(losses) // 10) :]
                history = [{"step": step, "loss": one} for step, one in enumerate(losses, 1)]
                wide = '<img style="display:block;width:34em;max-width:100%" '
                picture = plot_loss(history, title=f"Loss of specimen {number}").html
                read = f"loss {losses[0]:.2f} at the first step, {sum(last) / len(last):.2f} at the"
                return Markup(picture.replace("<img ", wide)), f"{read} end"
            case "samples" | "scores":
                lines = []
                for row in parts.head(4).itertuples() if name == "samples" else ():
                    end = "" if row.ended else " [cut here: it did not end]"
                    lines.append(f"{row.text} → {row.shown}{end}".replace("\n", " ⏎ "))
                said = [
                    f"{part} questions: {percent(answers['right'].mean())} of the answers are "
                    f"correct, {percent(answers['ended'].mean())} end by themselves"
                    for part, answers in parts
                ]
                for row in of["number"].itertuples() if name == "scores" else ():
                    if row.text not in ("supervised", "off"):
                        said.append(f"{row.text}: {row.value:.3f}")
                return Markup("<br>").join([*lines, ""]), "; ".join(said)
            case "mask":
                row = json.loads(of["row"]["text"].iloc[0])
                labels, tokenizer = row["labels"], load_tokenizer(self.profile)
                setup_tokenizer(tokenizer, template=settings_of(training, self.profile).template)
                how = {"labels": labels, "max_length": len(labels), "tokenizer": tokenizer}
                learned = [n for n, label in enumerate(labels) if label != IGNORED]
                last = max(learned) if learned else 0
                read = f"{len(learned)} of {len(labels)} tokens have a label, from position "
                both = [tokenizer.decode(ids[last]) for ids in (labels, row["input_ids"])]
                read += f"{min(learned, default=0)} to {last}; the label of position {last} is "
                read += "`{}`, its token is `{}`".format(*both).replace("\n", "⏎")
                xray = replace(show_mask(examples[0], **how), warnings=())  # which name the fault
                return Markup(xray.html), read
            case "settings":
                log = dict(zip(of["setting"]["text"], of["setting"]["output"], strict=True))
                return Markup(), "; ".join(f"{key}: `{log.get(key, '-')}`" for key in keys or log)
        texts = [" → ".join(one["content"] for one in row["messages"]) for row in examples]
        asked = [one for one in questions_of(training) if one[0] == "validation"]
        lines = [*Random(1).sample(texts, 5), *(f"validation: {text}" for *_, text in asked[::12])]
        read = f"{len(texts)} training rows, {len(set(texts))} of them different"
        about = {country.name for _, country, *_ in asked}
        both = sum(any(name in text for text in texts) for name in about)
        read += f"; validation questions are about {len(about)} countries; {both} of them in rows"
        return Markup("<br>").join([*lines, ""]), read


def shows(number: int, effect: Estimate) -> bool:
    """Whether the effect lies beyond the specimen's bound and its interval excludes zero; under the
    rule `each_seed`, whether that of every seed lies beyond it."""
    one = _specimen(number)
    sign = 1 if one["bound"] > 0 else -1
    if one.get("each_seed"):
        return all(sign * value > abs(one["bound"]) for value in effect.by_seed)
    near = min(sign * effect.low, sign * effect.high)
    return sign * effect.value > abs(one["bound"]) and near > 0


def _specimen(number: int) -> Mapping[str, Any]:
    if number not in range(1, len(SPECIMENS) + 1):
        raise ZooError(f"there is no specimen {number!r}; they are 1 to {len(SPECIMENS)}")
    return SPECIMENS[number - 1]


def _known(name: Any, known: Mapping[str, Any], what: str) -> str:
    if name not in known:
        near = get_close_matches(str(name), known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
        raise ZooError(f"{what} is {name!r}, which is none of the table's names; {hint}")
    return name


def _table(head: list[str], rows: list[list], plain: list[list], *, label: str) -> Card:
    text = "\n".join(": ".join(row) for row in plain)
    return Card("table.html", text=text, head=head, rows=rows, label=label)


def _message(number: int, kind: str, lines: list[str], *, text=(), folded=()) -> Card:
    """A message; `text` is what plain text has where HTML folds it."""
    title = f"Specimen {number}"
    shown = {"title": title, "kind": kind, "lines": [marked(line) for line in lines]}
    said = "\n".join([f"{title}: {kind}", *lines, *text])
    return Card("exercise.html", text=said, code="", folded=folded, **shown)
