"""The template doctor: each ailment alone gives its own finding, and a sound template none."""

import json
import tomllib
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sftlab.chat import CHATML, FAMILIES, TemplateError, examine


def make_tokenizer(*merges, special=("<|im_start|>", "<|im_end|>"), adds_bos=False, **names):
    """A byte-level BPE of single bytes, special tokens, and the pairs that are merged."""
    names = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "bos_token": "<|begin|>"} | names
    entries = [*pre_tokenizers.ByteLevel.alphabet(), *map("".join, merges)]
    core = Tokenizer(BPE({entry: n for n, entry in enumerate(entries)}, list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([*special, *filter(None, names.values())])
    if adds_bos:
        begin = ("<|begin|>", core.token_to_id("<|begin|>"))
        core.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def change(*pairs):
    text = CHATML
    for old, new in pairs:
        old = AILMENTS["texts"].get(old, old)
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def row(question, *answers):
    """A row with a question and its answers."""
    said = [{"role": "assistant", "content": answer} for answer in answers]
    return {"messages": [{"role": "user", "content": question}, *said]}


def codes(template, **options):
    return [finding.code for finding in examine(template, **options).problems]


def of(found, code):
    (finding,) = (finding for finding in found.findings if finding.code == code)
    return finding


AILMENTS, TRL = (
    tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
    for name in ("ailments", "trl")
)
SICK = {code: change(*pairs) for code, pairs in AILMENTS["changes"].items()}
SICK["parts-wanted"] = CHATML.replace("message['content']", "message['content'][0]['text']")
ERRORS = {"no-end-of-turn", "parts-wanted", "content-lost"}
QUOTED = {
    "text-before-answer": "'Answer: '",
    "adds-text": "made by a company",
    "content-trimmed": "the content of user is",
}


@pytest.mark.parametrize("code", SICK)
def test_one_ailment_is_one_finding_that_says_what_and_what_to_do(code):
    (finding,) = examine(SICK[code]).problems
    assert finding.code == code
    assert (finding.level == "error") == (code in ERRORS)
    assert QUOTED.get(code, "") in finding.what
    assert finding.remedy


def test_a_sound_template_has_no_problem():
    found = examine(CHATML, tokenizer=make_tokenizer())
    assert found.problems == ()
    assert found.ok
    assert found.end_of_turn == "<|im_end|>"
    sound = ["end-of-turn", "system", "end-stops", "markers"]
    assert [finding.code for finding in found.findings] == sound


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\n{{ messages[0].content.upperr() }}", "line 3"),
        ("{{ raise_exception('never') }}", "never"),
        (
            "{%- if messages[-1]['role'] == 'user' %}{{- raise_exception('no') }}{%- endif %}"
            + CHATML,
            "ends with a question",
        ),
    ],
)
def test_a_template_that_does_not_render_is_located(text, said):
    found = examine(text)
    (finding,) = found.problems
    assert finding.code == "not-rendered"
    assert said in finding.what
    assert not found.ok


def test_an_eos_whose_name_only_a_tokenizer_knows_still_ends_a_turn():
    found = examine(BY_EOS)
    assert found.problems == ()
    assert found.end_of_turn == "<eos_token>"
    assert examine(BY_EOS, tokenizer=make_tokenizer()).end_of_turn == "<|im_end|>"
    assert examine("mistral").end_of_turn == "</s>"
    assert examine(LONGER).end_of_turn == "<|end_answer|><|im_end|>"


BY_EOS = CHATML.replace("'<|im_end|>'", "eos_token")
LONGER = CHATML.replace("'<|im_end|>'", "'<|end_answer|><|im_end|>'")
BEGUN = "{{- bos_token }}" + CHATML
BOTH = dict(eos_token="<|end|>", pad_token="<|end|>")
WITH_TOKENIZER = [
    (CHATML, dict(special=["<|im_start|>"], eos_token="<|end|>"), "error end-split"),
    (CHATML, dict(eos_token="<|end|>"), "warning end-not-stop"),
    (CHATML, dict(special=["<|im_end|>"]), "warning markers-split"),
    (CHATML, dict(adds_bos=True), "warning missing-bos"),
    (CHATML, dict(pad_token=None), "note no-pad"),
    (CHATML, dict(pad_token="<|im_end|>"), "warning pad-is-end"),
    # Padding that is eos is harmless while another token ends a turn.
    (CHATML, BOTH, "warning end-not-stop, note pad-is-eos"),
    (BY_EOS, BOTH, "warning pad-is-end"),
    # An end of several tokens stops at its last.
    (LONGER, dict(special=["<|im_start|>", "<|end_answer|>", "<|im_end|>"]), ""),
    (LONGER, {}, "warning markers-split"),
    (BEGUN, dict(adds_bos=True), "warning double-bos"),
    (BEGUN, {}, ""),
    ("{{- bos_token }}" + BEGUN, {}, "warning double-bos"),
]


