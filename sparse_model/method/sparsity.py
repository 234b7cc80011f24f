"""Where a network is token-sparse: routes (TREAD) and masks (MaskDiT), and the JSON that records them."""

import ast
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPTION = "--tread_config"
"""SimpleTuner's option on its command line."""
LONGEST = 1 << 17
"""Characters of a pasted configuration: a whole one has a few thousand."""

KEYS = ("start_layer_idx", "end_layer_idx", "selection_ratio")
LAYERS = 1 << 20  # more than any network has
FACTOR = "gamma_factor"
"""Our own key beside the trainers'; it may be missing."""


@dataclass(frozen=True)
class Route:
    """A stretch of layers that only kept tokens run through: r_{start->end}, both ends inside the route.

    Negative ends count from the network's last layer, as in Python. `ratio` is the sparsity rate in training. In
    sampling the rates of a schedule are multiplied by `factor`, for networks that were trained with several ratios.
    """

    start: int
    end: int
    ratio: float = 0.5
    factor: float = 1.0

    def __post_init__(self):
        if not 0 <= self.factor < math.inf:
            raise ValueError(f"route {FACTOR} {self.factor} is no factor of a sparsity rate: it is 0 or more.")
        if not 0 <= self.ratio < 1:
            raise ValueError(f"route ratio {self.ratio} is outside [0, 1): it is the fraction of tokens left out.")

    def layers(self, depth: int) -> range:
        """The routed layers of a network of `depth` layers; ValueError if the route does not fit it."""
        start, end = (layer + depth if layer < 0 else layer for layer in (self.start, self.end))
        if not (0 <= start < depth and 0 <= end < depth):
            raise ValueError(
                f"route {self.start} -> {self.end} leaves the network: it has layers 0 to {depth - 1} "
                f"(or {-depth} to -1 counted from the end)."
            )
        if start > end:
            raise ValueError(
                f"route {self.start} -> {self.end} is reversed: in a network of {depth} layers it would start at layer "
                f"{start} and end at layer {end}."
            )
        return range(start, end + 1)


