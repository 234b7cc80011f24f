"""gamma_strong, gamma_weak and omega as functions of sampling progress (0 at noise, 1 at the end)."""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ..files import printable
from .guidance import RULES, Settings
from .tokens import SELECTIONS

INTERPOLATIONS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "step": lambda u: 0.0,
    "smooth": lambda u: u,  # between two keyframes; a curve of more bends it at those between
}


LEVELS = 6
"""Steps of a rising or falling gamma. Few different counts of tokens let kernels and compiled networks be reused, and
curves of one shape step at the same moments. For the paper's cosine from 0 to 0.6 the values are 0, 0.1, ..., 0.6."""

KEYFRAMES = 1000
"""At most, of a curve; more than a run has steps, and few enough for an editor that asks at every key."""

TICKS = 1 << 16
"""Of the way between two keyframes: as finely jumps are found."""

SHOWN = 80
"""Characters of a curve in an error."""

HALF_WAY = {"step": 0.5}
"""Where on its way a ramp ends, of those that do not end at 1."""


@dataclass(frozen=True)
class Curve:
    """A value over progress: keyframes ((progress, value), ...) joined by straight lines, half cosines, steps, or
    smoothly, by a monotone cubic.

    Before the first and after the last keyframe the value stays what it is there.
    """

    keyframes: tuple[tuple[float, float], ...]
    interpolation: str = "linear"

    def __post_init__(self):
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation '{self.interpolation}' is unknown; use one of {', '.join(INTERPOLATIONS)}."
            )
        if not self.keyframes:
            raise ValueError("a curve needs at least one keyframe, such as 0:0.5.")
        if len(self.keyframes) > KEYFRAMES:
            raise ValueError(f"a curve has {len(self.keyframes)} keyframes; leave some out, {KEYFRAMES} is the most.")
        if not all(math.isfinite(number) for keyframe in self.keyframes for number in keyframe):
            wrong = next(frame for frame in self.keyframes if not all(map(math.isfinite, frame)))
            raise ValueError(f"a curve's keyframes must be finite numbers, not {wrong[0]:g}:{wrong[1]:g}.")
        times = [time for time, _ in self.keyframes]
        if min(times) < 0 or max(times) > 1 or any(a >= b for a, b in itertools.pairwise(times)):
            shown = printable(", ".join(f"{time:g}" for time in times), SHOWN)
            raise ValueError(f"keyframe times must rise within [0, 1], not {shown}.")

    def __call__(self, progress: float, levels: int | None = None) -> float:
        """The value at `progress`; with `levels`, a ramp between keyframes is a staircase of as many steps."""
        after = self._behind(progress)
        if after == 0 or after == len(self.keyframes):
            return self.keyframes[max(after - 1, 0)][1]
        (t0, v0), (t1, v1) = self.keyframes[after - 1], self.keyframes[after]
        share = self._share(after, (progress - t0) / (t1 - t0))
        if levels is None:
            return v0 + (v1 - v0) * share
        return round(v0 + (v1 - v0) * round(share * levels) / levels, 6)

    def _share(self, after: int, u: float) -> float:
        """How much of the way between two keyframes, of which `after` is the second, is done at `u` of its time."""
        if self.interpolation != "smooth":
            return INTERPOLATIONS[self.interpolation](u)
        (t0, v0), (t1, v1) = self.keyframes[after - 1], self.keyframes[after]
        if v0 == v1:
            return u
        secant = (v1 - v0) / (t1 - t0)
        begin, end = self._slopes[after - 1] / secant, self._slopes[after] / secant
        return u * u * (3 - 2 * u) + begin * u * (1 - u) ** 2 - end * u * u * (1 - u)

    def jumps(self, start: float, end: float, levels: int) -> list[float]:
        """When the staircase of so many `levels` jumps between two moments that have no keyframe between them."""
        after = self._behind(start)
        if after == 0 or after == len(self.keyframes):
            return []
        (t0, _), (t1, _) = self.keyframes[after - 1], self.keyframes[after]
        found = []
        for level in range(levels):
            tick = bisect_left(range(TICKS), (level + 0.5) / levels, key=lambda i: self._share(after, i / TICKS))
            found.append(t0 + (t1 - t0) * tick / TICKS)
        return [time for time in found if start < time < end]

    def _behind(self, progress: float) -> int:
        """The number of the first keyframe behind a moment."""
        return bisect_right(self.keyframes, progress, key=lambda keyframe: keyframe[0])

    @cached_property
    def _slopes(self) -> list[float]:
        return monotone_slopes(self.keyframes)

    @property
    def low(self) -> float:
        return min(value for _, value in self.keyframes)

    @property
    def high(self) -> float:
        return max(value for _, value in self.keyframes)

    @classmethod
    def constant(cls, value: float) -> "Curve":
        return cls(((0.0, value),))

    @classmethod
    def ramp(cls, interpolation: str, start: float, end: float, at: float | None = None) -> "Curve":
        """From `start` at progress 0 to `end` at progress `at`: its end, or half way for a step."""
        at = HALF_WAY.get(interpolation, 1.0) if at is None else at
        return cls(((0.0, start), (at, end)), interpolation)

    @classmethod
    def linear(cls, start: float, end: float) -> "Curve":
        return cls.ramp("linear", start, end)

    @classmethod
    def cosine(cls, start: float, end: float) -> "Curve":
        """Half a period of a cosine from start to end."""
        return cls.ramp("cosine", start, end)

    @classmethod
    def step(cls, start: float, end: float, at: float = 0.5) -> "Curve":
        """`start` before progress `at`, `end` from there on."""
        return cls.ramp("step", start, end, at)

    @classmethod
    def parse(cls, text: str) -> "Curve":
        """`0.5`, `cosine 0 0.6`, `linear 0.2 0.8`, `step 0.5 0.2 0.7`, or keyframes `0:0.5, 0.3:0.2, 1:0`, with the
        name of an interpolation in front or not. Spaces beside a colon do not matter."""
        words = text.replace(",", " ").split()
        try:
            if words and words[0].lower() in INTERPOLATIONS:
                name, rest = words[0].lower(), [word for word in words[1:] if word != ":"]
                if any(":" in word for word in rest):
                    return cls(_keyframes(rest), name)
                return cls.ramp(name, *map(float, rest))
            if len(words) == 1 and ":" not in words[0]:
                return cls.constant(float(words[0]))
            keyframes = _keyframes(words)
        except (TypeError, ValueError) as error:
            closer = ":".join(part.strip() for part in text.split(":"))
            if closer != text.strip():
                return cls.parse(closer)
            raise ValueError(
                f"'{printable(text, SHOWN)}' is not a curve; write 0.5, 'cosine 0 0.6' or '0:0.5, 0.3:0.2, 1:0'."
            ) from error
        return cls(keyframes)


