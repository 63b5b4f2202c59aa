"""The rules of the decision guide, in the order in which they are asked.

Each has a check that says whether the rule applies, and one sentence for the learner: why it does,
or why it was passed over. The sources are articles P (000), U (001) and V (004).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sftlab.course.situation import Limits, Situation

Choice = Literal[
    "measure a prompt first", "prompt", "fine-tune", "collect data first", "retrieve", "neither"
]
CHOICES: dict[str, str] = {
    "measure a prompt first": "A number is missing. Measure it before you choose.",
    "prompt": "Work on the prompt. Train nothing.",
    "fine-tune": "Fine-tune, and compare with the best prompt on the same test.",
    "collect data first": "Fine-tuning fits the task, but there are too few clean examples.",
    "retrieve": "Look the facts up and put them into the prompt. Training does not add them.",
    "neither": "Change the model before you prompt or train this one.",
}
Finding = tuple[bool, str]


def _facts(s: Situation, limits: Limits) -> Finding:
    if s.task != "facts":
        return False, ""
    return True, "task is 'facts': weights keep what was true on the day of training."


def _prompt(s: Situation, limits: Limits) -> Finding:
    if s.prompt_score is None or s.needed_score is None:
        return False, ""
    scores = f"prompt_score is {s.prompt_score:g} and needed_score is {s.needed_score:g}: "
    if not s.prompt_is_enough:
        short = s.needed_score - s.prompt_score
        return False, f"{scores}the best prompt falls short by {short:.2g}."
    if not s.prompt_fits:
        return False, f"{scores}good enough, but prompt_fits is no: the prompt costs too much."
    return True, f"{scores}good enough, and prompt_fits is yes: training would gain nothing."


def _assistant(s: Situation, limits: Limits) -> Finding:
    if s.task != "assistant":
        return False, ""
    return True, "task is 'assistant': ready instruction-tuned models saw far broader data."


def _missing(s: Situation, limits: Limits) -> Finding:
    if s.task != "domain" or s.base_knows is None:
        return False, ""
    if s.base_knows:
        return False, "base_knows is yes: fine-tuning can bring out what the base already holds."
    return True, "base_knows is no: fine-tuning teaches how to answer, it does not add the facts."


def _unmeasured(s: Situation, limits: Limits) -> Finding:
    empty = [f for f in ("prompt_score", "needed_score") if getattr(s, f) is None]
    if s.task == "domain" and s.base_knows is None:
        empty.append("base_knows")
    if not empty:
        return False, ""
    are, them = ("is", "it") if len(empty) == 1 else ("are", "them")
    return True, f"{' and '.join(empty)} {are} still open: the later rules need {them}."


def _changing(s: Situation, limits: Limits) -> Finding:
    known = f"stable_weeks is {s.stable_weeks:g}"
    if s.stable_weeks < limits.stable_weeks:
        least = f"{limits.stable_weeks:g}"
        return True, f"{known}, under {least}: the task changes before a fine-tune has paid."
    return False, f"{known}: the task holds still long enough to train for it."


def _unworked(s: Situation, limits: Limits) -> Finding:
    if s.task != "reasoning" or s.prompt_is_enough:
        return False, ""
    known, least = f"task is 'reasoning' and examples is {s.examples:,}", limits.examples(s.task)[1]
    if s.examples < least:
        return True, f"{known}, under {least:,}: too few worked examples to teach the steps."
    return False, f"{known}: there are enough worked examples."


def _too_large(s: Situation, limits: Limits) -> Finding:
    if s.model_billions <= limits.cpu_billions:
        return False, f"model_billions is {s.model_billions:g}: so small a base trains on a CPU."
    known = f"model_billions is {s.model_billions:g} and memory_gb is {s.memory_gb:g}"
    need = f"{limits.memory_for(s.model_billions):.3g} GB"
    if limits.fits(s):
        return False, f"{known}: training needs about {need}, so it fits."
    return True, f"{known}: training needs about {need} even with the base in 4 bits."


def _few(s: Situation, limits: Limits) -> Finding:
    pilot, reliable = limits.examples(s.task)
    known = f"examples is {s.examples:,}"
    if s.examples < pilot:
        return True, f"{known}, under {pilot:,}: so few teach their own faults along with the task."
    if s.examples < reliable:
        return False, f"{known}, under {reliable:,}: enough for a pilot, with weak results likely."
    return False, f"{known}: enough to expect a reliable result."


def _otherwise(s: Situation, limits: Limits) -> Finding:
    return True, ""  # the sentences of the rules passed over are the reasons


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules."""

    condition: str
    """When it applies; names in braces are fields of `Limits`."""
    choice: Choice
    """What it advises."""
    because: str
    """Why."""
    source: str
    """The articles it follows, or `course`."""
    check: Callable[[Situation, Limits], Finding]
    """Says whether it applies, and the sentence for the learner (empty: nothing to say)."""


RULES: tuple[Rule, ...] = (
    Rule("the task is to state facts that change", "retrieve",
         "weights keep the state of the training day", "P (stale data), V", _facts),
    Rule("prompt_score reaches needed_score, and prompt_fits", "prompt",
         "training would add work and gain nothing", "V, U", _prompt),
    Rule("the task is an open general assistant", "neither",
         "ready models had far more and broader data", "P", _assistant),
    Rule("a domain task, and the base does not know its facts", "retrieve",
         "fine-tuning teaches behaviour, not knowledge", "V, claim B5", _missing),
    Rule("a score is open, or base_knows for a domain", "measure a prompt first",
         "prompting is the cheaper rival", "V, U", _unmeasured),
    Rule("the task changes within {stable_weeks:g} weeks", "prompt",
         "a prompt is changed in minutes", "V", _changing),
    Rule("reasoning falls short, with under {reliable_examples:,} worked examples", "neither",
         "answers alone do not teach the steps", "P, claim B9", _unworked),
    Rule("the base is over {cpu_billions:g} billion and lacks {gb_per_billion:g} GB a billion",
         "neither", "training would not start", "P, course", _too_large),
    Rule("under {pilot_examples:,} clean examples (format: {format_pilot_examples:,})",
         "collect data first", "little or poor data can make the model worse", "P, U, V", _few),
    Rule("none of these", "fine-tune", "all that fine-tuning needs is there", "P, U, V",
         _otherwise),
)  # fmt: skip
