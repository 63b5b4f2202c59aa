"""Ask a fine-tuned model in a template of one's choice: its own, another family's, or a spoilt one.

trained in   <|start_header_id|>assistant<|end_header_id|>\\n\\n
asked in     [INST] question[/INST]            what does the model do with that?
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from sftlab.chat import Template, find_template
from sftlab.measure.generation import generate
from sftlab.measure.probes import probe_questions
from sftlab.world import RELATIONS, Country

if TYPE_CHECKING:  # imported where used: a lesson that reads its results back needs neither
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Trained(Protocol):
    """What is needed of a run."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def render_questions(
    run: Trained,
    questions: Sequence[str],
    *,
    template: str | Template | None = None,
    generation_prompt: bool = True,
    change: Callable[[str], str] = str,
) -> list[str]:
    """The prompt for each question, as text.

    Args:
        run: whose special tokens the template writes.
        questions: what a user asks, each alone.
        template: whatever `find_template` knows; None is the one that the run was trained in.
        generation_prompt: whether the prompt ends with the header of the answer.
        change: applied to each prompt, to try what a slip in it costs.
    """
    found = find_template(template, tokenizer=run.tokenizer)
    return [
        change(
            found.render(
                [{"role": "user", "content": question}], add_generation_prompt=generation_prompt
            )
        )
        for question in questions
    ]


def reply(
    run: Trained,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 12,
    sample: bool = False,
    seed: int = 0,
) -> tuple[list[str], list[bool]]:
    """What the model writes behind each prompt, special tokens shown, and whether it stopped.

    The token at which it stopped is left out. A prompt is tokenized as it is: what begins a
    document has to stand in it. Greedy, unless `sample` draws from `seed`.
    """
    ids = [run.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    new = generate(
        run.model, ids, pad=run.tokenizer.pad_token_id, max_new_tokens=max_new_tokens,
        sample=sample, seed=seed,
    )  # fmt: skip
    return [run.tokenizer.decode(one) for one in new], [len(one) < max_new_tokens for one in new]


def probe_template(
    run: Trained,
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    template: str | Template | None = None,
    generation_prompt: bool = True,
    change: Callable[[str], str] = str,
    max_new_tokens: int = 12,
    sample: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """The questions of `probe_questions`, asked in a template; arguments as for the two above.

    Rows as there, with the special tokens in `output` shown, and
        stopped: whether the model ended its turn within `max_new_tokens`;
        clean: whether the output is a right answer and nothing else, and stopped.
    """
    stopped: list[bool] = []

    def ask(questions: list[str]) -> list[str]:
        prompts = render_questions(
            run, questions, template=template, generation_prompt=generation_prompt, change=change
        )
        outputs, ends = reply(run, prompts, max_new_tokens=max_new_tokens, sample=sample, seed=seed)
        stopped.extend(ends)
        return outputs

    frame = probe_questions(ask, among=among, relations=relations).assign(stopped=stopped)
    clean = [
        stop and output.strip() in answers
        for stop, output, answers in zip(
            frame["stopped"], frame["output"], frame["answers"], strict=True
        )
    ]
    return frame.assign(clean=clean)
