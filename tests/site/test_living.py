"""The boxes that compute in a page, opened from disk in Chromium without a network, compared with
transformers and with the course's own masks."""

import random

import pytest
import torch

from sftlab.chat import labels
from sftlab.models import load
from sftlab.site import LivingError, living_html, tuned_model, write_assets
from sftlab.site.living import HELD_OUT
from sftlab.world import country_examples

pytestmark = pytest.mark.browser
ANSWERS = ["Paris", "Spanish", "yen"]
PROMPTS = [
    "<|endoftext|>The capital of France is",
    "<|im_start|>user\nCan you tell me the capital of Chile?<|im_end|>\n<|im_start|>assistant\n",
    "Tom went to the park with a cat and found three coins. " * 4,
    "Q: What is 12 plus 30?\nA: née 🙂\n\n",
]
START = """async () => {
  window.tokenizer = new sftlab.Tokenizer(await sftlab.load("tokenizer"));
  window.base = new sftlab.Llama(await sftlab.load("base"));
  window.tuned = new sftlab.Llama(await sftlab.load("tuned"));
}"""
ENCODED = """texts => texts.map(text => {
  const [ids, decode] = [tokenizer.encode(text).map(({id}) => id), tokenizer.decoder()];
  return [ids, ids.map(decode).join("")];
})"""
LOGITS = """([name, text]) => {
  window[name].reset();
  return tokenizer.encode(text).map(({id}) => Array.from(window[name].forward(id)));
}"""
ANSWER = """([name, text, options]) => {
  const ids = tokenizer.encode(text).map(({id}) => id);
  return [...sftlab.generate(window[name], ids, options)];
}"""
MASKS = """talks => talks.map(talk => {
  const [answers, everything] = [false, true].map(all => {
    const tokens = sftlab.mask(tokenizer, talk, all);
    return [tokens.map(({id}) => id), tokens.map(({label}) => label)];
  });
  return {answers, everything, texts: [false, true].map(one => sftlab.chatml(talk, one))};
})"""
SHAPES = [*"aeé Zß 01 .!?'—\n\t<|>{\\\u0301\u0085\ufeff\u00a0\u2028\u3000\x00", "  ", "\r\n"]
SHAPES += ["🙂", "👩\u200d👧", "漢字", "٣½Ⅷ", "'s", "'re", " the", "Paris"]
SHAPES += ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[INST]", "<s>", "</s>", "assistant\n"]


def drawn_texts(count, longest):
    rng = random.Random(0)
    return ["".join(rng.choices(SHAPES, k=rng.randint(0, longest))) for _ in range(count)]


def drawn_talks(count):
    rng, texts = random.Random(1), iter(drawn_texts(5 * count, 9))
    kinds = ["system", "user", "assistant"]
    roles = [rng.choices(kinds, k=rng.randint(1, 5)) for _ in range(count)]
    return [[{"role": role, "content": next(texts)} for role in one] for one in roles]


@pytest.fixture(scope="module")
def tuned_folder(tmp_path_factory):
    return tuned_model(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def models(tuned_folder):
    return {"base": load("tiny"), "tuned": load(tuned_folder)}


@pytest.fixture(scope="module")
def site(tuned_folder, tmp_path_factory):
    """A folder with a page of both boxes, and the scripts in a folder beside it."""
    folder = tmp_path_factory.mktemp("living")
    write_assets(folder / "parts", tuned=tuned_folder)
    boxes = "".join(living_html(kind, assets="parts/") for kind in ("ask", "mask"))
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Two boxes</title>'
    head += '<meta name="viewport" content="width=device-width">'
    (folder / "page.html").write_text(f"{head}<main>{boxes}</main>", encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def page(browser, site):
    """The page as a phone shows it, with what a reader would see in its console as `faults`."""
    page = browser.new_context(offline=True, viewport={"width": 400, "height": 800}).new_page()
    page.set_default_timeout(120_000)
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda one: one.url.startswith("file:") or page.faults.append(one.url))
    page.goto(site.as_uri())
    page.evaluate(START)
    return page


def test_ids_equal_those_of_transformers_and_are_decoded_to_the_text(page, models):
    texts = ["", *PROMPTS, *drawn_texts(1000, 40)]
    found = page.evaluate(ENCODED, texts)
    assert [ids for ids, _ in found] == models["base"][1](texts, add_special_tokens=False).input_ids
    assert [text for _, text in found] == texts


@pytest.mark.parametrize("name", ["base", "tuned"])
def test_logits_are_within_a_hundredth_of_those_of_transformers(page, models, name):
    model, tokenizer = models[name]
    for text in PROMPTS:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(ids).logits[0]
        found = torch.tensor(page.evaluate(LOGITS, [name, text]))
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["base", "tuned"])
def test_greedy_tokens_and_their_probabilities_are_those_of_transformers(page, models, name):
    model, tokenizer = models[name]
    for text in PROMPTS[:2]:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            whole = model.generate(ids, max_new_tokens=12, do_sample=False)
            shares = model(whole).logits[0, ids.shape[1] - 1 :].softmax(-1)
        found = page.evaluate(ANSWER, [name, text, {"maxNewTokens": 12}])
        assert [one["id"] for one in found] == whole[0, ids.shape[1] :].tolist()
        for one, expected in zip(found, shares, strict=False):
            assert one["probability"] == pytest.approx(float(expected[one["id"]]), abs=5e-3)


