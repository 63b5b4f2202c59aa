"""The bytes of tensors in a training step, counted by torch's profiler.

The profiler (`profile_memory=True`) sees each tensor that torch's allocator gives or takes back,
those inside one operation included, which a dispatch mode would miss: it sees what operations
return. It does not see what was there before, which `held` counts from the tensors themselves, nor
what libraries such as oneDNN take from the system: that belongs to the process.

    with Meter() as meter:
        loss = ...
        meter.mark("forward")
        loss.backward()
    meter.at("forward"), meter.peak      above what was there at the start
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sftlab.quiet import printed_noise_silenced

if TYPE_CHECKING:
    import torch

_MARK = "sftlab meter: "


class Meter:
    """Counts bytes of tensors that come and go while it is open; see `peak` and `at`.

    `device` is cpu, or such as cuda: where the tensors are.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        self._device = device.upper()
        self._live: list[tuple[int, int]] = []
        self._marks: dict[str, int] = {}

    def __enter__(self) -> "Meter":
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        with printed_noise_silenced():
            self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        with printed_noise_silenced():
            self._profile.__exit__(*error)
        events = self._profile.profiler.kineto_results.events()
        changes = sorted(
            (event.start_ns(), event.nbytes())
            for event in events
            if event.name() == "[memory]" and self._device in str(event.device_type())
        )
        live = 0
        for time, change in changes:
            live += change
            self._live.append((time, live))
        self._marks = {event.name().removeprefix(_MARK): event.start_ns()
                       for event in events if event.name().startswith(_MARK)}  # fmt: skip

    def mark(self, name: str) -> None:
        """Name this moment; call it while the meter is open."""
        from torch.profiler import record_function

        with record_function(_MARK + name):
            pass

    @property
    def peak(self) -> int:
        """The most bytes that were there at once, above those at the start."""
        return max((live for _, live in self._live), default=0)

    def at(self, name: str) -> int:
        """Bytes at a mark, above those at the start.

        Raises:
            KeyError: nothing was marked by that name.
        """
        moment = self._marks[name]
        return next((live for time, live in reversed(self._live) if time <= moment), 0)


def held(model: "torch.nn.Module", optimizer: "torch.optim.Optimizer | None" = None) -> Mapping:
    """Bytes that a model and its optimiser hold, by the parts of `sftlab.planner.memory`."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    beside = trained if hasattr(model, "peft_config") else []
    weights = sum(weight.untyped_storage().nbytes() for weight in model.parameters())
    adapters = sum(weight.untyped_storage().nbytes() for weight in beside)
    states = [getattr(weight, "quant_state", None) for weight in model.parameters()]
    constants = [part for state in states if state is not None
                 for part in (state.absmax, state.code, state.offset, *_second(state))]  # fmt: skip
    states8 = [getattr(module, "state", None) for module in model.modules()]
    constants += [getattr(state, "SCB", None) for state in states8]
    moments = optimizer.state.values() if optimizer else ()
    return {
        "weights": weights - adapters,
        "adapters": adapters,
        "quantisation": sum(part.nbytes for part in constants if part is not None),
        "optimiser": sum(one.nbytes for state in moments for one in state.values()
                         if hasattr(one, "nbytes")),
        "gradients": sum(weight.grad.nbytes for weight in trained if weight.grad is not None),
    }  # fmt: skip


def _second(state) -> tuple:
    """The constants of the constants, under double quantisation."""
    return (state.state2.absmax, state.state2.code) if state.nested else ()
