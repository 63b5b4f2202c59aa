"""Chat templates with generation markers: the Jinja text that turns messages into one string.

What stands between `{% generation %}` and `{% endgeneration %}` is what training supervises. In
ChatML, `[` and `]` showing the supervised part:

    <|im_start|>user
    What is the capital of France?<|im_end|>
    <|im_start|>assistant
    [Paris<|im_end|>]

The end of turn is inside, because a model learns to stop only from a supervised stop; the header
before and the newline after are outside, because the program writes them, not the model. A system
message is rendered when there is one, and none is invented.
"""

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}"
    "{{- message['content'] + '<|im_end|>' }}"
    "{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

TEMPLATES = {"chatml": CHATML}

CONTROL_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>")}
"""The tokens of each template that structure a conversation; no content may hold them."""

END_OF_TURN = {"chatml": "<|im_end|>"}
"""The token that ends an assistant's turn, and at which generation stops."""