def monotone_slopes(keyframes: tuple[tuple[float, float], ...]) -> list[float]:
    """Slopes at the keyframes of a cubic that rises and falls only where they do (Fritsch and Carlson, 1980): the mean
    of the secants beside a keyframe, 0 where they change sign, shortened where a cubic would overshoot."""
    secants = [(v1 - v0) / (t1 - t0) for (t0, v0), (t1, v1) in itertools.pairwise(keyframes)]
    inner = [(a + b) / 2 if a * b > 0 else 0.0 for a, b in itertools.pairwise(secants)]
    slopes = [*secants[:1], *inner, *secants[-1:]]
    for i, secant in enumerate(secants):
        steepness = math.hypot(slopes[i], slopes[i + 1])
        if steepness > 3 * abs(secant):
            shorter = 3 * abs(secant) / steepness
            slopes[i : i + 2] = slopes[i] * shorter, slopes[i + 1] * shorter
    return slopes


def _keyframes(words: list[str]) -> tuple[tuple[float, float], ...]:
    return tuple((float(time), float(value)) for time, value in (word.split(":") for word in words))


@dataclass(frozen=True)
class Schedule:
    """The whole of a guidance plan: which rule, how sparse each branch is, and how strongly it guides, over progress.

    `rule` says what is predicted and how it is combined (guidance.RULES); a dense rule has gammas of 0, whatever is
    given. `start` and `end` bound the active interval of progress, both included.
    """

    gamma_strong: Curve
    gamma_weak: Curve
    omega: Curve
    rule: str = "SG"
    start: float = 0.0
    end: float = 1.0
    selection: str = "exact"

    def __post_init__(self):
        if not (self.gamma_strong.low >= 0 and self.gamma_strong.high < 1):
            value = self.gamma_strong.low if self.gamma_strong.low < 0 else self.gamma_strong.high
            raise ValueError(f"gamma_strong {value:g} is outside [0, 1): the strong branch must keep some tokens.")
        if not (self.gamma_weak.low >= 0 and self.gamma_weak.high <= 1):
            value = self.gamma_weak.low if self.gamma_weak.low < 0 else self.gamma_weak.high
            raise ValueError(f"gamma_weak {value:g} is outside [0, 1]: it is the fraction of tokens left out.")
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"the active interval {self.start:g} to {self.end:g} must rise within [0, 1].")
        if self.selection not in SELECTIONS:
            raise ValueError(f"token selection '{self.selection}' is unknown; use one of {', '.join(SELECTIONS)}.")
        if self.rule not in RULES:
            raise ValueError(f"guidance rule '{self.rule}' is unknown; use one of {', '.join(RULES)}.")
        if RULES[self.rule].dense:
            object.__setattr__(self, "gamma_strong", Curve.constant(0.0))
            object.__setattr__(self, "gamma_weak", Curve.constant(0.0))
        if RULES[self.rule].contrasts_sparsity:
            for progress in self._moments(in_doubt=True):
                now = self.at(progress)
                if now.gamma_strong >= now.gamma_weak:
                    raise ValueError(
                        f"gamma_strong {now.gamma_strong:g} is not below gamma_weak {now.gamma_weak:g} at progress "
                        f"{progress:.3g}: in SG the weak branch must be sparser than the strong one."
                    )

    def rates(self) -> set[tuple[float, float]]:
        """Every pair of gamma_strong and gamma_weak that is sampled in the active interval."""
        return {(now.gamma_strong, now.gamma_weak) for now in map(self.at, self._moments())}

    def _moments(self, in_doubt: bool = False) -> Iterator[float]:
        """Moments of the active interval that show every pair of gammas which is sampled there; `in_doubt`: between
        keyframes only where the strong one might reach the weak one."""
        curves = self.gamma_strong, self.gamma_weak
        times = {self.start, self.end}.union(time for curve in curves for time, _ in curve.keyframes)
        times = sorted(time for time in times if self.start <= time <= self.end)
        for a, b in itertools.pairwise(times):
            yield a
            strong, weak = zip(*((now.gamma_strong, now.gamma_weak) for now in map(self.at, (a, b))), strict=True)
            if not in_doubt or max(strong) >= min(weak):  # else their order is clear, since neither turns in between
                jumps = {a, b}.union(*(curve.jumps(a, b, LEVELS) for curve in curves))
                yield from ((c + d) / 2 for c, d in itertools.pairwise(sorted(jumps)))
        yield self.end

    def at(self, progress: float, cfg: float = 1.0) -> Settings:
        """The values at a moment; outside the active interval omega is 1."""
        active = self.start <= progress <= self.end
        omega = self.omega(progress) if active else 1.0
        return Settings(self.gamma_strong(progress, LEVELS), self.gamma_weak(progress, LEVELS), omega, cfg)

    def with_scale(self, omega: float) -> "Schedule":
        """The same shape of omega with another maximum: its excess over 1 is stretched to reach `omega`.

        A flat curve, or one that never exceeds 1, becomes constant. ValueError for a maximum that is none.
        """
        if not math.isfinite(omega):
            raise ValueError(f"omega {omega:g} is no guidance scale; use a number such as 2.")
        if self.omega.high == self.omega.low or self.omega.high <= 1:
            return replace(self, omega=Curve.constant(omega))
        stretch = (omega - 1) / (self.omega.high - 1)
        keyframes = tuple((time, 1 + (value - 1) * stretch) for time, value in self.omega.keyframes)
        return replace(self, omega=replace(self.omega, keyframes=keyframes))

    @property
    def steady(self) -> bool:
        """Whether it stays the same from noise to end."""
        curves = self.gamma_strong, self.gamma_weak, self.omega
        return (self.start, self.end) == (0, 1) and all(curve.low == curve.high for curve in curves)

    @property
    def sparse(self) -> bool:
        return self.gamma_strong.high > 0 or self.gamma_weak.high > 0


