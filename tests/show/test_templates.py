"""Conversations side by side and the doctor's findings: what is bold, shaded, refused, escaped."""

import re
from html import unescape

from sftlab.chat import FAMILIES, Diagnosis, Finding, examine, find_template
from sftlab.show.templates import findings, side_by_side

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
SYSTEM = [{"role": "system", "content": "Brief."}, *TALK]


def rows(page):
    """The cells of each row but the first."""
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.S)
            for row in page.data.split("<tr>")[2:]]  # fmt: skip


def plain(cell):
    return unescape(re.sub(r"<[^>]*>", "", cell.replace("↵", "")))


def test_each_row_reads_as_the_template_renders(toy_tokenizer):
    for (name, text, count), family in zip(
        rows(side_by_side(list(FAMILIES), TALK, tokenizer=toy_tokenizer)), FAMILIES, strict=True
    ):
        rendered = find_template(family, tokenizer=toy_tokenizer).render(TALK)
        assert name == family
        assert plain(text) == rendered
        assert int(count) == len(toy_tokenizer(rendered, add_special_tokens=False)["input_ids"])


def test_answer_with_its_end_is_shaded_and_nothing_else():
    for (_, text), family in zip(rows(side_by_side(list(FAMILIES), TALK)), FAMILIES, strict=True):
        marked = re.findall(r"<mark[^>]*>(.*?)</mark>", text, flags=re.S)
        assert [plain(one) for one in marked] == [f"Ho{FAMILIES[family].end()}"], family


def test_tokens_of_the_template_are_bold_and_breaks_are_seen():
    ((_, text),) = rows(side_by_side(["llama-3"], TALK))
    bold = [plain(one) for one in re.findall(r"<b>(.*?)</b>", text)]
    header = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    assert bold == ["<|begin_of_text|>", *header, *header]
    assert text.count("↵") == find_template("llama-3").render(TALK).count("\n") == 4


def test_generation_prompt_stands_at_the_end():
    ((_, text),) = rows(side_by_side(["chatml"], TALK[:1], add_generation_prompt=True))
    assert plain(text).endswith("<|im_start|>assistant\n")


def test_a_refusal_is_said_in_the_templates_words():
    (_, refused), (_, rendered) = rows(side_by_side(["gemma", "chatml"], SYSTEM))
    assert plain(refused).startswith("refused: Gemma has no system role")
    assert "Brief." in rendered


def test_content_is_no_markup():
    ((_, text),) = rows(side_by_side(["chatml"], [{"role": "user", "content": "<script>&"}]))
    assert "<script>" not in text
    assert "<script>&" in plain(text)


def test_findings_say_what_to_do_and_name_what_is_sound():
    found = rows(findings(examine("{% for m in messages %}{{ m.content }}{% endfor %}")))
    assert "error" in found[0][1]
    assert "Do:" in found[0][2]
    assert "ok" in found[-1][1]
    assert "system" in found[-1][2]


def test_findings_without_anything_sound():
    finding = Finding(level="note", code="x", what="a < b")
    made = Diagnosis(template="t", end_of_turn=None, rows=None, findings=(finding,))
    ((name, level, what),) = rows(findings(made))
    assert (name, what) == ("t", "a &lt; b")
    assert "note" in level
