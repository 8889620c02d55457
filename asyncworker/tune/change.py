"""Whether what is measured has changed, or only varies: a Shewhart test, a two-sided CUSUM, and a memory for noise."""

from __future__ import annotations

import math

import msgspec

LEAST = 0.03
"""What a model of it may be wrong by anyway, as a share; beside the noise of counting."""
LEAST_DRIFT = 0.02
NOISIER = 3
"""How many times as uneven as was said something may be taken for."""
FAR, TWICE = 4.0, 2
"""Standard deviations that are far off, and how many measurements in a row must be."""
SLACK, PILE = 0.5, 10.0
"""What of each measurement's drift is let pass, and how much of the rest together is too much."""


class Change(msgspec.Struct):
    """What was measured against what was expected, one after the other.

    Attributes: ``noise``, the variance of their logarithms beyond that of counting, and the ``most`` that it is taken for.
    On a machine that others use, too, all figures vary, and what is seen again and again is no change.
    """

    noise: float = LEAST**2
    most: float = LEAST**2
    surprises: int = 0
    above: float = 0.0
    below: float = 0.0

    @classmethod
    def of(cls, noise: float) -> Change:
        """Return one for what varies by itself, a share: less, as soon as that is seen, or more, but not much more."""
        return cls(max(noise, LEAST) ** 2, most=max(NOISIER * noise, LEAST) ** 2)

    @property
    def unusual(self) -> float:
        """The noise beyond the least there is anywhere."""
        return max(0.0, self.noise - LEAST**2)

    def judge(self, off: float, counting: float) -> float:
        """Return above 0 where there is a change upwards, below 0 for one downwards, else 0.

        Two in a row far off, or many a little off the same way.

        Args:
            off: ln of what was measured, less that of what was expected. counting: the variance that counting gives it.
        """
        score = off / math.sqrt(counting + self.noise)
        drift = off / math.sqrt(counting + max(self.noise / 2, LEAST_DRIFT**2))
        self.noise += 0.1 * (min(max(0.0, off * off - counting), 9 * self.noise) - self.noise)
        self.noise = max(min(self.noise, self.most), LEAST**2)
        self.surprises = self.surprises + 1 if abs(score) > FAR else 0
        self.above, self.below = max(0.0, self.above + drift - SLACK), max(0.0, self.below - drift - SLACK)
        if self.surprises >= TWICE:
            return score
        return self.above - self.below if max(self.above, self.below) > PILE else 0.0

    def forget(self) -> None:
        """Begin anew; how noisy it is is still known."""
        self.surprises, self.above, self.below = 0, 0.0, 0.0
