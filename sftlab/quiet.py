"""The known noise of the libraries: what is silenced here, and why it is harmless.

Anything that is not on these lists reaches the learner.
"""

import logging
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Logger: how the line begins. Why the learner may miss it.
LOGGED = {
    # An optional kernel that would be fetched from the hub; the built-in one is used.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward from kernels-community",
    # Each 8-bit layer says so at each evaluation; it is how 8-bit multiplication is defined.
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast from",
    # A prompt that is longer than the model's context is counted and refused by name.
    "transformers.tokenization_utils_base": "Token indices sequence length is longer than",
    # Of two checkpoints the older is found by its number instead, which is right.
    "transformers.trainer_utils": "mtime may not be reliable on this filesystem",
    # The best weights are read back: a head that is tied to the embeddings is in no checkpoint.
    "transformers.trainer": "There were missing keys in the checkpoint model loaded: "
    "['lm_head.weight']",
}
# Module: how its warning begins. Why the learner may miss it.
WARNED = {
    # PEFT calls transformers by an old name, not the learner.
    "transformers.modeling_utils": "`is_gradient_checkpointing` is deprecated",
    # A worker that has grown is replaced by a new one; its runs are carried out all the same.
    "loky.process_executor": "A worker was restarted while some jobs were given to the executor",
}


def silence_known_lines() -> None:
    """Silence these lines in this process: some come when a library is imported or a model is
    called, which may be anywhere in a learner's code."""
    for source, opening in LOGGED.items():
        logger = logging.getLogger(source)
        if not logger.filters:
            logger.addFilter(lambda line, known=opening: not line.getMessage().startswith(known))
    for source, opening in WARNED.items():
        warnings.filterwarnings("ignore", message=re.escape(opening), module=re.escape(source))


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the known lines, progress bars of libraries, and TRL's usage report for a while.

    TRL reports each trainer to the hub unless that is switched off; the course uses no network.
    """
    import datasets
    from huggingface_hub import constants

    hidden = datasets.are_progress_bars_disabled()
    silence_known_lines()
    datasets.disable_progress_bars()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        with progress_bars(shown=False):
            yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def progress_bars(*, shown: bool) -> Iterator[None]:
    """Show or hide the bars of transformers and the hub for a while: those of loading and saving
    are over in a moment, that of a download is not."""
    from transformers.utils import logging as reports

    before = reports.is_progress_bar_enabled()
    (reports.enable_progress_bar if shown else reports.disable_progress_bar)()
    try:
        yield
    finally:
        (reports.enable_progress_bar if before else reports.disable_progress_bar)()


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Give the caller's generators (random, numpy, torch) back in the state they were in."""
    import numpy
    import torch

    python, array = random.getstate(), numpy.random.get_state()
    gpus = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    try:
        with torch.random.fork_rng(range(gpus), device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(array)
