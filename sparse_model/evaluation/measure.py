"""Measuring one cell: samples of one model under one schedule, over all processes of an accelerate launch."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoints.checkpoint import CheckpointError, load
from ..checkpoints.metadata import schedule_to_dict
from ..checkpoints.spec import ModelSpec
from ..cost import Cost, counter, step_cost
from ..method.guidance import RULES
from ..method.matching import Looking, Matching
from ..method.sampling import Denoiser, sample
from ..method.schedule import Schedule, constant
from ..method.tokens import BERNOULLI, TokenOrders
from .caching import Cached
from .features import LITE2, NAME, SIDE, layout
from .metrics import class_consistency, exact, frechet_distance, kernel_distance, neighbourhoods, relative_distance
from .reference import Reference
from .variants import Variant

KEPT = 16  # of so many seeds what many cells need is kept: 10 MB each
UNGUIDED = constant(0, 0, 1, "CFG")
SEEDS_APART = 1_000_000  # sample i of seed s starts from noise s * SEEDS_APART + i
LOOKS, LOOKED_AT = 10, 32  # steps and pictures of a path along which CFG and a schedule are compared
FIGURES = ("frechet", "precision", "recall", "density", "coverage", "consistency", "distance")  # of every cell
QUALITY = ("frechet", "kernel", "frechet_lite2", "kernel_lite2")  # so that no ranking hangs on one metric
FIGURES += QUALITY[1:]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Cell:
    """What is measured: `samples` pictures of `steps` Euler steps under a schedule, from the noises of one seed."""

    schedule: Schedule
    method: str
    seed: int = 0
    samples: int = 1000
    steps: int = 40
    cfg: float = 1.0
    variant: Variant | None = None

    def describe(self) -> dict[str, Any]:
        """What was measured, for its row."""
        row = {
            "method": self.method,
            "schedule": schedule_to_dict(self.schedule),
            "seed": self.seed,
            "samples": self.samples,
            "steps": self.steps,
        }
        return row | self.further()

    def further(self) -> dict[str, Any]:
        """What only some cells have."""
        found = {} if self.cfg == 1 else {"cfg": self.cfg}
        return found if self.variant is None else {**found, "variant": _identity(self.variant)}


class Sampled(NamedTuple):
    """Of the pictures of a cell: features [samples, D] in the two networks, how many were made in a second, and the
    share of the evaluations that ran."""

    features: Tensor
    second: Tensor
    speed: float
    ran: float


_orders = lru_cache(maxsize=2 * KEPT)(TokenOrders)  # a batch of 500 takes longer to draw than a GPU to use


def _identity(variant: Variant) -> dict[str, Any]:
    return {"name": type(variant).__name__, **asdict(variant)}


def digest(state: Mapping[str, Tensor]) -> str:
    """Identifies weights, whatever the metadata beside them says."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]


