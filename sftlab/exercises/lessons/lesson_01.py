"""Exercises of lesson 01: probability of an answer, prompts, a fair comparison, what to do."""

from math import prod

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
    `probabilities` has one row for each position: `probabilities[t][token]` is the probability
    that the model, having read positions 0 to `t`, gives to `token` as the next one. Return the
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
    "You look each token up in the row of its own position. That row has already read the token "
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
    "You took a mean over the tokens. That is useful to compare answers of different lengths, but "
    "it isn't the probability that the text is drawn: every further token makes that smaller."
)
def per_token(probabilities, ids, prompt_length):
    return of_answer(probabilities, ids, prompt_length) ** (1 / (len(ids) - prompt_length))


@likely.wrong(
    "You multiply the tokens of the prompt in. The prompt is given, so how unlikely it is in "
    "itself must not change how likely the answer is after it."
)
def with_prompt(probabilities, ids, prompt_length):
    return of_answer(probabilities, ids, 1)


@likely.wrong(
    "You take the largest probability at each position. That is how sure greedy decoding is of its "
    "own text, whatever it says; `ids` asks about one particular text."
)
def greedy(probabilities, ids, prompt_length):
    return prod(max(probabilities[t - 1]) for t in range(prompt_length, len(ids)))


shots = Exercise(
    "01.2",
    "A few-shot prompt",
    after="3. Try a prompt first",
    minutes=8,
    difficulty=1,
    task="""
    Write a few-shot prompt with the marks of this section. `shots` is a list of tuples
    `(question, answer)`, which may be empty. Each shot is a line `Q: ` with the question and a
    line `A: ` with its answer, and an empty line follows it. Last comes the question that is asked,
    in the same form but without an answer: that is what the model will write, and its first
    token will be one such as ` Lima`, with the space in front. `shots` may hold the question that
    is asked; the prompt must not give its answer away.
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
    "Your prompt ends with the question. Nothing says that an answer comes next, so the model may "
    "go on as it does after a question alone."
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
    "You left the answers out of the shots. They are questions in a row now, and what the model "
    "learns from such a prompt is to ask one more."
)
def no_answers(shots, question):
    return marked([(q, "") for q, _ in shots], question).replace("A: \n", "A:\n")


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
    are prompts, and one of these is the `question alone`. Compare with the best prompt, and choose
    it so that the comparison is fair. Return the gain as a difference of shares.
    """,
    hints=(
        "Two things have to be decided: which prompt, and on which questions to compare with it.",
        "Nothing that you choose by may be what you report: the luckiest of several scores is too "
        "high.",
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
def gain(scores):
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
    "You compare with the question alone. Nobody would use a model in that way, and most of such a "
    "gain may be what a prompt brings for nothing."
)
def over_zero_shot(scores):
    return scores["fine-tuned"]["test"] - scores["question alone"]["test"]


@fair.wrong(
    "You compare with the mean over all prompts. One poor prompt more on the list would make the "
    "fine-tune look better."
)
def over_the_mean(scores):
    prompts = column(scores, "test")
    return scores["fine-tuned"]["test"] - sum(prompts) / len(prompts)


@fair.wrong(
    "You report the gain on the questions that the prompt was chosen by. Its score there is too "
    "high for that reason; the other questions were kept for the report."
)
def on_validation(scores):
    return scores["fine-tuned"]["validation"] - max(column(scores, "validation"))


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
    `collect data first` or `fine-tune`. The prompts fit into every request, and the models fit
    into memory.
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
    "You look facts up where they change, but train in those that stay as they are. What stays the "
    "same is still unknown to this base, and thousands of examples cover only what they mention."
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
    "You train everything. Go through the rows once more and ask of each what the training would "
    "add, and whether something cheaper gives it already."
)
def everywhere(table):
    return changed(table, {0, 1, 3, 4, 5})


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
