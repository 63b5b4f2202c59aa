"""The moments of a training step at which its memory may be highest, by formula.

    forward       one layer while it is computed, where layers keep nothing
    loss          all that the way forward kept, and the loss's own gradients
    head          the same without scores, and the output embedding's gradient
    first layer   on the way back: gradients of the head, all layers still kept (the last one alone,
                  if they are computed again)
    last layer    gradients of all layers, one layer still kept
    end           all gradients, nothing kept; the optimiser's step is no higher

What stays there all the time is counted in `sftlab.planner.memory`.
"""

from sftlab.planner import activations
from sftlab.planner.architectures import Architecture
from sftlab.planner.step import Step
from sftlab.train import SettingsError


def upper_layers(a: Architecture, method: str, asked: int | None) -> int:
    """Upper layers whose weights are trained, by default half of them under frozen.

    Raises:
        SettingsError: the model has fewer.
    """
    if method != "frozen":
        return a.layers if method in ("full", "gradual") else 0
    if asked is not None and not 0 < asked <= a.layers:
        raise SettingsError(
            f"trained_layers is {asked!r}, and {a.name} has {a.layers} layers; give at least 1 and "
            "at most as many"
        )
    return asked or -(-a.layers // 2)


def trained_weights(a: Architecture, step: Step) -> int:
    """How many weights are trained."""
    if step.method in ("full", "gradual"):
        return a.parameters
    if step.method == "head":
        return a.head_weights
    if step.method == "prefix":
        return 2 * step.prefix * a.layers * a.keys
    if step.method == "frozen":
        head = 0 if a.tied else a.head_weights
        return step.upper * a.layer_weights + a.hidden + head
    return a.adapters(step.rank)


def moments(a: Architecture, step: Step, *, gradients: int) -> dict[str, tuple[int, int, int]]:
    """(kept, gradients, overhead) in bytes at each moment of the step."""
    outside, scores = activations.kept_outside(a, step), activations.kept_scores(a, step)
    layer, inside = activations.kept_in_layer(a, step), activations.working_in_layer(a, step)
    # Layers that a gradient goes back through: none below what is trained.
    passed = step.upper if step.trained else a.layers
    if step.method == "head" and not a.tied:
        passed = 0
    spared = activations.spared_in_last(a, step) if passed else 0
    every, one = layer * passed - spared, layer
    copied = activations.copies(a, step, layers=passed)
    if step.checkpointing:
        start = step.tokens * step.stream * a.hidden
        # A norm keeps its input in float32: of a float32 stream that is the layer's input itself.
        every = start * passed + activations.kept_in_spite(a, step)
        one, copied = layer - start * (step.stream == 4), 0
    ends = activations.trains_head(a, step)
    head = 4 * a.head_weights if ends else 0
    # A tied embedding's gradient as input comes last, and their sum is a third tensor.
    table = 2 * head if a.tied and ends else 0
    behind = gradients - 4 * a.linear_weights // a.layers - (0 if a.tied else head)
    behind = max(behind, 0) if step.trained else head if step.method == "head" else 0
    # On the way back: every layer that is still kept, and the one that was computed again.
    again = one if step.checkpointing else 0
    cast = activations.copies(a, step, layers=1)
    loss = activations.head_copy(a, step) + copied
    found = {
        "forward": (0, 0, activations.working_forward(a, step)),
        "loss": (every + outside + scores, 0, loss + activations.working_in_loss(a, step)),
        "head": (every + outside, head, loss + activations.working_in_head(a, step)),
    }
    if passed:
        # The last layer's MLP is small where few positions are supervised: the next one is not.
        first = every + again - (layer - spared if spared and not step.checkpointing else 0)
        last = every // passed + again
        found["first layer"] = (first, head, (cast if again else copied) + inside)
        found["last layer"] = (last, behind, cast + inside)
    found["end"] = (0, gradients, table)
    if step.accumulation > 1:  # a new gradient is there beside the sum that it is added to
        new = {"head": head, "end": 0 if a.tied else head}
        return {name: (kept, gradients, extra + new.get(name, 0))
                for name, (kept, _, extra) in found.items()}  # fmt: skip
    return found
