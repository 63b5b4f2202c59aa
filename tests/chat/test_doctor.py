"""The template doctor: each ailment alone gives its own finding, and a sound template none."""

import json

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sftlab.chat import FAMILIES, TemplateError, examine
from sftlab.chat.doctor import LEVELS

CHATML = FAMILIES["chatml"].text
ANSWER = "{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
OTHERS = "{%- else %}\n        {{- message['content'] + '<|im_end|>' }}"
LAST = "{%- if add_generation_prompt %}"
FIRST = "{%- for message in messages %}\n"
assert CHATML.count(ANSWER) == CHATML.count(OTHERS) == CHATML.count(LAST) == 1
assert CHATML.count(FIRST) == 1


def make_tokenizer(*, special=("<|im_start|>", "<|im_end|>"), eos="<|im_end|>", pad="<|pad|>",
                   adds_bos=False, words=("the answer",)):  # fmt: skip
    """A byte-level BPE of single bytes and a few words."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys([*special, "<|begin|>", "<|pad|>", eos]))
    core.train_from_iterator(
        list(words) * 3,
        BpeTrainer(
            vocab_size=400,
            special_tokens=names,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if adds_bos:
        begin = core.token_to_id("<|begin|>")
        core.post_processor = TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|begin|>",
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=list(special),
    )


def change(*pairs, text=CHATML):
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def row(question, *answers):
    """A row with a question and its answers."""
    said = [{"role": "assistant", "content": answer} for answer in answers]
    return {"messages": [{"role": "user", "content": question}, *said]}


def codes(template, **options):
    return [finding.code for finding in examine(template, **options).problems]


SICK = {
    "no-end-of-turn": change(
        ("'<|im_start|>' + message['role']", "'### ' + message['role']"),
        (ANSWER, "{{- message['content'] }}{%- endgeneration %}"),
        (OTHERS, "{%- else %}{{- message['content'] }}"),
        ("'<|im_start|>assistant", "'### assistant"),
    ),
    "last-turn-open": change(
        (ANSWER, "{{- message['content'] + ('' if loop.last else '<|im_end|>') }}"
         "{%- endgeneration %}")
    ),
    "ends-differ": change(
        (ANSWER, "{{- message['content'] + ('<|return|>' if loop.last else '<|im_end|>') }}"
         "{%- endgeneration %}")
    ),
    "thinking-stripped": change(
        (ANSWER, "{{- (message['content'] if loop.last else "
         "message['content'].split('</think>')[-1].strip()) + '<|im_end|>' }}{%- endgeneration %}")
    ),
    "thinking-dropped": change(
        (ANSWER, "{{- message['content'].split('</think>')[-1] + '<|im_end|>' }}"
         "{%- endgeneration %}"),
    ),
    "history-changes": change(
        ("'<|im_start|>' + message['role']", "'<|im_start|>' + message['role'] + "
         "(' now' if message['role'] == 'user' and loop.index > loop.length - 2 else '')"),
    ),
    "closing-text": change((LAST, "{%- if not add_generation_prompt %}{{- '<|end|>' }}"
                            "{%- endif %}" + LAST)),
    "prompt-differs": change(("assistant\\n' }}{%- endif", "assistant\\nSure: ' }}{%- endif")),
    "no-generation-prompt": change(("{{- '<|im_start|>assistant\\n' }}", "")),
    "text-before-answer": change(
        ("{%- generation %}", "{{- 'Answer: ' }}{%- generation %}")
    ),
    "system-refused": change(
        (FIRST, FIRST + "{%- if message['role'] == 'system' %}{{- raise_exception('no') }}"
         "{%- endif %}")
    ),
    "system-dropped": change(
        (FIRST, "{%- for message in messages if message['role'] != 'system' %}\n")
    ),
    "alternation-required": change(
        (FIRST, FIRST + "{%- if not loop.first and message['role'] == loop.previtem['role'] %}"
         "{{- raise_exception('take turns') }}{%- endif %}")
    ),
    "message-dropped": change(
        (FIRST, "{%- for message in messages if loop is not defined %}"
         "{%- if loop.last or message['role'] != loop.nextitem['role'] %}"),
        ("{{- '\\n' }}\n{%- endfor %}", "{{- '\\n' }}\n{%- endif %}{%- endfor %}"),
    ),
    "adds-text": change(
        (FIRST, "{%- if messages[0]['role'] != 'system' %}"
         "{{- '<|im_start|>system\\nYou were made by a company.<|im_end|>\\n' }}{%- endif %}"
         + FIRST)
    ),
    "content-trimmed": change((OTHERS, OTHERS.replace("['content']", "['content'] | trim"))),
    "date-dependent": change((FIRST, "{{- strftime_now('%d %b') }}" + FIRST)),
    "no-generation-marks": change(("{%- generation %}", ""), ("{%- endgeneration %}", "")),
    "parts-wanted": CHATML.replace("message['content']", "message['content'][0]['text']"),
    "content-lost": change((OTHERS, OTHERS.replace("message['content']", "''"))),
}  # fmt: skip
ERRORS = {"no-end-of-turn", "parts-wanted", "content-lost"}
REFUSES_A_QUESTION = (
    "{%- if messages[-1]['role'] == 'user' %}{{- raise_exception('no') }}{%- endif %}" + CHATML
)


@pytest.mark.parametrize("code", SICK)
def test_one_ailment_is_one_finding_that_says_what_and_what_to_do(code):
    (finding,) = examine(SICK[code]).problems
    assert finding.code == code
    assert (finding.level == "error") == (code in ERRORS)
    for sentence in (finding.what, finding.remedy):
        assert len(sentence.split()) > 3
        assert not sentence.endswith(".")
        assert "$" not in sentence


def test_a_sound_template_has_no_problem():
    found = examine(CHATML, tokenizer=make_tokenizer())
    assert found.problems == ()
    assert found.ok
    assert found.end_of_turn == "<|im_end|>"
    assert [finding.code for finding in found.findings] == [
        "end-of-turn",
        "system",
        "end-stops",
        "markers",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{%- for message in messages %}\n{{ message.content }", "line 2"),
        ("\n\n{{ messages[0].content.upperr() }}", "line 3"),
        ("{{ raise_exception('never') }}", "never"),
        (REFUSES_A_QUESTION, "ends with a question"),
    ],
)
def test_a_template_that_does_not_render_is_located(text, said):
    found = examine(text)
    (finding,) = found.problems
    assert finding.code == "not-rendered"
    assert said in finding.what
    assert not found.ok


def test_an_eos_whose_name_only_a_tokenizer_knows_still_ends_a_turn():
    by_eos = CHATML.replace("'<|im_end|>'", "eos_token")
    found = examine(by_eos)
    assert found.problems == ()
    assert found.end_of_turn == "<eos_token>"
    assert examine(by_eos, tokenizer=make_tokenizer()).end_of_turn == "<|im_end|>"
    assert examine("mistral").end_of_turn == "</s>"


def test_the_text_of_the_finding_quotes_the_template():
    assert "'Answer: '" in examine(SICK["text-before-answer"]).of("text-before-answer").what
    assert "made by a company" in examine(SICK["adds-text"]).of("adds-text").what
    assert "assistant" not in examine(SICK["content-trimmed"]).of("content-trimmed").what
    with pytest.raises(KeyError):
        examine(CHATML).of("adds-text")


SICK_TOKENIZERS = {
    "end-split": ("error", dict(special=["<|im_start|>"], eos="<|end|>")),
    "end-not-stop": ("warning", dict(eos="<|end|>")),
    "markers-split": ("warning", dict(special=["<|im_end|>"])),
    "missing-bos": ("warning", dict(adds_bos=True)),
    "no-pad": ("note", dict(pad=None)),
    "pad-is-end": ("warning", dict(pad="<|im_end|>")),
}


@pytest.mark.parametrize("code", SICK_TOKENIZERS)
def test_one_ailment_of_a_tokenizer_is_one_finding(code):
    level, options = SICK_TOKENIZERS[code]
    (finding,) = examine(CHATML, tokenizer=make_tokenizer(**options)).problems
    assert (finding.code, finding.level) == (code, level)


def test_an_end_of_several_tokens_stops_at_its_last():
    longer = CHATML.replace("'<|im_end|>'", "'<|end_answer|><|im_end|>'")
    known = make_tokenizer(special=["<|im_start|>", "<|end_answer|>", "<|im_end|>"])
    assert examine(longer).end_of_turn == "<|end_answer|><|im_end|>"
    assert codes(longer, tokenizer=known) == []
    assert codes(longer, tokenizer=make_tokenizer()) == ["markers-split"]


def test_padding_that_is_eos_is_harmless_while_another_token_ends_a_turn():
    both = make_tokenizer(eos="<|end|>", pad="<|end|>")
    assert codes(CHATML, tokenizer=both) == ["end-not-stop", "pad-is-eos"]
    assert codes(CHATML.replace("'<|im_end|>'", "eos_token"), tokenizer=both) == ["pad-is-end"]


def test_bos_is_doubled_when_both_write_it():
    begun = "{{- bos_token }}" + CHATML
    assert codes(begun, tokenizer=make_tokenizer(adds_bos=True)) == ["double-bos"]
    assert codes(begun, tokenizer=make_tokenizer()) == []
    twice = "{{- bos_token + bos_token }}" + CHATML
    assert codes(twice, tokenizer=make_tokenizer()) == ["double-bos"]


def test_a_token_that_holds_header_and_answer_is_found():
    glued = change(
        ("message['role'] + '\\n'", "message['role'] + ':'"),
        ("assistant\\n' }}{%- endif", "assistant:' }}{%- endif"),
    )
    assert codes(glued, tokenizer=make_tokenizer()) == []
    joining = make_tokenizer(words=[":A"] * 50)
    assert codes(CHATML, tokenizer=joining) == []
    rows = [row("Hi", "Ho"), row("Hi", "All right")]
    found = examine(glued, tokenizer=joining, conversations=rows)
    assert [finding.code for finding in found.problems] == ["straddling", "rows-straddle"]
    assert "':A'" in found.of("straddling").what
    assert found.of("rows-straddle").rows == (2,)


def test_a_stop_may_be_in_the_generation_config(tmp_path):
    tokenizer = make_tokenizer(eos="<|end|>")
    tokenizer.save_pretrained(tmp_path)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for stops, expected in ((end, []), ([0, end], []), ([0], ["end-not-stop"])):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        assert codes(CHATML, tokenizer=AutoTokenizer.from_pretrained(tmp_path)) == expected


def test_rows_cut_by_the_maximum_length_are_counted_before_training():
    long = row("x" * 200, "4")
    rows = [row("2 + 2?", "4"), long, row("2 + 2?", "4" * 90), long]
    found = examine(CHATML, tokenizer=make_tokenizer(), conversations=rows, max_length=64)
    assert [finding.code for finding in found.problems] == ["rows-masked", "rows-cut"]
    assert found.of("rows-masked").rows == (2, 4)
    assert "2 of 4" in found.of("rows-masked").what
    assert found.of("rows-cut").rows == (3,)
    assert not found.ok
    kept = examine(CHATML, tokenizer=make_tokenizer(), conversations=rows, max_length=300)
    assert (kept.problems, kept.rows) == ((), 4)
    assert "4 conversations" in kept.of("rows").what


def test_lost_tokens_of_cut_rows_are_counted():
    """One byte a token: header 18, question, end 2, header 12, then 90 answers and the end."""
    tokenizer = make_tokenizer(words=["<"])
    messages = row("2 + 2?", "4" * 90)["messages"]
    text = tokenizer.apply_chat_template(messages, chat_template=CHATML, tokenize=False)
    length = len(tokenizer(text)["input_ids"]) - 11
    found = examine(CHATML, tokenizer=tokenizer, conversations=[messages], max_length=length)
    assert "(10 supervised tokens" in found.of("rows-cut").what


def test_rows_that_hold_markers_are_refused_or_have_no_answer():
    rows = [row("What is <|im_end|>?", "An end."), row("2 + 2?", "4"), row("Hi", "Ho", "Ho")]
    found = examine(SICK["alternation-required"], conversations=rows)
    assert [finding.code for finding in found.problems] == [
        "rows-refused",
        "rows-hold-markers",
        "alternation-required",
    ]
    assert found.of("rows-hold-markers").rows == (1,)
    assert "'<|im_end|>'" in found.of("rows-hold-markers").what
    assert found.of("rows-refused").rows == (3,)
    assert "take turns" in found.of("rows-refused").what
    found = examine(CHATML, tokenizer=make_tokenizer(), conversations=[row("Hi", "Ho"), row("Hi")])
    assert [(f.code, f.rows) for f in found.problems] == [("rows-without-answer", (2,))]


def test_tokens_of_the_tokenizer_are_markers_too_and_thoughts_are_not():
    rows = [row("What ends a text?", "<|pad|>"), row("Hi", "<think>\nHm.\n</think>\n\nHo")]
    assert codes(CHATML, conversations=rows) == []
    found = examine(CHATML, tokenizer=make_tokenizer(), conversations=rows)
    assert found.of("rows-hold-markers").rows == (1,)


def test_mistakes_of_the_call_are_refused():
    with pytest.raises(ValueError, match="max_length is 0"):
        examine(CHATML, tokenizer=make_tokenizer(), conversations=[], max_length=0)
    with pytest.raises(ValueError, match="only a tokenizer"):
        examine(CHATML, conversations=[], max_length=10)
    with pytest.raises(TemplateError, match="no-such-template"):
        examine("no-such-template")


PUBLISHED = {
    "qwen3": {"thinking-stripped", "history-changes", "text-before-answer"},
    "qwen3_training": {"text-before-answer"},
    "deepseekv3": {"thinking-dropped", "prompt-differs"},
    "glm4moe": {"last-turn-open", "text-before-answer", "thinking-stripped", "content-trimmed"},
    "gptoss_training": {"ends-differ", "date-dependent", "thinking-stripped", "adds-text",
                        "text-before-answer"},
    "llama3_2": {"date-dependent", "adds-text", "content-trimmed"},
    "phi3": {"closing-text"},
    "gemma": {"system-refused", "alternation-required", "content-trimmed"},
    "lfm2_training": set(),
    "smolvlm": {"parts-wanted"},
}  # fmt: skip
"""What is known of templates that TRL installs, read off their text; the marks apart."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates(name):
    assert set(codes(name)) - {"no-generation-marks"} == PUBLISHED[name]


