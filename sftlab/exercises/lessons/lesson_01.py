"""Exercises of lesson 01: probability of an answer, prompts, a fair comparison, what to do."""

from math import log, prod

import pandas as pd

from sftlab.exercises.definitions import Exercise

likely = Exercise(
    "01.1",
    "The probability of an answer",
    after="2. Decoding is not the problem",
    minutes=10,
    difficulty=2,
    task="""
    How likely is it that a model goes on with one particular answer? `ids` are the tokens of the
    prompt followed by those of the answer, and the first `prompt_length` of them are the prompt.
    `probabilities` has one row for each position: `probabilities[t][token]` is the probability of
    `token` as the next one, after the model has read the positions 0 to `t`. Return the
    probability that sampling at temperature 1 continues the prompt with the whole answer.
    """,
    hints=(
        "Which row is the prediction about the token at position 5? Not row 5, which has read it.",
        "Sampling has to draw the first token of the answer, and then the second, and so on.",
        "Multiply `probabilities[t - 1][ids[t]]` over all `t` in "
        "`range(prompt_length, len(ids))`; `math.prod` multiplies.",
    ),
    imports="from math import prod",
)


@likely.draw
def predictions(random):
    length = random.randint(2, 4)
    rows = [random.choice([[0.1, 0.9], [0.7, 0.3], [0.4, 0.6], [0.8, 0.2]]) for _ in range(length)]
    return rows, [random.randint(0, 1) for _ in rows], random.randint(1, length - 1)


@likely.stub
def answer_probability(probabilities, ids, prompt_length):
    """The probability of the whole answer after the prompt: a float."""
    return ...


@likely.right
def of_answer(probabilities, ids, prompt_length):
    places = range(prompt_length, len(ids))
    return prod(probabilities[t - 1][ids[t]] for t in places)


@likely.wrong(
    "You look up each token in the row of its own position. That row has already read the token "
    "and predicts the one after it. A model that only copies its input would look perfect if this "
    "mistake were in the loss."
)
def unshifted(probabilities, ids, prompt_length):
    return prod(probabilities[t][ids[t]] for t in range(prompt_length, len(ids)))


@likely.wrong(
    "You count the first token of the answer only. Many wrong answers begin with the same token, "
    "so this can be high for a model that never completes the right one."
)
def first_token(probabilities, ids, prompt_length):
    return probabilities[prompt_length - 1][ids[prompt_length]]


@likely.wrong(
    "You took the mean over the tokens. To get the whole answer, sampling has to draw every one of "
    "them, so a single token that is nearly impossible makes the answer nearly impossible."
)
def mean_of_tokens(probabilities, ids, prompt_length):
    places = range(prompt_length, len(ids))
    return sum(probabilities[t - 1][ids[t]] for t in places) / len(places)


@likely.wrong(
    "You multiply by the probabilities of the prompt's tokens too. The prompt is given, so how "
    "unlikely it is in itself must not change how likely the answer is after it."
)
def with_prompt(probabilities, ids, prompt_length):
    return of_answer(probabilities, ids, 1)


@likely.wrong(
    "You left out the first token of the answer. Its prediction stands in the last row that has "
    "read nothing but the prompt."
)
def from_second_token(probabilities, ids, prompt_length):
    return of_answer(probabilities, ids, prompt_length + 1)


@likely.wrong(
    "You return the logarithm of the probability. That is what code adds up, as `log_softmax` does "
    "in this section; one step is missing at the end."
)
def logarithm(probabilities, ids, prompt_length):
    return log(of_answer(probabilities, ids, prompt_length))


shots = Exercise(
    "01.2",
    "A few-shot prompt",
    after="3. Try a prompt first",
    minutes=8,
    difficulty=1,
    task="""
    Write a few-shot prompt with the marks of this section. `shots` is a list of tuples
    `(question, answer)`, which may be empty. A shot is two lines: `Q: ` with the question and
    `A: ` with its answer. An empty line follows each shot. Last comes the question that is asked,
    in the same form, up to where the model goes on with the answer. The first token that it writes
    will be one such as ` Lima`, with the space in front. Leave out a shot whose question is the
    one that is asked, since it would give the answer away.
    """,
    hints=(
        "Build a list of pieces first and join them at the end.",
        "Print the `repr` of your prompt. Look at its last characters and at what stands between "
        "two shots.",
        'The pieces are `f"Q: {q}\\nA: {a}"` for each shot whose `q` is another question, then '
        '`f"Q: {question}\\nA:"`. Join them with `"\\n\\n"`.',
    ),
)


