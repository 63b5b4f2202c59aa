"""Exercises of lesson 07: LoRA's update, fair comparisons, 4 bits, and memory."""

from itertools import pairwise

import pandas as pd
import torch

from sftlab.exercises.definitions import Exercise

update = Exercise(
    "07.1",
    "Merge an adapter",
    after="1. LoRA by hand",
    minutes=8,
    difficulty=1,
    task="""
    Merge a LoRA adapter into its layer: compute the matrix that gives the same outputs as the
    layer together with its adapter.

    With `n` inputs, `m` outputs and rank `r`, `W` has `m` rows of `n` numbers, `A` has `r` rows of
    `n`, and `B` has `m` rows of `r`. All three are lists of rows; `alpha` is a number. The result
    may be a list of rows, an array or a tensor.
    """,
    hints=(
        "The adapter adds its own output to that of the layer. Write down what it adds for an "
        "input x, and take x out of the sum.",
        "The correction is a product of two matrices with a factor in front. The shapes leave only "
        "one order for the product, and the rank is the number of rows of A.",
        "`torch.tensor(W) + alpha / len(A) * torch.tensor(B) @ torch.tensor(A)`",
    ),
)


@update.draw
def adapter(random):
    def matrix(rows, columns):
        return [[float(random.randint(-2, 2)) for _ in range(columns)] for _ in range(rows)]

    n, m, r = random.choice([2, 4]), random.randint(1, 3), random.choice([1, 2, 4])
    return matrix(m, n), matrix(r, n), matrix(m, r), random.choice([1, 6, 12])


@update.stub
def merged_weight(W, A, B, alpha):
    """The merged matrix: as many rows and columns as `W`."""
    return ...


@update.right
def merged(W, A, B, alpha):
    return torch.tensor(W) + alpha / len(A) * torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "You multiply by alpha alone. The rank has a part in the factor as well: a product of more "
    "terms is larger, so without it a higher rank would also mean a larger "
    "correction at the same alpha."
)
def alpha_alone(W, A, B, alpha):
    return torch.tensor(W) + alpha * torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "You add the product without its factor. The adapter was trained with the factor in front, so "
    "the merged model would give other answers than the one that you measured."
)
def no_factor(W, A, B, alpha):
    return torch.tensor(W) + torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "That is the correction alone. LoRA does not replace the layer's matrix: it stands beside it, "
    "and with a new adapter the correction is zero."
)
def correction_alone(W, A, B, alpha):
    return alpha / len(A) * torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "You divide by the root of the rank. That is the variant rsLoRA, `use_rslora=True` in PEFT. "
    "An adapter has to be merged with the factor that it was trained with."
)
def rslora(W, A, B, alpha):
    return torch.tensor(W) + alpha / len(A) ** 0.5 * torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "You took the number of inputs for the rank. The rank is the dimension that A and B share, the "
    "narrow one between them. In PyTorch, a layer's matrix has a row for each *output*, and so has "
    "`A`, whose outputs are what goes into `B`."
)
def inputs_as_rank(W, A, B, alpha):
    return torch.tensor(W) + alpha / len(A[0]) * torch.tensor(B) @ torch.tensor(A)


@update.wrong(
    "You took the number of outputs for the rank. The rank is the dimension that A and B share: "
    "how many columns has `B`, and how many rows has `A`?"
)
def outputs_as_rank(W, A, B, alpha):
    return torch.tensor(W) + alpha / len(B) * torch.tensor(B) @ torch.tensor(A)


fair = Exercise(
    "07.2",
    "Two runs that may be compared",
    after="4. Rank, and how not to compare it",
    minutes=8,
    difficulty=2,
    task="""
    A colleague trained adapters of rank 4 and of rank 64 and asks what the higher rank is worth.
    The table shows the runs, with made-up numbers. Which two do you compare, one of each rank, so
    that the answer is about the rank and nothing else decides it?
    """,
    expects="two row numbers, one of each rank, such as {0, 3}",
    hints=(
        "Two things besides the rank can differ between two rows. One of them has to be equal, the "
        "other one has to be chosen for each rank.",
        "Alpha scales the correction, so it acts like a learning rate. One of the two "
        "accuracies chooses a run, and the other one is reported: which is which?",
        "Keep the rows with alpha 32. Of each rank take the one with the highest validation "
        "accuracy.",
    ),
)


@fair.draw
def ranks(random):
    rows = [
        (4, 8, "3e-4", 0.71, 0.70),
        (4, 32, "3e-4", 0.88, 0.86),
        (4, 32, "1e-3", 0.85, 0.89),
        (64, 32, "3e-4", 0.87, 0.90),
        (64, 32, "1e-3", 0.90, 0.88),
        (64, 128, "3e-4", 0.91, 0.89),
    ]
    scores = ["validation accuracy", "test accuracy"]
    return (pd.DataFrame(rows, columns=["rank", "alpha", "learning rate", *scores]),)


@fair.right
def own_best_rates(table):
    same_alpha = table[table["alpha"] == 32]
    return set(same_alpha.groupby("rank")["validation accuracy"].idxmax())


