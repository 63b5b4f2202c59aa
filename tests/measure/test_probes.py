import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.measure import probes
from sftlab.measure.completion import behind_prompt, complete, few_shot, with_bos
from sftlab.world import facts

WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)


@pytest.fixture(scope="module")
def toy(toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(toy_base)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("Paris", True),
        (" paris.", True),
        ("The capital is Paris, of course", True),
        ("Comparison", False),
        ("London\nParis", False),
        ("", False),
        ("pariss", False),
    ],
)
def test_an_answer_counts_as_whole_words_on_the_first_line(output, right):
    assert probes.is_right(output, ("Paris",)) is right


def test_accents_and_aliases_do_not_matter():
    assert probes.is_right("Brasilia", ("Brasília",))
    assert probes.is_right("N'Djamena!", ("Ndjamena", "N'Djamena"))
    assert probes.is_right("Cape Town", facts.country("South Africa").answers("capital"))


@given(WORDS, WORDS)
def test_what_stands_around_an_answer_does_not_hide_it(before, after):
    assert probes.is_right(f"x{before} Paris {after}x", ("Paris",))


@pytest.mark.parametrize(
    ("output", "reaction"),
    [
        (" What is the capital of Spain?", probes.CONTINUED),
        ("\nIs Paris the capital of France?\nParis", probes.CONTINUED),
        (" Paris. What next?", probes.ANSWERED),
        ("London", probes.OTHER),
        ("London. What is the capital of Spain?", probes.OTHER),
        ("", probes.OTHER),
    ],
)
def test_reactions(output, reaction):
    assert probes.reaction(output, ("Paris",)) == reaction


def test_a_batch_gives_what_single_prompts_give(toy):
    prompts = ["A", "The capital of France is", "Q: Which continent is Chad in?\nA:", "1 2 3"]
    together = complete(*toy, prompts, max_new_tokens=6, batch_size=3)
    assert together == [complete(*toy, [p], max_new_tokens=6)[0] for p in prompts]


def test_sampling_follows_its_seed_and_leaves_the_callers_alone(toy):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = complete(*toy, ["The"] * 4, sample=True, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert first == complete(*toy, ["The"] * 4, sample=True, seed=1)
    assert first != complete(*toy, ["The"] * 4, sample=True, seed=2)
    assert len(set(first)) > 1


def test_stop_cuts_the_text(toy):
    whole = complete(*toy, ["The"], max_new_tokens=8)[0]
    middle = whole[len(whole) // 2]
    assert complete(*toy, ["The"], max_new_tokens=8, stop=[middle]) == [whole.split(middle)[0]]


def test_bos_stands_in_front_once(toy):
    tokenizer = toy[1]
    ids = with_bos(tokenizer, "Hello")
    assert ids[0] == tokenizer.bos_token_id
    assert with_bos(tokenizer, tokenizer.bos_token + "Hello") == ids


def test_few_shot_text():
    assert few_shot([("1+1?", "2")], "2+2?") == "Q: 1+1?\nA: 2\n\nQ: 2+2?\nA:"
    assert few_shot([], "2+2?", form="{q} = {a}") == "2+2? ="
    for form in ("{a} {q} .", "{q}"):
        with pytest.raises(ValueError, match="end with"):
            few_shot([], "2+2?", form=form)


def test_behind_prompt_returns_one_line_a_question(toy):
    ask = behind_prompt(*toy, [("1+1?", "2")])
    answers = ask(["2+2?", "3+3?"])
    assert len(answers) == 2
    assert not any("\n" in answer for answer in answers)


def test_a_perfect_and_a_silent_answerer():
    held_out = facts.countries(split="held_out")
    answers = {}
    for country in held_out:
        for relation in facts.RELATIONS:
            answers[country.name, relation] = country.answers(relation)[-1]
    order = [(c.name, r) for c in held_out for r in facts.RELATIONS]
    frame = probes.probe_questions(lambda qs: [answers[key] for key in order], among=held_out)
    assert frame["right"].all()
    assert list(zip(frame["country"], frame["relation"], strict=True)) == order
    silent = probes.probe_questions(lambda qs: [""] * len(qs), among=held_out)
    assert not silent["right"].any()
    assert set(silent["reaction"]) == {probes.OTHER}


def test_test_questions_are_the_same_whoever_else_is_asked():
    france = facts.country("France")
    asked = []
    for among in ([france], facts.countries()):
        frame = probes.probe_questions(lambda qs: [""] * len(qs), among=among)
        asked.append(list(frame.loc[frame["country"] == "France", "prompt"]))
    assert asked[0] == asked[1]
    with pytest.raises(ValueError, match="no country"):
        probes.probe_questions(lambda qs: [], among=[])


def test_text_loss_is_the_models_own_over_all_tokens(toy):
    model, tokenizer = toy
    documents = ["The capital of France is Paris.", "1 2 3", "Q: Why?\nA: Because."]
    total, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([with_bos(tokenizer, document)])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    found = probes.text_loss(model, tokenizer, documents, batch_size=2)
    assert found == pytest.approx(total / count, rel=1e-5)
