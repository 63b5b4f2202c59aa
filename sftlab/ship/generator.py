"""One thread that writes answers, one after another, and passes on each token as it comes.

    event loop        submit -> queue                 <- pieces of text <-
    generating thread           model.generate ... after each token: Answer.__call__

A model that computes on all cores gains nothing from a second answer at the same time, so requests
wait; servers for GPUs (vLLM) put the tokens of many answers into one batch instead.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import torch
from transformers import StoppingCriteria

from sftlab.chat import control_tokens
from sftlab.data import read_row
from sftlab.ship.openai_api import ApiError, ChatRequest
from sftlab.train import Run

_BROKEN = "\ufffd"
"""What bytes are decoded to that are not yet a whole character."""
_log = logging.getLogger(__name__)


def certain_text(text: str, stop: Sequence[str] = (), *, ended: bool) -> tuple[str, bool]:
    """What of the text so far may be sent, since no later token can change it, and whether one of
    the stop strings is in it.

    A character of several bytes may be spread over tokens, and a stop string too. So a text that
    has not `ended` is sent without a character that is not yet whole, and without a tail with which
    a stop string begins: of "Paris.\\nQ" with the stop string "\\nQ:" "Paris." is certain. Of
    several stop strings the first that is complete counts, and of those the longest.
    """
    if found := [(text.index(one) + len(one), -len(one)) for one in stop if one in text]:
        return text[: sum(min(found))], True
    if ended:
        return text, False
    text = text.rstrip(_BROKEN)
    tails = (n for one in stop for n in range(1, len(one)) if text.endswith(one[:n]))
    return text[: len(text) - max(tails, default=0)], False


class Answer(StoppingCriteria):
    """One answer: `async for piece in answer` gives its text as it is written.

    It is a stopping criterion because `model.generate` calls those after each token: that is where
    text is passed on, and where the writing ends at a stop string or when the client has gone.
    """

    def __init__(
        self,
        run: Run,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,  # at 0 the likeliest token is taken
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.prompt, self.ids, self.finish_reason = prompt, [], "length"
        self.submitted, self.first, self.last = time.perf_counter(), 0.0, 0.0  # seconds
        self.cancelled = False
        self._run, self._stop, self._most, self._seed = run, stop, max_new_tokens, seed
        drawing = {"temperature": temperature, "top_p": top_p, "top_k": 0}
        # Below 1e-5 logits would overflow, and vLLM takes the likeliest token, too.
        sample = temperature >= 1e-5
        self._drawing = {"do_sample": True, **drawing} if sample else {"do_sample": False}
        self.future: Future | None = None  # when it is in the queue
        self._sent, self._pieces, self._loop = 0, asyncio.Queue(), asyncio.get_running_loop()

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt, and of the answer with what ended it."""
        return len(self.prompt), len(self.ids)

    def write(self) -> None:
        """Generate, in the generating thread: what `Run.answer` gives for the same settings."""
        model = self._run.model
        ids = torch.tensor([self.prompt], device=model.device)
        gpus = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.inference_mode():
            torch.manual_seed(self._seed)
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=self._run.tokenizer.pad_token_id,
                max_new_tokens=self._most,
                stopping_criteria=[self],
                **self._drawing,
            )
        self._pass_on(ended=True)

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """Look at the token that has just been written; true when it is to be the last."""
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.ids = input_ids[0, len(self.prompt) :].tolist()
        stopped = self._pass_on(ended=False)
        return torch.tensor([self.cancelled or stopped], device=input_ids.device)

    def _pass_on(self, *, ended: bool) -> bool:
        said = self.ids[:-1] if self.ids[-1] in self._run.stop_ids else self.ids
        # All of it each time: a token's text may depend on those before it.
        text, stopped = certain_text(self._run.texts([said])[0], self._stop, ended=ended)
        if stopped or len(said) < len(self.ids):
            self.finish_reason = "stop"
        if len(text) > self._sent:
            self.hand_over(text[self._sent :])
            self._sent = len(text)
        return stopped

    def hand_over(self, piece: str | BaseException | None) -> None:
        """Give the reader a piece, or the end: None, or the error that ended the writing."""
        with suppress(RuntimeError):  # the server has ended, and its loop is closed
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def __aiter__(self) -> AsyncIterator[str]:
        while isinstance(piece := await self._pieces.get(), str):
            yield piece
        if piece is not None:
            raise ApiError(500, "model_error", "the model failed; the server's log says how")
        if self.cancelled:  # the reader is still there, so it was not the reader who left
            raise ApiError(503, "shutting_down", "the server ends; the answer is not whole")


