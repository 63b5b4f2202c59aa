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
published form has no token of its own for that, the tokenizer's eos does it (`</s>` above): so it
was in the training code of Alpaca and in Vicuna's, and so it must be for the article's form, whose
one example shows no end at all. A role that a form has no place for is refused, never dropped.

The forms follow what the makers published: the tokenizers of Meta-Llama-3, Mistral-7B-Instruct
v0.3, Gemma 1 and 2 and Phi-3, the training code of Stanford Alpaca (with the line break after
`### Response:` that everybody adds) and FastChat's Vicuna 1.1. Two things differ on purpose:
Mistral v0.3 moves the system message to the newest user's message, which changes the history with
each turn (here it stays in the first one, as in v0.1 and v0.2), and Phi-3 writes its eos behind a
finished conversation (here nothing follows).
"""

from dataclasses import dataclass

CHATML = r"""
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif -%}
"""

LLAMA_3 = r"""
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
"""

GEMMA = r"""
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- raise_exception("Gemma has no system role: put the text before the user's message") }}
    {%- elif message['role'] != ('user' if loop.index0 is even else 'assistant') %}
        {{- raise_exception('user and assistant must alternate, and the user begins') }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<start_of_turn>model\n' }}
        {%- generation %}{{- message['content'] | trim + '<end_of_turn>' }}{%- endgeneration %}
    {%- else %}
        {{- '<start_of_turn>user\n' + message['content'] | trim + '<end_of_turn>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif -%}
"""

PHI_3 = r"""
{%- for message in messages %}
    {%- if message['role'] not in ('system', 'user', 'assistant') %}
        {{- raise_exception('Phi-3 has no turn for the role ' + message['role']) }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] + '<|end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif -%}
"""

SYSTEM_FIRST = r"""
{%- set system = '' %}
{%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
    {%- if message['role'] not in ('user', 'assistant') %}
        {{- raise_exception('only the first message may be a system message, and the others are '
            + 'from user or assistant: found ' + message['role']) }}
    {%- endif %}
{%- endfor %}
"""
"""How Mistral, Alpaca and Vicuna begin: take the system message apart from the turns."""

MISTRAL = (
    SYSTEM_FIRST
    + r"""
{{- bos_token }}
{%- for message in turns %}
    {%- if message['role'] != ('user' if loop.index0 is even else 'assistant') %}
        {{- raise_exception('user and assistant must alternate, and the user begins') }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' }}
        {%- generation %}{{- message['content'] | trim + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- '[INST] ' + (system + '\n\n' if loop.first and system else '') }}
        {{- message['content'] + '[/INST]' }}
    {%- endif %}
{%- endfor -%}
"""
)

ALPACA = (
    SYSTEM_FIRST
    + r"""
{{- bos_token }}
{{- system or 'Below is an instruction that describes a task. '
    + 'Write a response that appropriately completes the request.' }}
{{- '\n\n' }}
{%- for message in turns %}
    {%- if message['role'] == 'assistant' %}
        {{- '### Response:\n' }}
        {%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- '### Instruction:\n' + message['content'] }}
    {%- endif %}
    {%- if not loop.last or message['role'] == 'user' %}{{- '\n\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\n' }}{%- endif -%}
"""
)

VICUNA = (
    SYSTEM_FIRST
    + r"""
{{- bos_token }}
{{- system or 'A chat between a curious user and an artificial intelligence assistant. '
    + "The assistant gives helpful, detailed, and polite answers to the user's questions." }}
{{- ' ' }}
{%- for message in turns %}
    {%- if message['role'] == 'assistant' %}
        {{- 'ASSISTANT: ' }}
        {%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- 'USER: ' + message['content'] + ' ' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif -%}
"""
)

ARTICLE = r"""
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<|prompt|> ' + message['content'] + ' ' }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|response|> ' }}
        {%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- raise_exception("the article's form has no place for the role " + message['role']
            + ": put its text before the user's message") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|response|>' }}{%- endif -%}
"""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way to write a conversation as a text, and what one must know to train with it."""

    text: str
    """The Jinja source, with `{% generation %}` around each answer and its end of turn."""
    control_tokens: tuple[str, ...] = ()
    """The tokens that structure a conversation; each must be one token, and no content hold one."""
    end_of_turn: str | None = None
    """The token that ends an answer, or None where that is the tokenizer's own `eos_token`."""
    system: bool = True
    """Whether a system message is rendered; a family that has no place for it refuses it."""
    bos_token: str = ""
    """What `bos_token` stands for in the published tokenizer: for renders without a tokenizer."""
    eos_token: str = ""
    """What `eos_token` stands for in the published tokenizer: for renders without a tokenizer."""

    def end(self, eos_token: str | None = None) -> str:
        """What ends a turn when the tokenizer's eos is `eos_token` (default: the published one)."""
        return self.end_of_turn or eos_token or self.eos_token

    @property
    def writes_bos(self) -> bool:
        """Whether the text begins with `bos_token`, so that nobody else may add one."""
        return "bos_token" in self.text


FAMILIES = {
    "chatml": Family(
        text=CHATML,
        control_tokens=("<|im_start|>", "<|im_end|>"),
        end_of_turn="<|im_end|>",
        eos_token="<|im_end|>",
    ),
    "llama-3": Family(
        text=LLAMA_3,
        control_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end_of_turn="<|eot_id|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
    ),
    "mistral": Family(
        text=MISTRAL, control_tokens=("[INST]", "[/INST]"), bos_token="<s>", eos_token="</s>"
    ),
    "gemma": Family(
        text=GEMMA,
        control_tokens=("<start_of_turn>", "<end_of_turn>"),
        end_of_turn="<end_of_turn>",
        system=False,
        bos_token="<bos>",
        eos_token="<eos>",
    ),
    "phi-3": Family(
        text=PHI_3,
        control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        end_of_turn="<|end|>",
        bos_token="<s>",
        eos_token="<|endoftext|>",
    ),
    "alpaca": Family(text=ALPACA, bos_token="<s>", eos_token="</s>"),
    "vicuna": Family(text=VICUNA, bos_token="<s>", eos_token="</s>"),
    "article": Family(
        text=ARTICLE,
        control_tokens=("<|prompt|>", "<|response|>"),
        system=False,
        eos_token="</s>",
    ),
}
"""The families by name, in the order in which the lessons introduce them."""