@pytest.mark.parametrize(("template", "options", "expected"), WITH_TOKENIZER)
def test_what_is_wrong_with_a_tokenizer_is_found_and_nothing_else(template, options, expected):
    problems = examine(template, tokenizer=make_tokenizer(**options)).problems
    assert ", ".join(f"{finding.level} {finding.code}" for finding in problems) == expected


def test_a_token_that_holds_header_and_answer_is_found():
    glued = change(
        ("message['role'] + '\\n'", "message['role'] + ':'"),
        ("assistant\\n' }}{%- endif", "assistant:' }}{%- endif"),
    )
    assert codes(glued, tokenizer=make_tokenizer()) == []
    joining = make_tokenizer((":", "A"))
    assert codes(CHATML, tokenizer=joining) == []
    rows = [row("Hi", "Ho"), row("Hi", "All right")]
    found = examine(glued, tokenizer=joining, conversations=rows)
    assert [finding.code for finding in found.problems] == ["straddling", "rows-straddle"]
    assert "':A'" in of(found, "straddling").what
    assert of(found, "rows-straddle").rows == (2,)


def test_a_stop_may_be_in_the_generation_config(tmp_path):
    tokenizer = make_tokenizer(eos_token="<|end|>")
    tokenizer.save_pretrained(tmp_path)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for stops, expected in ((end, []), ([0, end], []), ([0], ["end-not-stop"])):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        assert codes(CHATML, tokenizer=AutoTokenizer.from_pretrained(tmp_path)) == expected


def test_rows_cut_by_the_maximum_length_are_counted_before_training():
    long, tokenizer = row("x" * 200, "4"), make_tokenizer()
    rows = [row("2 + 2?", "4"), long, row("2 + 2?", "4" * 90), long]
    found = examine(CHATML, tokenizer=tokenizer, conversations=rows, max_length=64)
    problems = [("rows-masked", (2, 4)), ("rows-cut", (3,))]
    assert [(f.code, f.rows) for f in found.problems] == problems
    assert "2 of 4" in of(found, "rows-masked").what
    assert not found.ok
    kept = examine(CHATML, tokenizer=tokenizer, conversations=rows, max_length=300)
    assert (kept.problems, kept.rows) == ((), 4)
    assert "4 conversations" in of(kept, "rows").what
    # A byte a token: 25 before the answer, and then 90, of which 80 are kept; and the end.
    found = examine(CHATML, tokenizer=tokenizer, conversations=rows[2:3], max_length=25 + 80)
    assert "(11 supervised tokens" in of(found, "rows-cut").what


def test_rows_that_hold_markers_are_refused_or_have_no_answer():
    rows = [row("What is <|im_end|>?", "An end."), row("2 + 2?", "4"), row("Hi", "Ho", "Ho")]
    found = examine(SICK["alternation-required"], conversations=rows)
    problems = [("rows-refused", (3,)), ("rows-hold-markers", (1,)), ("alternation-required", ())]
    assert [(f.code, f.rows) for f in found.problems] == problems
    assert "'<|im_end|>'" in of(found, "rows-hold-markers").what
    assert "take turns" in of(found, "rows-refused").what
    found = examine(CHATML, tokenizer=make_tokenizer(), conversations=[row("Hi", "Ho"), row("Hi")])
    assert [(f.code, f.rows) for f in found.problems] == [("rows-without-answer", (2,))]
    # Tokens of the tokenizer are markers too, and thoughts are not.
    rows = [row("What ends a text?", "<|pad|>"), row("Hi", "<think>\nHm.\n</think>\n\nHo")]
    assert codes(CHATML, conversations=rows) == []
    rows.append(rows[1] | {"tools": [{"name": "f", "description": "<|im_end|>"}]})
    found = examine(CHATML, tokenizer=make_tokenizer(), conversations=rows)
    assert of(found, "rows-hold-markers").rows == (1, 3)