def trainers_route(depth: int) -> Route:
    """The route that SimpleTuner recommends for a network of `depth` layers: from the third to the last but one
    (https://github.com/bghira/SimpleTuner/blob/main/documentation/TREAD.md)."""
    return Route(2, -2) if depth > 4 else Route(depth // 3, depth // 3)


def short_route(depth: int) -> Route:
    """A route for a network that nobody trained with one: two layers, a third of the way in, where skip-layer guidance
    is used to leave layers out (7 to 9 of the 24 of SD3.5 medium)."""
    start = min(depth // 3, depth - 1)
    return Route(start, min(start + 1, depth - 1), ratio=0.0)


@dataclass(frozen=True)
class Sparsity:
    """How a network was trained to be token-sparse: by routes, or by a mask in front of its encoder."""

    routes: tuple[Route, ...] = ()
    mask: float | None = None

    def __post_init__(self):
        if self.mask is not None and not 0 <= self.mask < 1:
            raise ValueError(f"mask ratio {self.mask} is outside [0, 1): it is the fraction of tokens left out.")
        if self.mask is not None and self.routes:
            raise ValueError("a network is either routed or masked; give routes or a mask ratio.")

    def __bool__(self) -> bool:
        return bool(self.routes) or self.mask is not None

    @property
    def count(self) -> int:
        """How many token subsets one evaluation needs for each branch."""
        return len(self.routes) + (self.mask is not None)

    def factors(self, depth: int) -> tuple[float, ...]:
        """What every route multiplies a schedule's rates by, by the numbers of `stretches`; () where they leave them as
        they are."""
        if all(route.factor == 1 for route in self.routes):
            return ()
        return tuple(route.factor for route in self._in_order(depth))

    def check_rates(self, gamma_strong: float, gamma_weak: float) -> None:
        """ValueError if a route would scale the highest rates of a schedule out of their range."""
        for route in self.routes:
            for name, gamma, fits in (
                ("gamma_strong", gamma_strong, gamma_strong * route.factor < 1),
                ("gamma_weak", gamma_weak, gamma_weak * route.factor <= 1),
            ):
                if not fits:
                    raise ValueError(
                        f"The route {route.start} -> {route.end} multiplies {name} {gamma:g} by its {FACTOR} "
                        f"{route.factor:g}, which is {gamma * route.factor:g}: no more than all tokens can be left "
                        f"out, and the strong branch must keep some; lower {name} or the {FACTOR} in the route's JSON."
                    )

    def stretches(self, depth: int) -> Iterator[tuple[range, int | None]]:
        """(layers, route number or None) over all layers in order; ValueError if routes overlap.

        Routes are numbered as they follow one another in the network, however they are written.
        """
        layer = 0
        for number, route in enumerate(self._in_order(depth)):
            layers = route.layers(depth)
            if layers.start < layer:
                raise ValueError(f"two routes overlap at layer {layers.start}; routes must follow one another.")
            yield range(layer, layers.start), None
            yield layers, number
            layer = layers.stop
        yield range(layer, depth), None

    def _in_order(self, depth: int) -> list[Route]:
        return sorted(self.routes, key=lambda route: route.layers(depth).start)

    def to_dict(self) -> dict[str, Any]:
        """What `to_json` writes, as a value for somebody else's JSON."""
        if self.mask is not None:
            return {"mask_ratio": self.mask}
        return {
            "routes": [
                dict(zip(KEYS, (r.start, r.end, r.ratio), strict=True)) | ({FACTOR: r.factor} if r.factor != 1 else {})
                for r in self.routes
            ]
        }

    def to_json(self) -> str:
        """The trainers' JSON: {"routes": [{"start_layer_idx", "end_layer_idx", "selection_ratio"}]}."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Any) -> "Sparsity":
        """What `to_dict` gave or a trainer's configuration holds; ValueError in one sentence for anything else."""
        try:
            mask = float(data["mask_ratio"]) if "mask_ratio" in data else None
            routes = data["routes"] if mask is None else []
            numbers = [(*(route[key] for key in KEYS), route.get(FACTOR, 1)) for route in routes]
            numbers = [
                (_layer(first), _layer(last), float(ratio), float(factor)) for first, last, ratio, factor in numbers
            ]
            if any(max(abs(start), abs(end)) > LAYERS for start, end, *_ in numbers):
                raise ValueError("no network has such layers")
        except (AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
            raise _not_a_route(repr(data)) from error
        return cls(tuple(Route(*values) for values in numbers), mask)

    @classmethod
    def from_json(cls, text: str) -> "Sparsity":
        """`from_dict` of JSON."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _not_a_route(text) from error
        return cls.from_dict(data)

    @classmethod
    def from_trainer(cls, text: str) -> "Sparsity":
        """A route as somebody pastes it: what `from_json` reads, or SimpleTuner's configuration around it.

        There it stands under "tread_config", as an object or as text (JSON or Python, which that trainer takes too), or
        behind "--tread_config=" on its command line.
        """
        if len(text) > LONGEST:
            raise ValueError(
                f"not a route: this text has {len(text):,} characters, and a trainer's configuration has at most "
                f"{LONGEST:,}; paste the JSON of its route alone."
            )
        fragment = text.strip().rstrip(",")
        option = _option(fragment)
        if option is not None:
            fragment = _unquoted(option)
        try:
            found = _literal("{" + fragment + "}" if fragment.startswith('"') else fragment)
            for key in ("tread_config", OPTION):
                found = found.get(key, found)
            text = json.dumps(_literal(found) if isinstance(found, str) else found)
        except (ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RecursionError):
            pass  # `from_json` says what is wrong with it
        return cls.from_json(text)


def _layer(value: Any) -> int:
    number = int(value)
    if number != float(value):
        raise ValueError("there is no layer between two layers")
    return number


def _not_a_route(text: str) -> ValueError:
    example = '{"routes": [{"start_layer_idx": 2, "end_layer_idx": -2, "selection_ratio": 0.5}]}'
    return ValueError(f"not a route: {text[:80]!r}; expected JSON such as {example}.")


def _option(text: str) -> str | None:
    """The value of `--tread_config` as it is typed, None if that is not what the text is: quoted as a whole or not,
    perhaps with the backslash that continues a line. By hand, in one pass: a regular expression tries every space."""
    quote = text[:1] if text[:1] in ("'", '"') else ""
    name, rest = text[len(quote) :][: len(OPTION)], text[len(quote) + len(OPTION) :]
    if name != OPTION or not (rest[:1] == "=" or rest[:1].isspace()):
        return None
    value = rest[1:].lstrip()
    if value.endswith("\\"):
        value = value[:-1].rstrip()
    return value.removesuffix(quote) if value.endswith(quote) else None


def _unquoted(text: str) -> str:
    """An argument of a command line without the quotes around it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return text.replace('\\"', '"')


def _literal(text: str) -> object:
    """A value written in JSON or as a Python literal."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)