class Bench:
    """A model, its weaker checkpoint and a reference, ready to measure cells on every process alike."""

    def __init__(
        self,
        checkpoint: Path,
        reference: Callable[[ModelSpec], Reference],
        features: Sequence[nn.Module],
        *,
        auxiliary: Path | None = None,
        precision: str = "float32",
        batch: int = 100,
    ):
        from accelerate import Accelerator  # not needed, nor installed, where pictures are only sampled

        self.accelerator = Accelerator()
        torch.backends.cudnn.allow_tf32 = False  # features in the precision that a CPU has
        self.precision, self.batch = precision, batch
        device = self.accelerator.device
        self.features = [network.to(device, memory_format=layout(device)) for network in features]
        self.model, self.spec, self.digest = self._denoiser(checkpoint)
        if self.spec.latent != "pixels":
            raise CheckpointError(
                f"{checkpoint.name}: makes latents of the '{self.spec.latent}' VAE; only models that make pixels can "
                "be evaluated here."
            )
        self.auxiliary, self.auxiliary_spec, self.auxiliary_digest = None, None, ""
        if auxiliary is not None:
            self.auxiliary, self.auxiliary_spec, self.auxiliary_digest = self._denoiser(auxiliary)
            if what := self.spec.unlike(self.auxiliary_spec):
                raise CheckpointError(
                    f"{auxiliary.name}: cannot guide {checkpoint.name} as its weaker checkpoint: {what}."
                )
        self.reference = reference(self.spec)
        self.unguided = lru_cache(maxsize=KEPT)(self._unguided)

    def _denoiser(self, path: Path) -> tuple[Denoiser, ModelSpec, str]:
        network, spec = load(path)
        weights, dtype = digest(network.state_dict()), PRECISIONS[self.precision]
        network.to(self.accelerator.device, dtype)
        # the sampler's x stays in float32: only the network runs in the chosen precision
        return Denoiser(lambda x, *inputs: network(x.to(dtype), *inputs).float(), spec.prediction), spec, weights

    def key(self, cell: Cell) -> str:
        """Identifies everything that decides a cell's figures, apart from the model."""
        weak = self.auxiliary_digest if RULES[cell.schedule.rule].auxiliary else ""
        parts = [schedule_to_dict(cell.schedule), cell.seed, cell.samples, cell.steps, self.precision]
        parts += [self.reference.digest, weak, SIDE]
        parts += [*cell.further().values(), *self._batched(cell).values()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _batched(self, cell: Cell) -> dict[str, Any]:
        """What decides the figures of a cell besides, where a batch shares the number of its tokens."""
        return {"batch": self.batch} if cell.schedule.selection == BERNOULLI else {}

    def cost(self, schedule: Schedule, steps: int, cfg: float = 1.0) -> Cost:
        """The mean cost of a step, the weaker checkpoint's branches counted at its own size."""
        return step_cost(self.spec, schedule, steps, cfg=cfg, auxiliary=self.auxiliary_spec)

    def draw(self, cell: Cell, index: Tensor) -> Tensor:
        """Samples `index` (consecutive) of a cell [M, C, H, W]; each depends on the seed and its own number alone,
        but for a selection whose batches share the number of their tokens, on the first one's, too."""
        return self._drawn(cell, index)[0]

    def _drawn(self, cell: Cell, index: Tensor) -> tuple[Tensor, float]:
        """(samples, of the multiply-adds that the sampler asked for the share that ran)"""
        config, model = self.spec.config, self.model if cell.variant is None else cell.variant(self.model)
        seed = cell.seed * SEEDS_APART + int(index[0])
        pictures = sample(
            model,
            self.reference.conditions(index).to(self.accelerator.device),
            cell.schedule,
            shape=(config.in_channels, config.input_size, config.input_size),
            steps=cell.steps,
            cfg=cell.cfg,
            seed=seed,
            orders=_orders(seed, cell.steps),
            auxiliary=self.auxiliary if RULES[cell.schedule.rule].auxiliary else None,
        )
        return pictures, model.share(counter(self.spec)) if isinstance(model, Cached) else 1.0

    def matched(self, schedule: Schedule, cfg: float) -> Schedule:
        """The schedule with the omega that moves pictures as far as CFG at the scale `cfg`."""
        config, matching = self.spec.config, Matching(schedule)
        sample(
            Looking(self.model.network, self.model.prediction, matching, LOOKS),
            self.reference.conditions(torch.arange(LOOKED_AT)).to(self.accelerator.device),
            constant(0, 0, cfg, "CFG"),
            shape=(config.in_channels, config.input_size, config.input_size),
            steps=LOOKS,
            seed=-SEEDS_APART,
        )
        return matching.matched(cfg)

    @torch.inference_mode()
    def sampled(self, cell: Cell) -> Sampled:
        """Batches are dealt to the processes, features gathered."""
        from accelerate.utils import gather_object

        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        device = self.accelerator.device
        place = exact(device)
        mine, spent, ran = {}, 0.0, 0.0
        for number, index in enumerate(torch.arange(cell.samples).split(self.batch)):
            if number % count == rank:
                started = time.perf_counter()
                pictures, share = self._drawn(cell, index)
                pictures = pictures.float()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                spent += time.perf_counter() - started
                ran += share * len(index)
                found = (network(pictures) for network in self.features)
                mine[number] = [own.to(place if count == 1 else "cpu") for own in found]
        # one entry per process: what it drew, for how long, and how much of it was run
        gathered = gather_object([(mine, spent, ran)])
        parts = {number: part for drawn, *_ in gathered for number, part in drawn.items()}
        features = (torch.cat(own).to(place) for own in zip(*(parts[number] for number in sorted(parts)), strict=True))
        return Sampled(
            *features, cell.samples / max(t for _, t, _ in gathered), sum(r for *_, r in gathered) / cell.samples
        )

    def _unguided(self, seed: int, samples: int, steps: int) -> Sampled:
        return self.sampled(Cell(UNGUIDED, "unguided", seed, samples, steps))

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The row of a cell: what it was, its metrics, its cost. The same on every process."""
        from accelerate.utils import broadcast_object_list

        if RULES[cell.schedule.rule].auxiliary and self.auxiliary is None:
            raise ValueError(f"{cell.schedule.rule} needs a weaker second checkpoint; name it by --auxiliary.")
        found = unguided = self.unguided(cell.seed, cell.samples, cell.steps)
        if cell.schedule != UNGUIDED or cell.variant is not None:
            found = self.sampled(cell)
        real, second, fake = self.reference.real, self.reference.second, found.features
        asked = self.reference.conditions(torch.arange(cell.samples)).to(fake.device)
        cost = self.cost(cell.schedule, cell.steps, cell.cfg)
        row = {"key": self.key(cell), **cell.describe(), **self._batched(cell)}
        if self.accelerator.is_main_process:
            row |= {
                "frechet": frechet_distance(real, fake),
                **neighbourhoods(real, fake),
                "consistency": class_consistency(real, fake, asked),
                "distance": relative_distance(real, fake, unguided.features),
                "kernel": kernel_distance(real, fake),
                "frechet_lite2": frechet_distance(second, found.second),
                "kernel_lite2": kernel_distance(second, found.second),
            }
        row |= {
            "gmacs": cost.total * found.ran / 1e9,
            "cost": cost.total * found.ran / cost.cfg,
            "images_per_second": found.speed,
            "dtype": self.precision,
            "features": f"{NAME}, {SIDE} px; {LITE2.name}, {LITE2.side} px",
            "reference": self.reference.digest,
            "title": self.spec.title,
            "machine": f"{self.accelerator.num_processes} x {self.accelerator.device.type}, {platform.machine()}",
            "date": date.today().isoformat(),
        }
        return broadcast_object_list([row])[0]