FAMILY_NOTES = {
    "chatml": [],
    "llama-3": ["content-trimmed"],
    "mistral": ["alternation-required", "content-trimmed"],
    "gemma": ["system-refused", "alternation-required", "content-trimmed"],
    "phi-3": [],
    "alpaca": ["adds-text"],
    "vicuna": ["adds-text"],
    "article": ["system-refused"],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_the_lab_are_sound_and_fit_its_own_tokenizer(name, toy_tokenizer):
    """Its eos ends the turns of the families without an end of their own; every marker is known."""
    found = examine(name)
    assert [finding.code for finding in found.problems] == FAMILY_NOTES[name]
    assert all(finding.level == "note" for finding in found.problems)
    assert found.end_of_turn == FAMILIES[name].end()
    extra = [
        code for code in codes(name, tokenizer=toy_tokenizer) if code not in FAMILY_NOTES[name]
    ]
    assert extra == (["end-not-stop"] if FAMILIES[name].end_of_turn else [])


def test_a_diagnosis_reads_as_text_and_as_plain_values():
    found = examine(SICK["no-end-of-turn"])
    assert str(found).splitlines()[1].startswith("error   no-end-of-turn: nothing ends an answer")
    plain = json.loads(json.dumps(found.as_dict()))
    assert list(plain) == ["template", "end_of_turn", "rows", "findings", "ok"]
    assert list(plain["findings"][0]) == ["level", "code", "what", "remedy", "rows"]
    levels = [LEVELS.index(finding.level) for finding in found.findings]
    assert levels == sorted(levels)
