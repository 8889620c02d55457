"""Where a limit looks around: a cycle of eight epochs, each second one at the centre itself."""

from __future__ import annotations

PLACES = 8


def probe(place: int, centre: float, *, dither: float, wide: float, highest: float, ceiling: float | None) -> float:
    """Return the limit of one place of the cycle.

    Args:
        place: 0..7. dither: how far most probes go from the centre, a share. wide: how many times the centre one goes.
        highest: nothing above this is tried. ceiling: above it throughput falls; a probe keeps well away.
    """
    if centre <= 5:
        dither = max(dither, 1 / max(1.0, centre))  # at least one more
    up, far = min(centre * (1 + dither), highest), min(centre * wide, highest)
    if ceiling is not None:
        if up - centre < 0.75 or ceiling < 1.06 * centre:
            up = centre
        far = up
    down = centre / (1 + dither)
    return (up, centre, down, centre, far, centre, down, centre)[place]
