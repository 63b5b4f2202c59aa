"""Where a curve begins to fall: the setting at which a measurement first goes below a limit."""

from collections.abc import Mapping
from itertools import pairwise


def onset(values: Mapping[float, float], *, limit: float) -> float:
    """The setting, such as a learning rate, at which the values first fall below the limit.

    value |--__            Between two measured settings it is read off a straight line over the
    limit |- - -\\- - -     logarithm of the setting.
          |    ^ \\__
          +---------- setting

    Args:
        values: by setting, above zero; in any order.
        limit: in the unit of the values.

    Returns:
        A setting between the smallest and the largest: the smallest when even its value is below
        the limit (it began there or before), the largest when none is (there or after).

    Raises:
        ValueError: there is no setting, or one that is not above zero.
    """
    if not values or min(values) <= 0:
        raise ValueError(f"the settings are {list(values)}; give one or more, all above zero")
    points = sorted(values.items())
    if points[0][1] < limit:
        return points[0][0]
    for (setting, value), (next_setting, next_value) in pairwise(points):
        if next_value < limit:
            way = (value - limit) / (value - next_value)
            return setting * (next_setting / setting) ** way
    return points[-1][0]