THOUGHT = {"role": "assistant", "content": "Ho", "reasoning_content": "A greeting, so I greet."}
INLINE = "<think>\nA greeting, so I greet.\n</think>\n\nHo"
CALLING = {"function": {"name": "look_up", "arguments": {"day": "today"}}, "type": "function"}
CALLED = [
    {"role": "user", "content": "Is it warm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALLING]},
    {"role": "tool", "content": "12 degrees", "name": "look_up"},
    {"role": "assistant", "content": "It is cool."},
]
TOOLED = {"messages": CALLED, "tools": [{"type": "function", "function": {"name": "look_up"}}]}
REASONED = {"messages": [row("Hi")["messages"][0], THOUGHT, *row("And you?", "Well.")["messages"]]}
BRIEF = {"messages": [{"role": "system", "content": "Be brief."}, *row("Hi", "Ho")["messages"]]}
LOST = [  # template, row, options, lost, left out, what the remedy names
    ("chatml", REASONED, {}, "of message 1: 'A greeting, so I greet.'", "", "renders thinking"),
    ("chatml", REASONED, {"turns": "last"}, "", "reasoning of message 1", "renders thinking"),
    ("qwen3", REASONED, {}, "reasoning of message 1", "", "`--turns last`"),
    ("qwen3", REASONED, {"turns": "last"}, "", "reasoning of message 1", "left out in use too"),
    ("chatml", TOOLED, {}, "call of message 1: 'look_up'", "tool: 'look_up'", "--template qwen3`"),
    ("qwen3", TOOLED, {}, "", "", ""),
    ("qwen3", row("Hi", INLINE), {}, "", "", ""),
    ("qwen3", {"messages": row("Hi", INLINE)["messages"] + row("And?", INLINE)["messages"]}, {},
        "content of message 1: 'A greeting, so I greet.'", "", "`--turns last`"),
    ("deepseek_r1_distill", row("Hi", INLINE), {}, "content of message 1", "", "qwen3_training"),
    ("qwen3", row("Hi", f"So: {INLINE}"), {}, "message 1: 'So:'", "", "`--template chatml`"),
    ("llama3_1", TOOLED | {"messages": [*CALLED[:1], CALLED[1] | {"content": "So"}, *CALLED[2:]]},
        {}, "content of message 1: 'So'", "", "--template qwen3`"),
    (SICK["system-dropped"], BRIEF, {}, "", "content of message 0: 'Be brief.'", "first message"),
    (SICK["system-dropped"], BRIEF, {"turns": "everything"}, "of message 0", "", "first message"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(LOST)))
@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_text_of_rows_that_is_left_out_is_counted_with_a_remedy(case, with_tokenizer):
    template, held, options, lost, left_out, remedy = LOST[case]
    rows = [row("Hi there", "Hello to you"), held, held]
    options |= {"tokenizer": make_tokenizer()} if with_tokenizer else {}
    found = {f.code: f for f in examine(template, conversations=rows, **options).problems}
    for code, said in (("rows-text-lost", lost), ("rows-text-left-out", left_out)):
        assert (code in found) == bool(said)
        if said:
            assert (found[code].level == "error") == (code == "rows-text-lost")
            assert found[code].rows == (2, 3)
            assert said in found[code].what
            assert remedy in found[code].remedy


def test_notes_are_of_what_training_does():
    """After the field's 11_plain.jsonl with glm4moe: training writes the eos that was asked for."""
    rows = [row("Name number 1 in words, please.", "It is the number 1.")]
    found = examine("glm4moe", tokenizer=make_tokenizer(), conversations=rows)
    assert of(found, "last-turn-open").level == "note"
    assert "append_eos" not in str(found)
    assert "`--start generation`" in of(found, "text-before-answer").remedy
    assert "`--turns last`" in of(found, "thinking-stripped").remedy
    followed = codes("qwen3", turns="last", start="generation")
    assert {*codes("qwen3")} - {*followed} == {
        "text-before-answer", "thinking-stripped", "history-changes",
    }  # fmt: skip
    assert "text-before-answer" not in codes("qwen3", conversations=[TOOLED])
    # An eos that is written after the last answer is learned, and may be cut off.
    bare = "{% for m in messages %}|{{ m.role }}: {{ m.content }}{% endfor %}"
    one = [row("Hi", "Ho")]
    length = len("|user: Hi|assistant: Ho")
    options = {"tokenizer": make_tokenizer(), "conversations": one}
    assert "rows-cut" in codes(bare, max_length=length, **options)
    assert "rows-cut" not in codes(bare, max_length=length + 1, **options)


def test_a_template_that_is_not_there_is_refused():
    with pytest.raises(TemplateError, match="no-such-template"):
        examine("no-such-template")


@pytest.mark.parametrize("name", TRL["problems"])
def test_published_templates(name):
    found = sorted({*codes(name)} - {"no-generation-marks"})
    assert found == TRL["problems"][name]


FAMILY_NOTES = {
    "llama-3": ["content-trimmed"],
    "mistral": ["alternation-required", "content-trimmed"],
    "gemma": ["system-refused", "alternation-required", "content-trimmed"],
    "alpaca": ["adds-text"],
    "vicuna": ["adds-text"],
    "article": ["system-refused"],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_the_lab_are_sound_and_fit_its_own_tokenizer(name, toy_tokenizer):
    """Its eos ends the turns of the families without an end of their own; every marker is known."""
    found, notes = examine(name), FAMILY_NOTES.get(name, [])
    assert [(f.code, f.level) for f in found.problems] == [(code, "note") for code in notes]
    assert found.end_of_turn == FAMILIES[name].end()
    extra = [code for code in codes(name, tokenizer=toy_tokenizer) if code not in notes]
    expected = ["end-not-stop"] if FAMILIES[name].end_of_turn else []
    assert extra == expected + ["prompt-tokens"] * (name == "llama-3")  # it ends in two line breaks
