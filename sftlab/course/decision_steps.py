"""What to do next, for each advice of the decision guide."""

from collections.abc import Callable, Iterator

from sftlab.course.situation import Limits, Situation


def _measure(s: Situation, limits: Limits) -> Iterator[str]:
    if s.needed_score is None:
        yield "Fix the metric and the score that the task needs, before you see any result."
    if s.prompt_score is None:
        # 100 answers, exact binomial at 50%: 40% to 60%
        yield "Write 100 test questions with right answers; they tell a score to about 10 points."
        yield "Score three prompts: the bare question, clear instructions, four worked examples."
        yield "Ask each question in a second wording, and note how far the score moves."
        yield "Note tokens and seconds of an answer, and decide whether the prompt fits."
        if s.task == "format":
            yield "If a grammar or schema states the format, score constrained decoding as well."
    if s.task == "domain" and s.base_knows is None:
        yield "Let the base complete plain statements of the facts, and count the right ones."


def _prompt(s: Situation, limits: Limits) -> Iterator[str]:
    if s.stable_weeks < limits.stable_weeks:
        yield "Keep the rules that change in one block of the prompt, so one edit follows a change."
    if not s.prompt_fits:
        yield "Remove one part of the prompt at a time and score again; cache what stays the same."
    if s.prompt_score is not None and s.needed_score is not None:
        if s.prompt_score < s.needed_score:
            yield "Read the wrong answers, change one thing in the prompt, and score again."
            yield "Score the same prompt on a stronger model."
        else:
            yield "Score a second wording of each question: the prompt must hold for both."
    yield "Version the prompt with its test, and rerun the test when prompt or model changes."


def _tune(s: Situation, limits: Limits) -> Iterator[str]:
    reliable = limits.examples(s.task)[1]
    yield "Split the data 70/15/15 into train, validation and test, with no prompt in two parts."
    if s.examples < reliable:
        yield (
            f"Call it a pilot: train on half and on all. If the score still rises, collect toward "
            f"{reliable:,}."
        )
    # bytes for each weight, as in the preflight: 16 for full fine-tuning in float32 with Adam;
    # 4 for LoRA on a float32 base, and some for activations
    if s.model_billions <= limits.cpu_billions or s.memory_gb >= 16 * s.model_billions:
        method = "Train with full fine-tuning and with LoRA"
    elif s.memory_gb >= 5 * s.model_billions:
        method = "Train LoRA"
    else:
        method = "Train LoRA on a base in 4 bits (QLoRA)"
    yield f"Run the preflight for this base. {method}."
    yield "Mix in 10-20% general examples, and score old skills before and after."
    yield "Compare with the best prompt on the same test: three seeds or more, with intervals."


def _collect(s: Situation, limits: Limits) -> Iterator[str]:
    pilot, reliable = limits.examples(s.task)
    yield f"Collect {pilot - s.examples:,} more clean examples for a pilot of {pilot:,}."
    yield "Let the best prompt write drafts, and let someone who knows the task correct each one."
    yield "Remove duplicates, use one format, and keep the test questions apart."
    yield "Serve the best prompt until then."
    yield f"Plan for {reliable:,} examples if the pilot helps."


def _retrieve(s: Situation, limits: Limits) -> Iterator[str]:
    yield "Keep the facts in a table or search index that someone updates."
    yield "Score the search alone: how often it finds the right entry."
    yield "Put the entries found into the prompt, and score the answers."
    yield "If only the form of the answers is wrong then, ask this guide again with task 'format'."


def _another(s: Situation, limits: Limits) -> Iterator[str]:
    if s.task == "assistant":
        yield "Score two or three ready instruction-tuned models on your own test questions."
        yield "Read their licences, and compare the price of an answer."
        yield "Adapt the best one by prompt; ask this guide again for each narrow task that fails."
    elif s.task == "reasoning" and s.examples < limits.reliable_examples:
        yield "Score a stronger model that reasons in steps, on your own test questions."
        yield "Split the task, and let code do what can be calculated or looked up."
        yield "To fine-tune later, collect examples that show each step, not only the answer."
    else:
        largest, need = limits.largest_base(s.memory_gb), limits.memory_for(s.model_billions)
        if largest > 0:
            yield f"Score a base of at most {largest:.3g} billion parameters: it can be trained."
        yield f"Or rent a GPU with at least {need:.3g} GB for the training."
        yield "Run the preflight for the base that you choose, before you start."


STEPS: dict[str, Callable[[Situation, Limits], Iterator[str]]] = {
    "measure a prompt first": _measure,
    "prompt": _prompt,
    "fine-tune": _tune,
    "collect data first": _collect,
    "retrieve": _retrieve,
    "neither": _another,
}
"""For each advice, the steps that follow it."""
