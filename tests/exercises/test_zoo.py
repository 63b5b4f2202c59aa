"""The bug zoo: every specimen is trained anew, with and without its fault; what is said of it."""

import pytest

from sftlab.exercises.specimens import WAYS
from sftlab.exercises.zoo import EVIDENCE, FAULTS, SPECIMENS, Zoo, ZooError, shows

NUMBERS = range(1, len(SPECIMENS) + 1)
every_specimen = pytest.mark.parametrize("number", NUMBERS, ids=[s["fault"] for s in SPECIMENS])


@pytest.fixture(scope="module")
def zoo():
    return Zoo("tiny", seeds=1)  # as the lesson has in tests/browser: its runs are in the cache


def number_of(fault):
    return 1 + [one["fault"] for one in SPECIMENS].index(fault)


@every_specimen
class TestSpecimen:
    def test_symptom_is_there_and_not_where_the_fault_is_switched_off(self, zoo, number):
        assert shows(number, effect := zoo.effect(number)), str(effect)
        assert not shows(number, zoo.effect(number, switched_off=True))

    def test_right_diagnosis_is_accepted_with_its_evidence_alone(self, zoo, number):
        one = SPECIMENS[number - 1]
        said = {e: zoo.diagnose(number, fault=one["fault"], evidence=e).text for e in EVIDENCE}
        accepted = {name for name, text in said.items() if f"Specimen {number}: right" in text}
        assert accepted == set(one["evidence"])

    def test_no_message_about_a_wrong_guess_names_the_fault(self, zoo, number):
        own = SPECIMENS[number - 1]["fault"]
        for guess in FAULTS.keys() - {own}:
            card = zoo.diagnose(number, fault=guess, evidence="loss")
            assert guess in card.text
            for hidden in (own, FAULTS[own]["what"], FAULTS[own]["signs"]):
                assert hidden not in card.text
                assert hidden not in card.html

    def test_exhibits_name_no_fault(self, zoo, number):
        card = zoo.show(number)
        assert SPECIMENS[number - 1]["fault"] not in card.html
        assert all(name in card.text for name in EVIDENCE)

    def test_solution_is_folded_where_a_page_shows_it(self, zoo, number):
        card = zoo.without_fault(number)
        before, folded = card.html.split("<details>")
        fault = SPECIMENS[number - 1]["fault"]
        assert fault not in before
        assert fault in folded
        assert fault in card.text
        assert "not enough" not in card.text.replace("*", "")


class TestExactFaults:
    def test_a_mean_of_means_is_off_and_a_mean_of_tokens_at_no_step(self, zoo):
        number = number_of("mean_of_means")
        assert (zoo.values(number, fault=True)["off"] > 0.9).all()
        assert (zoo.values(number, fault=False)["off"] == 0).all()

    def test_loss_on_everything_has_a_label_on_every_token(self, zoo):
        number = number_of("loss_on_everything")
        assert (zoo.values(number, fault=True)["supervised"] == 1).all()
        assert (zoo.values(number, fault=False)["supervised"] < 0.3).all()

    def test_both_ways_to_lose_the_end_of_turn_train_the_same_model(self, zoo):
        faults = ("pad_is_eos", "end_of_turn_masked")
        one, other = (zoo.values(number_of(fault), fault=True) for fault in faults)
        assert one["output"].tolist() == other["output"].tolist()


class TestNames:
    def test_not_attempted_says_so_without_training(self):
        zoo = Zoo("no such profile")
        assert "not attempted" in zoo.diagnose(1, fault=..., evidence=...).text
        assert "not attempted" in zoo.diagnose(1, fault="wrong_eos", evidence=...).text

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"fault": "wrong_eso", "evidence": "mask"}, "did you mean .*wrong_eos"),
            ({"fault": "wrong_eos", "evidence": "masks"}, "did you mean mask"),
            ({"fault": None, "evidence": "mask"}, "none of the table's names"),
        ],
    )
    def test_unknown_name_is_answered_by_near_ones(self, given, said):
        with pytest.raises(ZooError, match=said):
            Zoo("no such profile").diagnose(1, **given)

    @pytest.mark.parametrize("number", [0, len(SPECIMENS) + 1, "1"])
    def test_unknown_specimen(self, number):
        with pytest.raises(ZooError, match=f"1 to {len(SPECIMENS)}"):
            Zoo().show(number)

    def test_every_fault_has_a_specimen_and_texts_fit_together(self):
        assert [one["fault"] for one in SPECIMENS] != sorted(FAULTS)
        assert {one["fault"] for one in SPECIMENS} == set(FAULTS)
        assert len(SPECIMENS) >= 14
        for one in SPECIMENS:
            assert set(one["evidence"]) <= set(EVIDENCE)
            assert FAULTS[one["fault"]]["look"][0] in one["evidence"]
            for training, asked in (one["with"], one["without"]):
                assert asked in WAYS.get(training, [""])
            assert one["with"] != one["without"]
