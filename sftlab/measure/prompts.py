"""Prompts that get an answer from a base model without training it."""

from collections.abc import Sequence


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