class Generator:
    """The queue and its thread, of one event loop.

    `most_waiting` requests wait while one is answered. `finished` is called with each answer that
    was accepted, and the error that ended it, if one did.
    """

    def __init__(
        self,
        run: Run,
        *,
        most_waiting: int,
        finished: Callable[[Answer, BaseException | None], None],
    ) -> None:
        self._run, self._most, self._finished = run, most_waiting, finished
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")
        self._unfinished: set[Answer] = set()
        # A first call undoes the truncation and padding of training; later ones then change
        # nothing, and the tokenizer can encode in one thread while it decodes in another.
        run.prompt_ids([{"role": "user", "content": "Hi"}])

    def __len__(self) -> int:
        """Requests that wait or are being answered."""
        return len(self._unfinished)

    async def prepare(self, asked: ChatRequest) -> Answer:
        """The answer to a request, not yet begun; an ApiError when the run can't read it."""
        messages = [message.model_dump() for message in asked.messages]
        # Otherwise a user could write <|im_end|> and go on as the system.
        control = control_tokens(self._run.settings.template)
        row = read_row({"messages": messages}, answered=False, control=control)
        if row.problems:
            raise ApiError(400, "invalid_messages", str(row.problems[0]), param="messages")
        try:
            prompt = await asyncio.to_thread(self._run.prompt_ids, row.messages)
        except ValueError as error:  # a template without a place for a system message
            raise ApiError(400, "invalid_messages", str(error), param="messages") from error
        positions = self._run.context_length
        if len(prompt) >= positions:
            said = f"the messages have {len(prompt)} tokens and the model reads {positions}"
            raise ApiError(400, "context_length_exceeded", said, param="messages")
        most = asked.max_completion_tokens or asked.max_tokens or math.inf
        # Greedy unless asked otherwise, as the run was measured; OpenAI's default is 1.
        drawn = 0.0 if asked.top_p is None else 1.0
        return Answer(
            self._run,
            prompt,
            max_new_tokens=min(most, positions - len(prompt)),
            stop=asked.stop,
            temperature=drawn if asked.temperature is None else asked.temperature,
            top_p=asked.top_p or 1.0,
            seed=secrets.randbits(62) if asked.seed is None else asked.seed,
        )

    def submit(self, answer: Answer) -> None:
        """Put an answer into the queue, or refuse it with status 429 when that is full."""
        if len(self) > self._most:
            said = f"{self._most} requests are waiting, and no more can; try again later"
            raise ApiError(429, "queue_full", said, Retry_After="1")
        answer.future = self._thread.submit(answer.write)
        self._unfinished.add(answer)
        answer.future.add_done_callback(partial(self._done, answer))

    def cancel(self, answer: Answer) -> None:
        """End an answer, while it waits or at its next token, if it is not finished."""
        answer.cancelled = True
        answer.future.cancel()

    def close(self) -> None:
        """End all answers, and the thread."""
        for answer in self._unfinished.copy():
            self.cancel(answer)
        self._thread.shutdown()

    def _done(self, answer: Answer, future: Future) -> None:
        self._unfinished.discard(answer)
        error = None if future.cancelled() else future.exception()
        if error:
            _log.error("an answer failed", exc_info=error)
        self._finished(answer, error)
        answer.hand_over(error)
