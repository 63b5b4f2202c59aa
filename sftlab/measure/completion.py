"""Getting text out of a model: plain completion, and answers behind a few-shot prompt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sftlab.measure.generation import generate

if TYPE_CHECKING:  # imported where used: a lesson that reads its results back needs none of them
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def complete(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 24,
    batch_size: int = 128,
    stop: Sequence[str] = (),
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Continue each prompt as plain text, greedily or sampled; only the new text comes back.

    A prompt stands at the start of a document: the tokenizer's BOS goes in front when there is
    one and the tokenizer does not write it itself. The text ends before the first of `stop`, at
    the end of the document, or after `max_new_tokens`. Sampling draws from `seed` and leaves the
    caller's random state alone.
    """
    texts = _continued(
        model, tokenizer, prompts, ended=lambda text: any(one in text for one in stop),
        max_new_tokens=max_new_tokens, batch_size=batch_size, sample=sample,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    return [_before(text, stop) for text in texts]


def _continued(model, tokenizer, prompts, *, ended: Callable[[str], bool], **options) -> list[str]:
    """What follows each prompt, at least up to where `ended` is true of it."""
    pad = tokenizer.pad_token_id
    new = generate(
        model,
        [with_bos(tokenizer, prompt) for prompt in prompts],
        pad=0 if pad is None else pad,
        ended=lambda ids: ended(tokenizer.decode(ids, skip_special_tokens=True)),
        **options,
    )
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in new]


def with_bos(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """Ids of a text at the start of a document: BOS in front, once, where there is one."""
    ids = tokenizer(prompt)["input_ids"]
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def _before(text: str, stop: Sequence[str]) -> str:
    return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]


def few_shot(
    shots: Sequence[tuple[str, str]], question: str, *, form: str = "Q: {q}\nA: {a}"
) -> str:
    """Answered questions, then the one to answer, cut where its answer begins.

        Q: shot question
        A: shot answer
                               (blank line)
        Q: question
        A:

    `form` holds `{q}` and then `{a}`. The prompt ends without a space: byte-level tokenizers
    put the space into the first token of the answer. Raises ValueError for another form.
    """
    if "{q}" not in form or not form.endswith("{a}"):
        raise ValueError(f"form {form!r} must hold {{q}} and end with {{a}}")
    blocks = [form.format(q=q, a=a) for q, a in shots]
    return "\n\n".join([*blocks, form.format(q=question, a="").rstrip(" ")])


def behind_prompt(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[tuple[str, str]],
    *,
    form: str = "Q: {q}\nA: {a}",
    ending: str = "",
    max_new_tokens: int = 10,
) -> Callable[[list[str]], list[str]]:
    """A function from questions to the first line that follows a few-shot prompt with each.

    `ending` is appended to the prompt: it shows what a stray character at its end does.
    """

    def ask(questions: list[str]) -> list[str]:
        prompts = [few_shot(shots, question, form=form) + ending for question in questions]
        # A model that writes a line end first has its answer on the next line.
        outputs = _continued(
            model, tokenizer, prompts, ended=lambda text: "\n" in text.lstrip(),
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
        return [output.strip().split("\n")[0] for output in outputs]

    return ask