@shots.draw
def questions(random):
    pairs = [("Capital of Peru?", "Lima"), ("Capital of Mali?", "Bamako"), ("2 + 2?", "4")]
    chosen = random.sample(pairs, random.randint(0, 2))
    return chosen, random.choice(pairs)[0]


@shots.stub
def few_shot_prompt(shots, question):
    """The prompt, up to where the model goes on: a string."""
    return ...


@shots.right
def marked(shots, question):
    pieces = [f"Q: {q}\nA: {a}" for q, a in shots if q != question]
    return "\n\n".join([*pieces, f"Q: {question}\nA:"])


@shots.wrong(
    "Your prompt ends with a space. For most tokenizers the space belongs to the first token of "
    "the answer, so after your prompt the model has to begin with a token that rarely followed a "
    "space in its training text."
)
def trailing_space(shots, question):
    return marked(shots, question) + " "


@shots.wrong(
    "Your prompt ends with the question. Nothing marks the place of an answer, so the model may go "
    "on as it does after a question alone."
)
def no_mark(shots, question):
    return marked(shots, question).removesuffix("\nA:")


@shots.wrong(
    "One of your shots is the question that is asked, with its answer. The model only has to copy "
    "it, and your accuracy measures that."
)
def gives_away(shots, question):
    pieces = [f"Q: {q}\nA: {a}" for q, a in shots]
    return "\n\n".join([*pieces, f"Q: {question}\nA:"])


@shots.wrong(
    "You put the question that is asked before the shots. The model goes on at the end of the "
    "text, so it would continue the last shot."
)
def asked_first(shots, question):
    pieces = [f"Q: {q}\nA: {a}" for q, a in shots if q != question]
    return "\n\n".join([f"Q: {question}\nA:", *pieces])


@shots.wrong(
    "Nothing separates your shots: the empty line after each one is missing. In the training text "
    "it marks where one question with its answer ends."
)
def no_empty_line(shots, question):
    return marked(shots, question).replace("\n\n", "\n")


fair = Exercise(
    "01.3",
    "The gain over the best prompt",
    after="4. A fine-tune answers",
    minutes=6,
    difficulty=2,
    task="""
    Report what a fine-tune gains over prompting. `scores` maps the name of each set-up to two
    accuracies from 0 to 1: `validation`, on questions that were set aside for choosing, and
    `test`, on the questions that the report is about. One set-up is called `fine-tuned`; the others
    are prompts, and the `question alone` is one of them. Compare with the best prompt, and choose
    this prompt so that the comparison is fair. Return the gain as a difference of two shares.
    """,
    hints=(
        "Decide two things: on which questions to choose the prompt, and on which to compare.",
        "Don't report the scores that you chose by: the highest of several scores is partly luck, "
        "so it is too high.",
        'Take `max(prompts, key=lambda name: scores[name]["validation"])`, then subtract its '
        "`test` from that of the fine-tune.",
    ),
)
PROMPTS = ["question alone", "4 shots", "8 shots"]


@fair.draw
def two_scores(random):
    names = [*PROMPTS[: random.randint(2, 3)], "fine-tuned"]
    validation = random.sample(range(1, 10), len(names))  # no two are equal
    return (
        {
            name: {"validation": score / 10, "test": random.randint(1, 9) / 10}
            for name, score in zip(names, validation, strict=True)
        },
    )


@fair.stub
def gain_over_prompts(scores):
    """Accuracy of the fine-tune minus that of the best prompt: a float from -1 to 1."""
    return ...


@fair.right
def chosen_on_validation(scores):
    prompts = [name for name in scores if name != "fine-tuned"]
    best = max(prompts, key=lambda name: scores[name]["validation"])
    return scores["fine-tuned"]["test"] - scores[best]["test"]


def column(scores, part):
    return [both[part] for name, both in scores.items() if name != "fine-tuned"]


@fair.wrong(
    "You chose the prompt by its score on the test and reported that score. The best of several "
    "scores is partly luck, so you make prompting look better than it will be on new questions."
)
def chosen_on_test(scores):
    return scores["fine-tuned"]["test"] - max(column(scores, "test"))


@fair.wrong(
    "You compare with the question alone. Most of such a gain may be what a better prompt brings, "
    "without any training."
)
def over_zero_shot(scores):
    return scores["fine-tuned"]["test"] - scores["question alone"]["test"]


@fair.wrong(
    "You compare with the mean over all prompts. Another poor prompt in the list would then make "
    "the fine-tune look better."
)
def over_the_mean(scores):
    prompts = column(scores, "test")
    return scores["fine-tuned"]["test"] - sum(prompts) / len(prompts)


