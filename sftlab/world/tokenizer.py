"""The one tokenizer of the base models: byte-level BPE, with the chat formats' tokens reserved."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

VOCABULARY = 2048
DOCUMENT_SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"

# In the vocabulary and never in the corpus: pretraining leaves them untrained, as it does in
# most released base models.
RESERVED = [
    *("<|im_start|>", "<|im_end|>"),  # ChatML
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),  # Llama 3
    *("<s>", "</s>", "[INST]", "[/INST]"),  # Mistral, Llama 2
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),  # Gemma
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),  # Phi-3, GLM-4
    *("<|prompt|>", "<|response|>"),
    *("<think>", "</think>", "<tool_call>", "</tool_call>"),
    *(f"<|reserved_{n}|>" for n in range(8)),
]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with `VOCABULARY` entries, the special tokens first.

    Digits stand alone, so numbers are spelled. The tokenizer adds no token of its own: whoever
    wants the document separator in front writes it.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            # Words with one leading space, runs of punctuation, line ends, other white space.
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\n|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[DOCUMENT_SEPARATOR, PAD, *RESERVED],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=DOCUMENT_SEPARATOR,
        eos_token=DOCUMENT_SEPARATOR,
        pad_token=PAD,
        additional_special_tokens=RESERVED,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
