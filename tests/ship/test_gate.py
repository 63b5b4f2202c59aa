"""The gate opens on honest conversions of a trained run, and shuts on broken ones that still answer
well. What is broken is broken on purpose, in a copy."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from sftlab.ship import (
    BOUNDS,
    FORMS,
    TYPES,
    Bounds,
    GateError,
    GgufError,
    LlamaCpp,
    Question,
    ReleaseError,
    Transformers,
    along,
    convert,
    free_texts,
    gate,
    interleave,
    release,
    release_questions,
    write_gguf,
)
from sftlab.ship.runtimes import Step
from sftlab.train import load_run

TEXTS = free_texts(60)


@pytest.fixture(scope="module")
def questions(run, saved):
    return release_questions(run, saved)


@pytest.fixture(scope="module")
def judged(run, questions):
    """What the gate says of a candidate."""

    def judge(candidate, kind, asked=120):
        how = {"texts": TEXTS, "max_new_tokens": 12}
        return gate(Transformers(run), candidate, questions[:asked], kind=kind, **how)

    return judge


def changed(run, change):
    """The run with another model: a copy that was changed."""
    model = copy.deepcopy(run.model)
    change(model)
    return replace(run, model=model)


def unpermute(model):
    """So that the writer's own order gives the order of transformers."""
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    for name, weight in model.named_parameters():
        if (part := name.split(".")[-2]) in heads:
            rows = torch.arange(len(weight))
            weight.data[interleave(rows[:, None], heads[part])[:, 0]] = weight.data.clone()


@pytest.mark.parametrize("type", TYPES)
def test_opens_on_honest_gguf(run, judged, tmp_path, type):
    found = judged(LlamaCpp(write_gguf(run, tmp_path / "model.gguf", type)), type)
    assert found.passed, found.verdict


@pytest.mark.parametrize("precision", ["bf16", "f16", "int8", "nf4"])
def test_opens_on_other_precisions(run, judged, precision):
    found = judged(Transformers(convert(run, precision)), precision)
    assert found.passed, found.verdict


@pytest.mark.parametrize("type", ["f32", "q4_0"])
def test_shuts_on_queries_and_keys_that_are_not_permuted(run, judged, tmp_path, type):
    broken = changed(run, unpermute)
    file = write_gguf(broken, tmp_path / "model.gguf", type)
    found = judged(LlamaCpp(file), type)
    assert "difference" in found.failed
    assert {"prompts", "texts", "stops", "contract"}.isdisjoint(found.failed)


def test_undone_permutation_is_the_identity():
    rows = torch.arange(24).reshape(12, 2)
    assert interleave(rows, 2)[:, 0].tolist() == [0, 6, 2, 8, 4, 10, 12, 18, 14, 20, 16, 22]


def set_rope(model):
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 500_000.0}


def set_epsilon(model):
    model.config.rms_norm_eps = 1e-2


def set_stops(model):
    model.generation_config = GenerationConfig(eos_token_id=[0], pad_token_id=1)


@pytest.mark.parametrize("change", [set_rope, set_epsilon])
def test_shuts_on_a_file_with_wrong_values(run, judged, tmp_path, change):
    broken = changed(run, change)
    found = judged(LlamaCpp(write_gguf(broken, tmp_path / "model.gguf", "f32")), "f32")
    assert "difference" in found.failed
    assert "refused by the gate: difference" in found.verdict


def test_shuts_where_a_stop_id_is_lost(run, judged):
    found = judged(Transformers(changed(run, set_stops)), "f32")
    assert {"stops", "contract"} <= set(found.failed)
    assert "runs over [3]" in found.verdict


def test_shuts_on_another_template_and_another_vocabulary(run, judged):
    other = copy.deepcopy(run.tokenizer)
    other.chat_template = other.chat_template.replace(
        "message['content']", "message['content'] | trim"
    )
    found = judged(Transformers(replace(run, tokenizer=other)), "f32", asked=4)
    assert found.failed == ["contract"]  # no question here has outer spaces
    other = copy.deepcopy(run.tokenizer)
    other.add_tokens([" the capital"])
    found = judged(Transformers(replace(run, tokenizer=other)), "f32", asked=4)
    assert {"texts", "contract"} <= set(found.failed)