@fair.wrong(
    "You report the gain on the questions that the prompt was chosen by. Its score there is partly "
    "luck; the other questions were kept for the report."
)
def on_validation(scores):
    return scores["fine-tuned"]["validation"] - max(column(scores, "validation"))


@fair.wrong(
    "You let the fine-tune take part in the choice of the best prompt. Where it wins, you compare "
    "it with itself, and the gain is zero."
)
def with_itself(scores):
    best = max(scores, key=lambda name: scores[name]["validation"])
    return scores["fine-tuned"]["test"] - scores[best]["test"]


@fair.wrong(
    "You return a relative gain. A tenth more of a low score is much less than a tenth of all "
    "questions; the articles that quote percentages often leave open which one is meant."
)
def relative(scores):
    difference = chosen_on_validation(scores)
    return difference / (scores["fine-tuned"]["test"] - difference)


advice = Exercise(
    "01.4",
    "Six tasks, and what to do about each",
    after="6. Decide",
    minutes=8,
    difficulty=2,
    task="""
    The table holds six made-up tasks: whether the base model knows the facts that the answers need,
    whether these change every month, the score of the best prompt (`NaN`: nobody has measured
    one), the score that is needed, and the number of clean examples. Say what to do next for each
    row: a list of six strings, each `measure a prompt first`, `prompt`, `retrieve`,
    `collect data first` or `fine-tune`. A house style counts as a format, as JSON does. Neither
    the length of the prompts nor the memory for training is a problem in these tasks.
    """,
    hints=(
        "Ask in this order: are facts missing, is a number missing, is the prompt enough, are "
        "there enough examples?",
        "Section 5 says what training does with facts that the base has never read. Section 6 says "
        "how many examples a pilot for a format takes.",
        "Rows 0 and 4 are about facts. One of the others lacks a score, one has a prompt that "
        "reaches what is needed, and one has far too few examples.",
    ),
    expects='one a row: ["prompt", "fine-tune", ...]',
)


@advice.draw
def tasks(random):
    rows = [
        ("prices of a shop", "no", "yes", 0.35, 0.95, 5000),
        ("orders as JSON", "yes", "no", 0.93, 0.90, 3000),
        ("letters in house style", "yes", "no", 0.70, 0.95, 2500),
        ("reports in house style", "yes", "no", 0.60, 0.90, 30),
        ("manual of a new machine", "no", "no", 0.20, 0.90, 4000),
        ("e-mails in house style", "yes", "no", float("nan"), 0.90, 3000),
    ]
    names = ["task", "base knows", "facts change", "best prompt", "needed", "examples"]
    return (pd.DataFrame(rows, columns=names),)


@advice.right
def in_order(table):
    found = []
    for row in table.to_dict("records"):
        if row["facts change"] == "yes" or row["base knows"] == "no":
            found.append("retrieve")
        elif pd.isna(row["best prompt"]):
            found.append("measure a prompt first")
        elif row["best prompt"] >= row["needed"]:
            found.append("prompt")
        else:
            found.append("fine-tune" if row["examples"] >= 200 else "collect data first")
    return found


def changed(table, rows, choice="fine-tune"):
    return [choice if n in rows else one for n, one in enumerate(in_order(table))]


@advice.wrong(
    "You train where facts are missing. Fine-tuning brings out what the base has read. Facts that "
    "it lacks are at best memorized from the examples, at a price, and are made up elsewhere; and "
    "weights keep what was true on the day of training."
)
def facts_by_training(table):
    return changed(table, {0, 4})


@advice.wrong(
    "You look up the facts that change, but train where they stay the same. The base doesn't know "
    "these facts either, and thousands of examples cover only what they mention."
)
def stable_facts(table):
    return changed(table, {4})


@advice.wrong(
    "You let the number of examples decide. It says whether training is possible, not whether it "
    "is needed, or whether it can bring what is missing."
)
def enough_examples(table):
    return changed(table, {0, 1, 4, 5})


@advice.wrong(
    "You train although nobody has tried a prompt on that task. Afterwards you could not say what "
    "the training has gained, and an afternoon with a prompt may be all that it takes."
)
def unmeasured(table):
    return changed(table, {5})


@advice.wrong(
    "You train on a few dozen examples. So few teach their own faults along with the task, and "
    "leave none to measure the result with."
)
def too_few(table):
    return changed(table, {3})


@advice.wrong(
    "You train because the prompt isn't perfect. The table says which score is needed; training "
    "for more than that costs work and data, and nobody asked for it."
)
def perfect(table):
    return changed(table, {1})
