"""Exercises of lesson 02: converting rows, near-duplicates, a group split, leaks."""

import pandas as pd

from sftlab.exercises.definitions import Exercise

alpaca = Exercise(
    "02.1",
    "Alpaca rows as messages",
    after="1. Many formats, one message type",
    minutes=8,
    difficulty=1,
    task="""
    Convert one row in the Alpaca format by hand. `row` is a dict with the strings `instruction`
    and `output`. Most rows also have an `input`, the text that the instruction is about. There is
    no input where this key is missing, or its text is empty or only white space; all other texts
    begin and end without white space. Return the messages: a list of two dicts with `role` and
    `content`, first the user's, then the assistant's. With an input, the content of the user's
    message is the instruction, an empty line, and the input; otherwise just the instruction.
    """,
    hints=(
        "Everything that the answer is about has to be in the user's message. Look at a row whose "
        "`input` isn't empty.",
        '`row.get("input", "")` works for rows without the key, and `.strip()` shows whether '
        "anything is left.",
        'Start with `content = row["instruction"]`. If there is an input, add `"\\n\\n" + '
        'row["input"]`. Then build the two messages.',
    ),
)


@alpaca.draw
def a_row(random):
    texts = random.choice([("Translate.", "Hallo", "Hello"), ("Translate.", "Ja", "Yes")])
    if random.random() < 0.5:
        texts = ("Name a color.", random.choice(["", " ", None]), random.choice(["Red", "Blue"]))
    row = dict(zip(("instruction", "input", "output"), texts, strict=True))
    return ({key: text for key, text in row.items() if text is not None},)


@alpaca.stub
def from_alpaca(row):
    """The messages of one Alpaca row: a list of two dicts."""
    return ...


@alpaca.right
def converted(row):
    content = row["instruction"]
    if row.get("input", "").strip():
        content += "\n\n" + row["input"]
    return [
        {"role": "user", "content": content},
        {"role": "assistant", "content": row["output"]},
    ]


@alpaca.wrong(
    "You dropped the input. The model is asked to work on a text that it never sees, so it can "
    "only learn to make the answer up, and no error or loss shows it."
)
def without_input(row):
    return converted({**row, "input": ""})


@alpaca.wrong(
    "Your message ends in empty lines in at least one of three cases: the input is missing, empty, "
    "or only white space. Users don't type those lines, so the model is trained on other prompts "
    "than it will be given."
)
def always_joined(row):
    messages = converted({**row, "input": ""})
    messages[0]["content"] += "\n\n" + row.get("input", "")
    return messages


@alpaca.wrong(
    "You pasted the headings of the Alpaca template into the user's message. The chat template "
    "marks the parts already; with both, users would have to type the headings too."
)
def pasted_template(row):
    content = f"### Instruction:\n{row['instruction']}"
    if row.get("input", "").strip():
        content += f"\n\n### Input:\n{row['input']}"
    content += "\n\n### Response:\n"
    return [{"role": "user", "content": content}, converted(row)[1]]


@alpaca.wrong(
    "Only a line break stands between your instruction and your input. For an empty line between "
    "two texts the string needs one more."
)
def one_line_break(row):
    messages = converted(row)
    messages[0]["content"] = messages[0]["content"].replace("\n\n", "\n")
    return messages


@alpaca.wrong(
    "You wrote two messages of the user. The roles should alternate: some chat templates refuse "
    "anything else, and a user writes the instruction and its text together."
)
def two_messages(row):
    asked = [row["instruction"], row.get("input", "")]
    users = [{"role": "user", "content": text} for text in asked if text.strip()]
    return [*users, converted(row)[1]]


@alpaca.wrong(
    "You made the instruction a system message. It is what the user wants in this one row; a "
    "system message holds for a whole conversation, and some chat templates refuse it."
)
def as_system(row):
    given = row.get("input", "").strip()
    system = [{"role": "system", "content": row["instruction"]}] if given else []
    user = {"role": "user", "content": given or row["instruction"]}
    return [*system, user, converted(row)[1]]


duplicates = Exercise(
    "02.2",
    "Drop near-duplicates",
    after="3. Duplicates",
    minutes=12,
    difficulty=2,
    task="""
    Deduplicate a few texts by comparing all pairs. To keep it short, the pieces of a text are its
    words, `set(text.split())`, instead of n-grams. Go through `texts` in their order and drop a
    text if its Jaccard index with an earlier text **that was kept** is at least `threshold`.
    Return the numbers of the texts that are kept, counted from 0, as a list.
    """,
    hints=(
        "First write a function for the Jaccard index of two sets, and try it on two texts.",
        "Keep a list of the numbers kept so far. A new text has to be compared with these texts "
        "only.",
        "For each number `n`: append it to `kept` unless `any` text `k` in `kept` has "
        "`len(a & b) / len(a | b) >= threshold`, where `a` and `b` are the words of `n` and `k`.",
    ),
)
TEXTS = ["a b c", "b c d", "c d e", "a b b", "d e", "e f", "a b c d", "b c"]


@duplicates.draw
def some_texts(random):
    return random.choices(TEXTS, k=random.randint(2, 5)), random.choice([0.5, 0.6])


