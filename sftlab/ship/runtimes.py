"""One model behind two programs, asked the same questions: transformers, and llama.cpp.

    runtime.text_ids(text)            ids of a text
    runtime.prompt(messages)          a conversation rendered, and its ids
    runtime.follow(prompts)           greedy answers, with log-probabilities at each of their places

What is compared is ids and log-probabilities. Texts say too little: two runtimes that differ by
rounding may begin a different sentence, and two that differ in the weights may not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import torch

from sftlab.chat import FIXTURES, find_template
from sftlab.machine import import_extra
from sftlab.measure import generate, row_logits
from sftlab.models import load
from sftlab.profiles import find_profile
from sftlab.quiet import quiet_libraries
from sftlab.train import Run

if TYPE_CHECKING:
    from sftlab.data import Message

TOP = 100  # log-probabilities that are kept at each place of an answer
PRECISIONS = {
    "f32": ("full", "float32"),
    "bf16": ("full", "bfloat16"),
    "f16": ("full", "float16"),
    "int8": ("int8", "float32"),
    "nf4": ("qlora", "float32"),
}
"""Of `convert`: a method whose base is held so, and the type of what is not quantized."""


class RuntimeFault(ValueError):
    """A runtime that can't read a model, or answered otherwise than it documents."""


class Step(NamedTuple):
    """One place of an answer."""

    token: int  # the one that was written
    likeliest: dict[int, float]  # log-probabilities (nats) of the `TOP` likeliest ones, descending

    def logprob(self, token: int) -> float:
        """In nats; of a token that is not among the likeliest an upper bound, that of the last."""
        return self.likeliest.get(token, min(self.likeliest.values()))

    def gap(self) -> float:
        """By how much the token leads the best of all others, in nats."""
        others = (value for token, value in self.likeliest.items() if token != self.token)
        return self.logprob(self.token) - next(others)


Answer = list[Step]
"""Its last token is the stop token, where it ended by itself."""
Prompt = tuple[str, list[int]] | tuple[None, None]
"""Text and ids; None where the template refuses the conversation."""


@dataclass(frozen=True)
class Transformers:
    """A run, as it is in memory."""

    run: Run
    name: str = "transformers"

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text; names of special tokens in it count as these."""
        return self.run.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt(self, messages: "Sequence[Message]") -> Prompt:
        """What the assistant's next words follow."""
        template = find_template(tokenizer=self.run.tokenizer)
        return template.render(messages, add_generation_prompt=True), self.run.prompt_ids(messages)

    def follow(self, prompts: Sequence[list[int]], *, max_new_tokens: int = 24) -> list[Answer]:
        """Greedy answers to prompts of ids, each with one forward pass after it was generated."""
        pad = self.run.tokenizer.pad_token_id
        with quiet_libraries():
            new = generate(self.run.model, prompts, pad=pad, max_new_tokens=max_new_tokens)
            rows = [prompt + ids for prompt, ids in zip(prompts, new, strict=True)]
            starts = [len(prompt) for prompt in prompts]
            found: dict[int, Answer] = {}
            for n, logits in row_logits(self.run.model, rows, starts=starts):
                places = logits[:max_new_tokens].log_softmax(-1)
                best = places.topk(min(TOP, places.shape[-1]))
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                likeliest = [dict(zip(*pair, strict=True)) for pair in pairs]
                # What was written, and not what is likeliest: in 16 bit a batch may round otherwise
                # than a single row, and the answer goes on behind its own token.
                written = new[n] + [next(iter(one)) for one in likeliest[len(new[n]) :]]
                found[n] = [Step(*step) for step in zip(written, likeliest, strict=True)]
        return [found[n] for n in range(len(rows))]

    def texts(self, answers: Sequence[Answer]) -> list[str]:
        """What was written, without special tokens."""
        return self.run.texts([[step.token for step in answer] for answer in answers])

    def stops_at(self, token: int) -> bool:
        """Whether generation ends where this token comes."""
        return token in self.run.stop_ids

    def contract(self) -> dict[str, Any]:
        """As `sftlab.chat.make_contract` writes it."""
        return self.run.contract()