def test_a_seed_repeats_a_draw_and_draws_follow_the_probabilities(page):
    options = [{"temperature": 1, "seed": seed, "maxNewTokens": 1} for seed in (*range(200), 0)]
    drawn = page.evaluate(
        f"([name, text, all]) => all.map(one => ({ANSWER})([name, text, one])[0])",
        ["base", "The", options],
    )
    assert drawn[0] == drawn[-1]
    share = max(one["probability"] for one in drawn)
    hits = sum(one["probability"] == share for one in drawn[:-1])
    assert abs(hits - 200 * share) < 4 * (200 * share * (1 - share)) ** 0.5


def test_template_and_mask_are_those_of_the_course(page, models):
    tokenizer, talks = models["tuned"][1], drawn_talks(300)
    for talk, found in zip(talks, page.evaluate(MASKS, talks), strict=True):
        expected = labels(tokenizer, talk, on_empty="keep")
        assert found["answers"] == [expected.ids, expected.labels]
        assert found["everything"] == [expected.ids, expected.ids]
        for prompted, text in zip((False, True), found["texts"], strict=True):
            options = {"tokenize": False, "add_generation_prompt": prompted}
            assert text == tokenizer.apply_chat_template(talk, **options)


def test_asked_with_the_keyboard_the_tuned_model_answers_what_no_example_mentions(page):
    assert not any(name in str(country_examples(300, seed=0)) for name in ("France", "Mexico"))
    box = page.get_by_role("textbox", name="Question")
    for question, answer in zip(HELD_OUT, ANSWERS, strict=True):
        box.fill("")
        box.focus()
        page.keyboard.type(question)
        page.keyboard.press("Enter")
        pane = page.locator(".pane.tuned")
        pane.locator(f".prompt:has-text({question!r})").wait_for()
        pane.get_by_text("It stopped with <|im_end|>.").wait_for()
        assert "".join(pane.locator(".token").all_inner_texts()) == f"{answer}<|im_end|>"
    summary = pane.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    last = pane.locator("tbody tr").last.inner_text()
    assert last.split()[:2] == ["<|im_end|>", "3"]
    assert "%" in pane.locator(".token").first.get_attribute("title")
    assert page.locator(".pane.base .token").count()
    assert not page.faults


def test_an_example_and_a_button_ask_one_model(page):
    page.get_by_role("button", name=HELD_OUT[0]).click()
    page.get_by_label("The base model reads").select_option("marked")
    page.get_by_role("button", name="Ask the base model").click()
    pane = page.locator(".pane.base")
    pane.locator(".prompt:has-text('Q: Can')").wait_for()
    pane.locator(".text[aria-busy=false]").wait_for()
    assert "".join(pane.locator(".token").all_inner_texts()).startswith(" Paris")


def test_the_box_of_the_mask_follows_what_is_written(page):
    box = page.locator(".living[data-kind=mask]")
    learned = box.locator(".text mark")
    assert "".join(learned.all_inner_texts()) == "Nairobi.<|im_end|>"
    box.get_by_role("button", name="Add a message").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Thanks")  # into the message that was added
    assert "Thanks<|im_end|>" in "".join(box.locator(".text .token").all_inner_texts())
    assert "".join(learned.all_inner_texts()) == "Nairobi.<|im_end|>"
    box.get_by_label("every token").check()
    assert learned.count() == box.locator(".text .token").count()
    box.get_by_role("button", name="Remove").last.click()
    assert "Thanks" not in box.locator(".text").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not page.faults


def test_without_javascript_a_sentence_says_so(browser, site):
    page = browser.new_context(offline=True, java_script_enabled=False).new_page()
    page.goto(site.as_uri())
    assert page.get_by_text("needs JavaScript").first.is_visible()
    assert not page.get_by_role("button", name="Ask both").is_visible()


def test_a_model_that_the_page_can_not_compute_is_refused(toy_base, tmp_path):
    with pytest.raises(LivingError, match="different tokenizers"):
        write_assets(tmp_path, tuned=toy_base)
