"""TRL's trainers of preferences and rewards, to go on from a run: its options, prompts as text, and
a trainer that prints nothing."""

from collections.abc import Callable
from tempfile import gettempdir
from typing import Any

from transformers import PrinterCallback

from sftlab.quiet import quiet_libraries
from sftlab.train.run import Run
from sftlab.train.trainer import CHECKPOINTING


def trl_options(run: Run, **changes: Any) -> dict[str, Any]:
    """Arguments for `DPOConfig`, `GRPOConfig` or `SFTConfig` that go on where a run ended: its
    learning rate, its device and weights in float32, and nothing saved, reported or printed.

    `changes` are fields of these classes and take precedence. `output_dir` is the folder for
    temporary files, in which nothing is written unless `save_strategy` is changed.
    """
    return {
        "output_dir": gettempdir(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "learning_rate": run.settings.learning_rate,
        "use_cpu": run.model.device.type == "cpu",
        "bf16": False,  # TRL's default is True, and slow on most CPUs
        CHECKPOINTING: False,  # the same: it saves memory and costs time
        **changes,
    }


def quietly(trainer: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`trainer(*args, **options)`, such as `quietly(DPOTrainer, model, args=config)`, without the
    bars of data preparation, and without a line for each log: these are in `state.log_history`."""
    with quiet_libraries():
        made = trainer(*args, **options)
    made.remove_callback(PrinterCallback)
    return made


def prompt_text(run: Run, question: str) -> str:
    """A question as the text that the assistant's answer follows, in the run's chat template.

    What the tokenizer writes before any text, such as Llama's bos, is left out where the template
    writes it too: a trainer that encodes the text adds it, and it would stand there twice.
    """
    messages = [{"role": "user", "content": question}]
    how = {"tokenize": False, "add_generation_prompt": True}
    text = run.tokenizer.apply_chat_template(messages, **how)
    return text.removeprefix(run.tokenizer.decode(run.tokenizer("")["input_ids"]))
