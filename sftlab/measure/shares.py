"""Shares of items: how they are written, and their exact interval."""

from dataclasses import dataclass

from scipy.special import betaincinv


def percent(share: float) -> str:
    """A share as `81%`; with one digit more where `0%` or `100%` would hide some items."""
    near = 0 < share < 0.005 or 0.995 <= share < 1
    return f"{share:.1%}" if near else f"{share:.0%}"


def exact_interval(hits: int, items: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of Clopper and Pearson (1934), as `scipy.stats.binomtest` gives it.

    Through `scipy.special`: importing `scipy.stats` takes longer than all else that a lesson does
    with results that are already there.
    """
    tail = (1 - level) / 2
    low = betaincinv(hits, items - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, items - hits, 1 - tail) if hits < items else 1.0
    return float(low), float(high)


@dataclass(frozen=True)
class Share:
    """A measured share with its 95% interval; `str` gives `81% (74 to 87%)`."""

    hits: int
    """Number of items that came out."""
    items: int
    """Number of items tried."""

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.items or self.items == 0:
            raise ValueError(
                f"{self.hits} of {self.items} is no share: give 1 item or more and as many hits "
                "at most"
            )

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.hits / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95% binomial interval (Clopper and Pearson).

        It treats the items as independent. Several questions about one country are not quite,
        so over correlated items it is somewhat too narrow; `sftlab.measure.stats.mean` is not.
        """
        return exact_interval(self.hits, self.items)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.value)} ({low:.0%} to {high:.0%})"


def share(outcomes) -> Share:
    """The share of true values in a sequence of outcomes; ValueError when it is empty."""
    outcomes = [bool(outcome) for outcome in outcomes]
    return Share(hits=sum(outcomes), items=len(outcomes))
