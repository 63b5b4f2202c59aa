"""The known noise of the libraries, line by line: what is silenced here, and why it is harmless.

Anything that is not on these lists reaches the learner.
"""

import logging
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of noise."""

    source: str
    """Name of the logger, or module that warns."""
    opening: str
    """Exact text with which the line opens."""
    why: str
    """Why the learner may miss it."""


LOGGED: tuple[Line, ...] = (
    Line(
        source="bitsandbytes.backends.cpu.ops",
        opening="Failed to load CPU gemm_4bit_forward from kernels-community",
        why="an optional kernel that would be fetched from the hub; the built-in one is used",
    ),
    Line(
        source="bitsandbytes.autograd._functions",
        opening="MatMul8bitLt: inputs will be cast from",
        why="said by each 8-bit layer at each evaluation; how 8-bit products are defined",
    ),
    Line(
        source="transformers.trainer_utils",
        opening="mtime may not be reliable on this filesystem",
        why="of two checkpoints the older is told by its number instead, which is right",
    ),
)
WHEN_IMPORTED = ("bitsandbytes.backends.cpu.ops",)
"""Loggers that speak when PEFT or TRL are imported, which may be anywhere in a learner's code."""
WARNED: tuple[Line, ...] = (
    Line(
        source="transformers.modeling_utils",
        opening="`is_gradient_checkpointing` is deprecated and will be removed in v6.",
        why="PEFT calls transformers by an old name; nothing that the learner wrote",
    ),
)
BARS: tuple[Line, ...] = (
    Line(
        source="transformers",
        opening="Loading weights",
        why="over in a moment; the download has a bar of its own, which stays",
    ),
    Line(source="transformers", opening="Writing model shards", why="over in a moment"),
)
PRINTED: tuple[Line, ...] = (
    Line(source="torch.profiler", opening="USDT:", why="it notes its own start and stop"),
)


def silence_for_good(source: str) -> None:
    """Silence the listed lines of one logger in this process, where they would come at each call of
    a model, which may be anywhere in the learner's own code."""
    for line in LOGGED:
        logger = logging.getLogger(line.source)
        if line.source == source and not any(isinstance(one, _Gone) for one in logger.filters):
            logger.addFilter(_Gone(line.opening))


class _Gone:
    def __init__(self, opening: str) -> None:
        self._opening = opening

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._opening)


@contextmanager
def known_noise_silenced() -> Iterator[None]:
    """Silence the listed lines, the bars of `datasets` and TRL's usage report for a while.

    TRL reports each trainer to the hub unless told otherwise; the course touches no network, so it
    is told otherwise. All is put back afterwards.
    """
    import datasets
    from huggingface_hub import constants

    bars, report = datasets.are_progress_bars_disabled(), constants.HF_HUB_DISABLE_TELEMETRY
    datasets.disable_progress_bars()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        with listed_noise_silenced():
            yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = report
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def listed_noise_silenced() -> Iterator[None]:
    """Silence the listed lines alone: enough to load a model, without importing `datasets`."""
    from transformers.utils import logging as reports

    filters = []
    for line in LOGGED:
        logger = logging.getLogger(line.source)
        drop = _drop(line.opening)
        logger.addFilter(drop)
        filters.append((logger, drop))
    hook = reports.set_tqdm_hook(_bar)
    try:
        with warnings.catch_warnings():
            for line in WARNED:
                warnings.filterwarnings(
                    "ignore", message=re.escape(line.opening), module=re.escape(line.source)
                )
            yield
    finally:
        reports.set_tqdm_hook(hook)
        for logger, drop in filters:
            logger.removeFilter(drop)


@contextmanager
def printed_noise_silenced() -> Iterator[None]:
    """Hold back what compiled code writes to the error stream; afterwards write what is not listed.

    Such code knows nothing of `sys.stderr`, and a notebook shows its lines in red.
    """
    with TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            for text in held.read().decode(errors="replace").splitlines(keepends=True):
                if not text.startswith(tuple(line.opening for line in PRINTED)):
                    sys.stderr.write(text)


def _drop(opening: str):
    return lambda record: not record.getMessage().startswith(opening)


def _bar(factory, arguments: tuple, options: dict):
    """The bar that transformers asks for, switched off when it is on the list."""
    listed = any(str(options.get("desc", "")).startswith(line.opening) for line in BARS)
    return factory(*arguments, **({**options, "disable": True} if listed else options))


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Give the caller's generators (random, numpy, torch) back in the state they were in."""
    import numpy
    import torch

    python, array = random.getstate(), numpy.random.get_state()
    cards = torch.cuda.is_available() and torch.cuda.is_initialized()
    tensor = torch.get_rng_state()
    card = torch.cuda.get_rng_state_all() if cards else []
    try:
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(array)
        torch.set_rng_state(tensor)
        if cards:
            torch.cuda.set_rng_state_all(card)