@duplicates.stub
def kept_texts(texts, threshold):
    """The numbers of the texts that are kept: a list of integers."""
    return ...


@duplicates.right
def deduplicated(texts, threshold):
    kept = []
    for n, text in enumerate(texts):
        words = set(text.split())
        others = [set(texts[k].split()) for k in kept]
        if not any(len(words & one) / len(words | one) >= threshold for one in others):
            kept.append(n)
    return kept


def index(one, other):
    one, other = set(one.split()), set(other.split())
    return len(one & other) / len(one | other)


@duplicates.wrong(
    "You divide by the size of the smaller text. A short text whose words all occur in a long one "
    "then counts as its copy, however much more the long one says."
)
def containment(texts, threshold):
    kept = []
    for n, text in enumerate(texts):
        words = set(text.split())
        others = [set(texts[k].split()) for k in kept]
        shares = [len(words & one) / min(len(words), len(one)) for one in others]
        if not any(share >= threshold for share in shares):
            kept.append(n)
    return kept


@duplicates.wrong(
    "You drop every text that has a near-duplicate, the first one too. What these texts say is "
    "then no longer in the data at all."
)
def all_gone(texts, threshold):
    return [
        n
        for n, one in enumerate(texts)
        if not any(index(one, two) >= threshold for k, two in enumerate(texts) if k != n)
    ]


@duplicates.wrong(
    "You also compare with texts that were dropped. Each text of a chain is like the one before "
    "it, so a text can go although nothing that is kept resembles it."
)
def with_dropped(texts, threshold):
    return [
        n
        for n, one in enumerate(texts)
        if not any(index(one, two) >= threshold for two in texts[:n])
    ]


@duplicates.wrong(
    "You compare each text only with the one before it. Copies are seldom next to each other; once "
    "a file has been shuffled, nearly all of them would stay."
)
def neighbors(texts, threshold):
    return [n for n, one in enumerate(texts) if n == 0 or not index(one, texts[n - 1]) >= threshold]


@duplicates.wrong(
    "You divide by the sum of the two sizes. Words in both texts are then counted twice, so even "
    "two equal texts get no more than 0.5."
)
def by_sum(texts, threshold):
    kept = []
    for n, one in enumerate(texts):
        sizes = [len(set(one.split())) + len(set(texts[k].split())) for k in kept]
        shared = [len(set(one.split()) & set(texts[k].split())) for k in kept]
        if not any(a / b >= threshold for a, b in zip(shared, sizes, strict=True)):
            kept.append(n)
    return kept


@duplicates.wrong(
    "You keep a text whose index is exactly the threshold. Read once more which values of the "
    "index lead to a drop."
)
def above_only(texts, threshold):
    return deduplicated(texts, threshold + 1e-9)


groups = Exercise(
    "02.3",
    "A group split",
    after="4. Split by group",
    minutes=12,
    difficulty=2,
    task="""
    Split rows into train and test by group. `groups` holds the group of each row, such as a
    country; the rows have been shuffled already. Take whole groups into the test, in the order in
    which they first appear, until it has at least `size` rows; all other rows are for training.
    Return a tuple of two lists of row numbers, counted from 0 and ascending: train, test.
    """,
    hints=(
        "Choose groups first. Then collect all rows of these groups, wherever they stand.",
        "`dict.fromkeys(groups)` has each group once, in the order of first appearance.",
        "Loop over those groups. While fewer than `size` rows are chosen, add the group to a set. "
        "At the end go through all rows and ask of each whether its group is in the set.",
    ),
)


@groups.draw
def rows_of_groups(random):
    while True:
        drawn = [random.choice("ABC") for _ in range(random.randint(3, 6))]
        size = random.randint(1, len(drawn) - 1)
        if whole_groups(drawn, size)[0]:  # something is left to train on
            return drawn, size


@groups.stub
def group_split(groups, size):
    """The numbers of the rows for training and of those for the test: a tuple of two lists."""
    return ...


@groups.right
def whole_groups(groups, size):
    chosen = set()
    for one in dict.fromkeys(groups):
        if sum(group in chosen for group in groups) < size:
            chosen.add(one)
    train = [n for n, group in enumerate(groups) if group not in chosen]
    test = [n for n, group in enumerate(groups) if group in chosen]
    return train, test


def with_test(groups, test):
    return [n for n in range(len(groups)) if n not in test], sorted(test)


@groups.wrong(
    "You cut the rows. A group then has rows on both sides, and the test asks again, in another "
    "wording, what was trained."
)
def cut(groups, size):
    return with_test(groups, range(size))


@groups.wrong(
    "You take the groups in the order of their names, not in that of their first rows. The names "
    "are not shuffled: the test would hold those at the beginning of the alphabet."
)
def by_name(groups, size):
    chosen = set(whole_groups(sorted(groups), size)[1])
    names = {sorted(groups)[n] for n in chosen}
    return with_test(groups, [n for n, group in enumerate(groups) if group in names])