def step(token, **likeliest):
    return Step(token, {int(k[1:]): v for k, v in likeliest.items()})


def test_near_tie_is_counted_apart():
    sure = step(1, t1=-0.1, t2=-3.0)
    tie = step(2, t2=-0.70, t3=-0.72)
    other = step(3, t3=-0.69, t2=-0.71)
    found = along([[sure, tie, sure]], [[sure, other, sure, sure]])
    assert found["place"].tolist() == [0, 1]  # nothing is compared behind the first flip
    assert found["gap"].tolist() == pytest.approx([2.9, 0.02])
    assert found["difference"].tolist() == pytest.approx([0, 0.01])


def test_many_near_ties_shut_it(run, judged):
    """Where the end of turn became a near-tie, every answer runs on."""

    def blur(model):
        twin, weight = 33, model.get_output_embeddings().weight.data
        weight[twin] = weight[3] * 1.02  # a token that the task doesn't use, a little above the end

    found = judged(Transformers(changed(run, blur)), "nf4")
    assert "flips" in found.failed


def test_without_known_answers_accuracy_is_not_measured(run, questions):
    asked = [Question(messages=one.messages) for one in questions[:4]]
    found = gate(Transformers(run), Transformers(run), asked, kind="f32", texts=TEXTS[:5])
    score = found.table.set_index("check").loc["score"]
    assert score["passed"] is None
    assert "not measured" in score["measured"]
    assert found.passed
    assert "not measured: score" in found.verdict


def test_few_subjects_show_no_equality_but_a_fall_is_seen(run, questions):
    def score(candidate):
        found = gate(Transformers(run), candidate, questions[:12], kind="f32", texts=TEXTS[:5])
        return found.table.set_index("check").loc["score", "passed"]

    assert score(Transformers(run)) is None
    assert score(Transformers(changed(run, lambda m: m.model.norm.weight.data.zero_()))) is False


@pytest.mark.parametrize(("to", "type"), [("merged", "f32"), ("nf4", "nf4"), ("gguf", "q8_0")])
def test_release_holds_what_a_server_needs(saved, tmp_path, questions, to, type):
    out = tmp_path / "out"
    made = release(saved, out, to=to, type=type, questions=questions[:20])
    report = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    assert report["passed"]
    assert report["questions"] == 20
    contract = json.loads((out / "contract.json").read_text(encoding="utf-8"))
    assert contract["stop_ids"] == [3, 0]
    assert contract["files"]
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert all(program in readme for program in made.serve)
    assert str(out.parent) not in readme
    if to != "gguf":
        load_run(out)
    with pytest.raises(ReleaseError, match="not empty"):
        release(saved, out, to=to)
    if to == "nf4":
        with pytest.raises(ReleaseError, match="give the run it was made from"):
            release(out, tmp_path / "again", to="merged")


def test_nothing_is_written_when_the_gate_refuses(saved, tmp_path, questions, monkeypatch):
    monkeypatch.setitem(BOUNDS, "q4_0", Bounds(1e-6, 1e-6, 1.0))
    with pytest.raises(GateError, match="refused by the gate: difference") as refusal:
        release(saved, tmp_path / "out", to="gguf", type="q4_0", questions=questions[:5])
    assert refusal.value.gate.failed[0] == "difference"
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_written_is_refused(run, saved, tmp_path, toy_base):
    with pytest.raises(GgufError, match="q8_0"):
        write_gguf(run, tmp_path / "a", "q5_1")
    for change in ({"model_type": "qwen3"}, {"attention_bias": True}):
        other = changed(run, lambda model, c=change: vars(model.config).update(c))
        with pytest.raises(GgufError, match="convert_hf_to_gguf"):
            write_gguf(other, tmp_path / "a")
    with pytest.raises(ReleaseError, match="merged, nf4, gguf"):
        release(saved, tmp_path / "b", to="onnx")
    with pytest.raises(ReleaseError, match=", ".join(FORMS["gguf"])):
        release(saved, tmp_path / "b", to="gguf", type="q2_k")
    assert not list(tmp_path.iterdir())