@fair.wrong(
    "You compare the two runs with an alpha of twice the rank, at one learning rate. The "
    "comparison is confounded: with this recipe the smaller rank also takes much smaller steps, so "
    "that you see a learning rate that is too low where you look for a rank that is too small."
)
def alpha_grows(table):
    return set(table.index[table["alpha"] == 2 * table["rank"]])


@fair.wrong(
    "You took the best run of each rank, whatever its alpha. But alpha differs between the two, "
    "and it acts on the size of the steps as well: the difference may be due to either."
)
def any_alpha(table):
    return set(table.groupby("rank")["validation accuracy"].idxmax())


@fair.wrong(
    "You chose the learning rates by the test accuracy, which is also what you would report. Each "
    "rank then looks better than it is, since the best of several is partly luck, and no other "
    "questions are left to check the choice."
)
def by_test(table):
    return set(table[table["alpha"] == 32].groupby("rank")["test accuracy"].idxmax())


def at_rate(table, rate):
    return set(table.index[(table["alpha"] == 32) & (table["learning rate"] == rate)])


@fair.wrong(
    "Alpha is equal, and so is the learning rate. But this rate suits only one of the ranks: "
    "look for a run of rank 64 with a better validation accuracy. With only one of the two at its "
    "best rate, you compare learning rates."
)
def rate_of_the_small(table):
    return at_rate(table, "3e-4")


@fair.wrong(
    "Alpha is equal, and so is the learning rate. But this rate suits only one of the ranks: "
    "look for a run of rank 4 with a better validation accuracy. With only one of the two at its "
    "best rate, you compare learning rates."
)
def rate_of_the_large(table):
    return at_rate(table, "1e-3")


quantization = Exercise(
    "07.3",
    "Quantize and restore",
    after="6. What 4 bits do to a matrix",
    minutes=12,
    difficulty=2,
    task="""
    Quantize some weights in blocks, and return what they are when they are unpacked again. This
    example has only five levels, so that you can follow it by hand.

    - `weights`: a list of numbers;
    - `levels`: the levels in rising order, from -1 to 1;
    - `size`: the number of weights in a block. It divides the number of weights.

    For each block: take the absmax, divide by it, replace each quotient by the nearest level, and
    multiply again. No block is all zeros, and no quotient lies halfway between two levels.
    """,
    hints=(
        "Write it for one block first, then go over the weights in steps of `size`.",
        "The absmax is a number without a sign, each block has its own, and it is needed twice.",
        "For a block: `top = max(abs(w) for w in block)`, then for each weight "
        "`top * min(levels, key=lambda level: abs(w / top - level))`. The blocks are "
        "`weights[n : n + size]` for `n` in `range(0, len(weights), size)`.",
    ),
)

LEVELS = [-1, -0.4, 0, 0.3, 1]


@quantization.draw
def blocks(random):
    size, count, weights = random.randint(2, 3), random.randint(1, 2), []
    while len(weights) < count * size:
        block = [random.randint(-9, 9) * random.choice([0.1, 1]) for _ in range(size)]
        block = [round(one, 1) for one in block]
        top = max(map(abs, block))
        halfway = [(a + b) / 2 for a, b in pairwise(LEVELS)]
        if max(block) and all(abs(one / top - edge) > 1e-3 for one in block for edge in halfway):
            weights += block
    return weights, LEVELS, size


@quantization.stub
def restore(weights, levels, size):
    """The weights after quantizing and unpacking: a list as long as `weights`."""
    return ...


@quantization.right
def restored(weights, levels, size):
    found = []
    for n in range(0, len(weights), size):
        block = weights[n : n + size]
        top = max(abs(one) for one in block)
        for one in block:
            found.append(top * min(levels, key=lambda level: abs(one / top - level)))
    return found


@quantization.wrong(
    "All weights share one absmax here. A single large weight then makes the levels coarse for "
    "all others, also far away from it: small weights become zero. Blocks are there to confine "
    "such an outlier."
)
def one_absmax(weights, levels, size):
    return restored(weights, levels, len(weights))


def by_block(weights, size, levels, *, top=lambda block: max(map(abs, block)), unpack=True):
    """The same, with another number to divide by, or without multiplying again."""
    found = []
    for block in (weights[n : n + size] for n in range(0, len(weights), size)):
        scale = top(block)
        near = [min(levels, key=lambda level: abs(one / scale - level)) for one in block]
        found += [scale * level for level in near] if unpack else near
    return found


@quantization.wrong(
    "You divide by the largest weight, and not by the largest absolute value. Where the weight "
    "furthest from zero is negative, its quotient lies outside of the levels, and it is cut off."
)
def largest(weights, levels, size):
    return by_block(weights, size, levels, top=max)


@quantization.wrong(
    "These are levels, all between -1 and 1. A matrix multiplication needs weights of the size "
    "that they had: this is why the absmax of each block is stored beside the numbers."
)
def not_unpacked(weights, levels, size):
    return by_block(weights, size, levels, unpack=False)