@groups.wrong(
    "You count groups, but `size` is a number of rows. Groups differ in size, so a test of so many "
    "groups can be a large part of the data."
)
def counts_groups(groups, size):
    chosen = list(dict.fromkeys(groups))[:size]
    return with_test(groups, [n for n, group in enumerate(groups) if group in chosen])


@groups.wrong(
    "You leave out a group that would make the test larger than asked. If the groups are large, "
    "the test then has too few rows, or none, and its interval becomes too wide to use."
)
def never_more(groups, size):
    chosen = []
    for one in dict.fromkeys(groups):
        if sum(group in [*chosen, one] for group in groups) <= size:
            chosen.append(one)
    return with_test(groups, [n for n, group in enumerate(groups) if group in chosen])


@groups.wrong(
    "You count only the rows that you have passed so far. A group that you take also brings its "
    "rows further down, so you take one more group although the test is already large enough."
)
def one_pass(groups, size):
    test = []
    for n, group in enumerate(groups):
        if len(test) < size or group in [groups[k] for k in test]:
            test.append(n)
    return with_test(groups, test)


@groups.wrong(
    "You add one more group when the test already has exactly `size` rows. Read once more when "
    "the test is large enough."
)
def one_more(groups, size):
    return whole_groups(groups, size + 1)


leaking = Exercise(
    "02.4",
    "Which rows leak?",
    after="5. Leaks",
    minutes=8,
    difficulty=2,
    task="""
    The table is a made-up data set: three rows of a test, and the rows that someone wants to train
    on. A training row leaks if it asks for a fact that a row of the test asks for, in whatever
    words. Which rows would you drop before the training? Answer with a set of row numbers.
    """,
    hints=(
        "For each row of the test write down its fact: which country, and what about it.",
        "A search by n-grams finds two of the leaks. To find the others you have to read.",
        "A row with the same country but another question doesn't leak, nor does one that has only "
        "the phrase or only the answer in common with a row of the test. Four rows remain.",
    ),
    expects="row numbers, such as {3, 10}",
)


@leaking.draw
def data(random):
    rows = [
        ("test", "What is the capital of Peru?", "Lima"),
        ("test", "Which currency is used in Thailand?", "baht"),
        ("test", "What language do people speak in Kenya?", "Swahili"),
        ("train", "What is the capital of Chile?", "Santiago"),
        ("train", "What is the capital of Peru?", "Lima"),
        ("train", "hi, quick one: which currency is used in thailand? thx", "baht"),
        ("train", "What is the currency of Peru?", "sol"),
        ("train", "In which city does the government of Peru sit?", "Lima"),
        ("train", "What language do people speak in Tanzania?", "Swahili"),
        ("train", "Kenyans talk to each other in ...", "Swahili"),
        ("train", "Which currency is used in Vietnam?", "dong"),
    ]
    return (pd.DataFrame(rows, columns=["part", "prompt", "answer"]),)


@leaking.right
def same_fact(table):
    return {
        4,  # word for word
        5,  # with words around it, and in small letters
        7,  # hardly a word in common: no search by n-grams finds it
        9,  # the same
    }


def training(table):
    return table[table["part"] == "train"]


@leaking.wrong(
    "You found the row that is equal to a test row. A few words around a question, or small "
    "letters, are enough to escape a comparison of whole texts."
)
def word_for_word(table):
    asked = set(table.loc[table["part"] == "test", "prompt"])
    return {n for n, prompt in training(table)["prompt"].items() if prompt in asked}


@leaking.wrong(
    "You found what a search by n-grams finds. The same fact in quite other words is still among "
    "your training rows; the test asks for it again."
)
def by_ngrams(table):
    asked = [one.lower() for one in table.loc[table["part"] == "test", "prompt"]]
    prompts = training(table)["prompt"].str.lower().items()
    return {n for n, prompt in prompts if any(one in prompt for one in asked)}


@leaking.wrong(
    "You drop rows that share a phrase with a row of the test. Many questions begin with the same "
    "words; such false alarms cost good examples, and the leaks in other words stay."
)
def by_phrase(table):
    asked = table.loc[table["part"] == "test", "prompt"].str.lower()
    starts = {" ".join(one.split()[:-1]) for one in asked}
    prompts = training(table)["prompt"].str.lower().items()
    return {n for n, prompt in prompts if any(one in prompt for one in starts)}


@leaking.wrong(
    "You drop every row about a country of the test. A group split by country does that, and it is "
    "safe, but it was not the question here: one of your rows asks for another fact and doesn't "
    "give away what the test asks for."
)
def by_country(table):
    prompts = training(table)["prompt"].str.lower().items()
    return {n for n, one in prompts if any(c in one for c in ("peru", "thailand", "kenya"))}


@leaking.wrong(
    "You drop every row whose answer is also an answer of the test. Different questions can have "
    "the same answer, and one of your rows is about a country that the test doesn't ask about."
)
def by_answer(table):
    known = set(table.loc[table["part"] == "test", "answer"])
    return {n for n, answer in training(table)["answer"].items() if answer in known}


@leaking.wrong(
    "You drop rows of the test. It is then another test: scores from before and after can't be "
    "compared, and what remains may be the easy part."
)
def from_the_test(table):
    return set(table.index[table["part"] == "test"])
