r"""The template families that come with the lab: their Jinja text, tokens and end of turn.

One turn of each, then the header of the next; `[` and `]` show what `{% generation %}` marks, and
so what training supervises: the answer and what ends it. `\n` is a line break.

    chatml    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Ho<|im_end|>]\n
    llama-3   <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>
              <|start_header_id|>assistant<|end_header_id|>\n\n[Ho<|eot_id|>]
    mistral   [INST] Hi[/INST] [Ho</s>]
    gemma     <start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n[Ho<end_of_turn>]\n
    phi-3     <|user|>\nHi<|end|>\n<|assistant|>\n[Ho<|end|>]\n
    alpaca    ### Instruction:\nHi\n\n### Response:\n[Ho</s>]\n\n
    vicuna    USER: Hi ASSISTANT: [Ho</s>]
    article   <|prompt|> Hi <|response|> [Ho</s>]

Every family ends its turns, because a model learns to stop only from a supervised stop. Where the
published form has no token of its own for that, the tokenizer's eos ends the turn (`</s>` above):
so it was in the training code of Alpaca and of Vicuna, and so it must be for the article's form,
whose one example shows no end at all. A family refuses a role that it has no place for; none drops
a message.

The forms follow what the makers published: the tokenizers of Meta-Llama-3, Mistral-7B-Instruct
v0.3, Gemma 1 and 2 and Phi-3, the training code of Stanford Alpaca (with the line break after
`### Response:` that everybody adds) and FastChat's Vicuna 1.1. Two things differ on purpose:
Mistral v0.3 moves the system message to the newest user's message, which changes the history with
each turn (here it stays in the first one, as in v0.1 and v0.2), and Phi-3 writes its eos at the end
of a finished conversation (here nothing follows).
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way to write a conversation as a text, and what one must know to train with it."""

    text: str
    "The Jinja source, with `{% generation %}` around each answer and its end of turn."
    control_tokens: tuple[str, ...] = ()
    "The tokens that structure a conversation; each must be one token, and no content hold one."
    end_of_turn: str | None = None
    "The token that ends an answer, or None where that is the tokenizer's own `eos_token`."
    system: bool = True
    "Whether a system message is rendered; a family that has no place for it refuses it."
    bos_token: str = ""
    "What `bos_token` stands for in the published tokenizer: for renders without a tokenizer."
    eos_token: str = ""
    "What `eos_token` stands for in the published tokenizer: for renders without a tokenizer."

    def end(self, eos_token: str | None = None) -> str:
        """What ends a turn when the tokenizer's eos is `eos_token` (default: the published one)."""
        return self.end_of_turn or eos_token or self.eos_token

    @property
    def writes_bos(self) -> bool:
        """Whether the text begins with `bos_token`, so that nobody else may add one."""
        return "bos_token" in self.text


def _text(name: str) -> str:
    return (Path(__file__).parent / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")


FAMILIES = {
    "chatml": Family(
        text=_text("chatml"),
        control_tokens=("<|im_start|>", "<|im_end|>"),
        end_of_turn="<|im_end|>",
        eos_token="<|im_end|>",
    ),
    "llama-3": Family(
        text=_text("llama-3"),
        control_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end_of_turn="<|eot_id|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
    ),
    "mistral": Family(
        text=_text("mistral"),
        control_tokens=("[INST]", "[/INST]"),
        bos_token="<s>",
        eos_token="</s>",
    ),
    "gemma": Family(
        text=_text("gemma"),
        control_tokens=("<start_of_turn>", "<end_of_turn>"),
        end_of_turn="<end_of_turn>",
        system=False,
        bos_token="<bos>",
        eos_token="<eos>",
    ),
    "phi-3": Family(
        text=_text("phi-3"),
        control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        end_of_turn="<|end|>",
        bos_token="<s>",
        eos_token="<|endoftext|>",
    ),
    "alpaca": Family(text=_text("alpaca"), bos_token="<s>", eos_token="</s>"),
    "vicuna": Family(text=_text("vicuna"), bos_token="<s>", eos_token="</s>"),
    "article": Family(
        text=_text("article"),
        control_tokens=("<|prompt|>", "<|response|>"),
        system=False,
        eos_token="</s>",
    ),
}
"""The families by name, in the order in which the lessons introduce them."""