@quantization.wrong(
    "These are the numbers of the levels, which is what is stored in 4 bits each. Unpacking has "
    "two more steps, from the number to the level and from the level to the weight."
)
def numbers(weights, levels, size):
    return [levels.index(level) for level in not_unpacked(weights, levels, size)]


@quantization.wrong(
    "You divide by the weight that is furthest from zero, with its sign. Where it is negative, all "
    "quotients of its block change their sign. The levels are not the same on both sides of zero, "
    "so other ones are then the nearest."
)
def furthest_with_sign(weights, levels, size):
    return by_block(weights, size, levels, top=lambda block: max(block, key=abs))


@quantization.wrong(
    "You take the next level above, as `np.searchsorted` and `torch.bucketize` do. All weights "
    "then move in one direction, and these errors add up in the layer's output. Errors that go "
    "both ways mostly cancel."
)
def next_above(weights, levels, size):
    found = []
    for block in (weights[n : n + size] for n in range(0, len(weights), size)):
        top = max(map(abs, block))
        found += [top * min(level for level in levels if level >= one / top) for one in block]
    return found


memory = Exercise(
    "07.4",
    "Memory without activations",
    after="8. What will a large model need?",
    minutes=10,
    difficulty=2,
    task="""
    Compute the memory of weights, gradients and optimizer state, in GB (1 GB is 10**9 bytes),
    before you rent a GPU. Activations and smaller parts come on top.

    - `weights`: the number of weights of the base;
    - `adapters`: the number of weights of LoRA's adapters;
    - `method`: `"full"`, `"lora"` or `"qlora"`.

    Whatever is trained is in float32, and so are its gradient and the state of its optimizer,
    AdamW. A frozen base is in bfloat16 with `"lora"`, and in NF4 with `"qlora"`: count half a byte
    for each weight. `"full"` has no adapters: ignore their number there.
    """,
    hints=(
        "Ask of each weight whether it is trained. What does a frozen one need, and what else does "
        "a trained one?",
        "float32 has 4 bytes. AdamW keeps two running averages for each trained weight, beside the "
        "weight and its gradient.",
        "A trained weight takes 4 + 4 + 8 bytes. The base takes that, or 2 bytes, or half a byte a "
        "weight; divide the sum by `1e9`.",
    ),
)


@memory.draw
def sizes(random):
    count = random.choice([1, 3, 7, 8])
    adapters = random.choice([10, 40, 200])
    return count * 10**9, adapters * 10**6, random.choice(["full", "lora", "qlora"])


@memory.stub
def gigabytes(weights, adapters, method):
    """The memory in GB, a number."""
    return ...


@memory.right
def trained_and_frozen(weights, adapters, method):
    trained = 4 + 4 + 8  # bytes: the weight, its gradient, AdamW's two averages
    if method == "full":
        return trained * weights / 1e9
    frozen = 2 if method == "lora" else 0.5
    return (frozen * weights + trained * adapters) / 1e9


def gb(weights, adapters, method, trained=16, frozen=(2, 0.5), more=0):
    """The memory with other bytes a weight."""
    if method == "full":
        return trained * weights / 1e9
    base = frozen[0] if method == "lora" else frozen[1]
    return ((base + more) * weights + trained * adapters) / 1e9


@memory.wrong(
    "With adapters you still count a gradient and an optimizer state for the base. Frozen weights "
    "have neither, and that is most of what LoRA saves."
)
def gradients_of_the_base(weights, adapters, method):
    return gb(weights, adapters, method, more=12)


@memory.wrong(
    "You count 12 bytes for each trained weight, which is too little. Either one number is "
    "missing, the gradient or one of the running averages that AdamW keeps, or you count some of "
    "the numbers in 16 bits. All of them are in float32 here."
)
def one_missing(weights, adapters, method):
    return gb(weights, adapters, method, trained=12)


@memory.wrong(
    "You count 8 bytes for each trained weight. That is the weight and its gradient without the "
    "optimizer state, which is the largest item of full fine-tuning. (Or it is everything in 16 "
    "bits, but here all of it is in float32.)"
)
def no_optimizer(weights, adapters, method):
    return gb(weights, adapters, method, trained=8)


@memory.wrong(
    "You divide by 1024 three times. That gives GiB, a smaller number than the GB that the task "
    "asks for. Tools mix the two, which matters when a model is at the edge of a GPU."
)
def gibibytes(weights, adapters, method):
    return gb(weights, adapters, method) * 1e9 / 2**30


@memory.wrong(
    "You count the base as if it were trained with every method. LoRA and QLoRA train the adapters "
    "alone: that is why they need so much less memory."
)
def base_is_trained(weights, adapters, method):
    return gb(weights, adapters, method, frozen=(16, 16))


@memory.wrong(
    "You count the base of QLoRA in 16 bits. It is stored in 4; only the matrix in use is unpacked "
    "to 16 bits for a moment."
)
def base_in_16_bits(weights, adapters, method):
    return gb(weights, adapters, method, frozen=(2, 2))
