"""The exported tasks, run by lm-eval on a saved fine-tune, agree with ours to the item."""

import pytest

from sftlab.measure.likelihood import probe_choices
from sftlab.measure.lm_eval_tasks import export_tasks
from sftlab.measure.probes import probe_questions
from sftlab.profiles import find_profile
from sftlab.train import finetune
from sftlab.world import countries, country_examples

AMONG = countries(split="held_out")[::12]
QUICK = {"progress": False, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def run():
    """Trained so little that some of its answers are wrong."""
    return finetune("tiny", country_examples(40), **QUICK)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Holds the run and the tasks."""
    folder = tmp_path_factory.mktemp("lm-eval")
    run.save(folder / "run")
    assert export_tasks(folder / "tasks", among=AMONG) == ["sftlab_questions", "sftlab_choices"]
    return folder


def evaluate(folder, name, *, chat, stop=None, **model):
    """What lm-eval says of each item of a task, in the order of the file."""
    import huggingface_hub
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        done = simple_evaluate(
            model="hf",
            model_args={"dtype": "float32", "add_bos_token": not chat, **model},
            tasks=[name],
            apply_chat_template=chat,
            device="cpu",
            bootstrap_iters=0,
            gen_kwargs=f"eos_token_id={stop}" if stop else None,
            batch_size=16,
            task_manager=TaskManager(include_path=str(folder / "tasks")),
        )
    return sorted(done["samples"][name], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_generated_answers_agree_to_the_item(run, folder, tmp_path, method):
    saved = {"pretrained": str(folder / "run")}
    if method == "lora":
        run = finetune("tiny", country_examples(120), method="lora", **QUICK)
        adapter = str(run.save(tmp_path / "run"))
        saved = {"pretrained": find_profile("tiny").source, "peft": adapter, "tokenizer": adapter}
        # An adapter's folder has no say in when the base stops.
        saved["stop"] = run.tokenizer.eos_token_id
    found = evaluate(folder, "sftlab_questions", chat=True, **saved)
    ours = probe_questions(run.answer, among=AMONG)
    assert [one["doc"]["question"] for one in found] == list(ours["prompt"])
    assert [one["filtered_resps"][0].strip() for one in found] == list(ours["output"].str.strip())
    assert [bool(one["exact_match"]) for one in found] == list(ours["right"])
    assert 0 < ours["right"].mean() < 1


def test_choices_agree_to_the_item(run, folder):
    ours = probe_choices(run.model, run.tokenizer, among=AMONG)
    found = evaluate(folder, "sftlab_choices", chat=False, pretrained=str(folder / "run"))
    for one, row in zip(found, ours.itertuples(), strict=True):
        assert one["doc"]["choices"] == row.choices
        said = [float(answer[0]) for answer in one["filtered_resps"]]
        assert said == pytest.approx(row.likelihoods, abs=1e-3)
        assert one["acc"] == row.mc1
    assert 0 < ours["mc1"].mean() < 1


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not empty"):
        export_tasks(tmp_path, among=AMONG)
