"""Tokenizers of both kinds, trained here in a moment; conversations; what a mask must be."""

import json
import tomllib
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORDS = (
    "Question Alfa? Answer Bravo. Question Charlie? Answer Delta. user assistant system model",
    "It is so, and not so; grüße 你好 don't say: yes or no!",
)
SPECIAL = (
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
    "[INST]",
)


def _trained(tokenizer, alphabet=()):
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(SPECIAL), initial_alphabet=list(alphabet)
    )
    tokenizer.train_from_iterator(WORDS * 20, trainer)
    return _fast(tokenizer)


def _fast(tokenizer):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture(scope="session")
def bytes_tokenizer():
    """A byte-level BPE, as of GPT-2, Llama-3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


@pytest.fixture(scope="session")
def words_tokenizer():
    """A Metaspace BPE with bytes to fall back on, as of Llama-2, Mistral and Gemma."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trained = json.loads(_trained(tokenizer).backend_tokenizer.to_str())
    vocabulary = trained["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return _fast(Tokenizer.from_str(json.dumps(trained)))


@pytest.fixture(params=["bytes", "words"])
def tokenizer(request):
    """Each of the two."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


def _said(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


@pytest.fixture(scope="session")
def chats():
    """Conversations that try a template, by what is odd about them."""
    file = Path(__file__).with_name("chats.toml")
    chats = {n: _said(*said) for n, said in tomllib.loads(file.read_text("utf-8")).items()}
    return chats | {"system": [{"role": "system", "content": "System Zulu."}, *chats["system"]]}


@pytest.fixture(scope="session")
def search():
    """`search(text, messages, kept=, ending=)`: where the answers are, as (start, end, message).

    It knows no template: `kept(index)` is what the text holds of a content, and `ending(final)`
    what ends an answer.
    """

    def search(text, messages, *, kept, ending):
        found, at = [], 0
        for index, message in enumerate(messages):
            if message["role"] == "system":
                continue
            start = text.index(kept(index), at)
            at = start + len(kept(index))
            if message["role"] == "assistant":
                end = ending(index == len(messages) - 1)
                assert text.startswith(end, at)
                at += len(end)
                found.append((start, at, index))
        return found

    return search


@pytest.fixture(scope="session")
def check_tokens():
    """`check_tokens(row, places)`: a token is supervised exactly if its characters are, white
    space apart, and its label is its id."""

    def check(row, places):
        inside = {at for start, end, _ in places for at in range(start, end)}
        for token, (first, last) in enumerate(row.offsets):
            held = set(range(first, last))
            outside = "".join(row.text[at] for at in sorted(held - inside)).strip()
            if held:
                supervised = bool(held & inside) and not outside
                assert row.labels[token] == (row.ids[token] if supervised else -100)
                assert (token in row.straddling) == (bool(held & inside) and bool(outside))

    return check