def convert(run: Run, to: str) -> Run:
    """A run without adapters in another precision, one of `PRECISIONS`; this one stays.

    int8 and nf4 hold the linear layers as bitsandbytes does, and leave all else in float32.
    """
    if to not in PRECISIONS:
        raise ValueError(f"to is {to!r}; choose one of {', '.join(PRECISIONS)}")
    if run.adapted:
        raise ValueError("the run has adapters, which would stay as they are; merge() it first")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, quiet_libraries():
        run.model.save_pretrained(folder)
        run.tokenizer.save_pretrained(folder)
        method, dtype = PRECISIONS[to]
        profile = replace(find_profile(folder), method=method)
        model, tokenizer = load(profile, dtype=getattr(torch, dtype))
        model.generation_config = run.model.generation_config
    return replace(run, model=model, tokenizer=tokenizer, _meter=None)


class LlamaCpp:
    """A GGUF file in llama.cpp, on the CPU and one thread, in this process (`xllamacpp`).

    Its server binds a free port of 127.0.0.1; it ends with this object. It prints nothing.
    """

    def __init__(self, file: str | Path, *, name: str | None = None) -> None:
        xllamacpp = import_extra("xllamacpp")
        self.name = name or f"llama.cpp, {Path(file).name}"
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_parallel, params.n_ctx = 1, 0  # 0: the model's context length
        params.verbosity, params.warmup, params.ui = -1, False, False
        params.fit_params, params.cache_prompt = False, False  # or the order of questions counts
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise RuntimeFault(f"llama.cpp can't load {file}: {error}; write it again") from error

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        header = {"Content-Type": "application/json"}
        request = Request(self._server.listening_address + path, json.dumps(body).encode(), header)
        # Without the environment's proxy, which can't reach this machine.
        with build_opener(ProxyHandler({})).open(request, timeout=600) as answer:
            return json.load(answer)

    def text_ids(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        return self._post("/tokenize", body)["tokens"]

    def prompt(self, messages: "Sequence[Message]") -> Prompt:
        try:
            text = self._post("/apply-template", {"messages": list(messages)})["prompt"]
        except HTTPError:  # its template engine is not jinja2, and refuses what that renders
            return None, None
        return text, self.text_ids(text)

    def follow(self, prompts: Sequence[list[int]], *, max_new_tokens: int = 24) -> list[Answer]:
        answers = []
        for prompt in prompts:
            places = self._complete(prompt, n_predict=max_new_tokens, n_probs=TOP)
            likeliest = [{one["id"]: one["logprob"] for one in p["top_logprobs"]} for p in places]
            answers.append([Step(p["id"], q) for p, q in zip(places, likeliest, strict=True)])
        return answers

    def _complete(self, prompt: list[int], **options: Any) -> list[dict[str, Any]]:
        asked = {"prompt": prompt, "temperature": 0, "cache_prompt": False, **options}
        found = self._server.handle_completions(asked)
        if "choices" not in found:
            raise RuntimeFault(f"llama.cpp refused a prompt of {len(prompt)} ids: {found}")
        return found["choices"][0]["logprobs"]["content"]

    def stops_at(self, token: int) -> bool:
        """Asked of it: the token is made the likeliest one, and two may be written."""
        bias = [[token, 1000.0]]
        return len(self._complete([token], n_predict=2, n_probs=1, logit_bias=bias)) == 1

    def contract(self) -> dict[str, Any]:
        """Its prompts alone; what a file says of its vocabulary shows in their ids."""
        found = {}
        for name, messages in FIXTURES.items():
            text, ids = self.prompt(messages)
            found[f"{name}, with generation prompt"] = {"text": text, "ids": ids}
        return {"prompts": found}


Runtime = Transformers | LlamaCpp
"""What a gate compares: both have the same methods."""