def constant(gamma_strong: float, gamma_weak: float, omega: float, rule: str = "SG") -> Schedule:
    """A schedule that stays the same from noise to end."""
    return Schedule(Curve.constant(gamma_strong), Curve.constant(gamma_weak), Curve.constant(omega), rule)


# arXiv 2601.01608: SG_FLOPS and SG_FID in table 2 (omega within the range of its heatmaps), HPSv3 and GenEval settings
# of its text-to-image model. Path-Drop Guidance of arXiv 2510.21986, omega of its published configuration. HDM: the
# example in its authors' README (KohakuBlueleaf/HDM). The last one is what the node SkipLayerGuidanceDiT
# of ComfyUI does at its defaults: scale 3 between 1 % and 15 %.
PRESETS: dict[str, Schedule] = {
    "SG_FLOPS": constant(0.5, 0.9, 1.5),
    "SG_FID": Schedule(Curve.cosine(0.0, 0.6), Curve.cosine(0.6, 0.0), Curve.constant(1.5), "AG + SG"),
    "HPSv3": constant(0.1, 0.8, 1.8),
    "GenEval": constant(0.2, 0.7, 2.5, "CFG + SG"),
    "PDG": constant(0.0, 1.0, 3.0, "CFG + SG"),
    "HDM": constant(0.0, 0.5, 3.0, "CFG + SG"),
    "like Skip Layer Guidance": Schedule(
        Curve.constant(0.0), Curve.constant(1.0), Curve.constant(4.0), "SG beside CFG", 0.01, 0.15
    ),
}
