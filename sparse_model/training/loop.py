"""Training a token-sparse network: routed or masked flow matching on accelerate, resumable to the step."""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from ..checkpoints.checkpoint import build, save
from ..checkpoints.families import architecture_of
from ..checkpoints.spec import ModelSpec
from ..method.prediction import Flow
from ..method.sparsity import Sparsity
from ..networks.layers import TORCH, AdaLNBlock, attend_written_out
from ..networks.positions import sincos_positions
from ..writing import remove_left_overs, whole_file
from .augment import Augmentation, augment
from .config import TrainConfig
from .data import Pictures
from .duration import beginning, outlook
from .grid import save_grid
from .loss import flow_loss, masked_flow_loss, noise_levels
from .muon import Muon
from .start import bundled, start_from
from .state import read_state, write_state

MEASURED = 20  # steps between looks at the loss, for which a GPU is waited for
VALIDATION_GAMMAS = (0.0, 0.5, 0.9)
VALIDATION_PICTURES = 512  # at most, of the training pictures as of the held-out ones
TIMED = 2  # the step of a run that is timed on a CPU: the first one compiles
EXPORT, EARLY = "model.safetensors", "early.safetensors"


def initialise(network: nn.Module) -> None:
    """DiT's initialisation (arXiv 2212.09748): Xavier layers, adaLN-Zero, sine-cosine positions."""
    grid = network.config.grid
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "adaLN_modulation" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
        elif "embedding_table" in name or name.startswith("t_embedder") or name == "mask_token":
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("pos_embed"):
            parameter.data.copy_(sincos_positions(parameter.shape[2], grid, grid, grid))
        else:
            nn.init.xavier_uniform_(parameter.view(len(parameter), -1))


def optimizers(network: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, modulation, biases and the two ends."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if "blocks." in name and p.ndim == 2 and "adaLN" not in name]
    chosen = {id(p) for p in hidden}
    others = [p for _, p in named if id(p) not in chosen]
    orthogonalised = torch.bfloat16 if config.precision == "bf16" else torch.float32
    muon = Muon(hidden, lr=config.rate, weight_decay=config.weight_decay, dtype=orthogonalised)
    return [muon, torch.optim.AdamW(others, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)]


def rate_factor(step: int, config: TrainConfig) -> float:
    """Warm-up, then constant, then a linear fall to zero over the last `decay` steps."""
    return min(1.0, (step + 1) / max(config.warmup, 1), (config.steps - step) / max(config.decay, 1))


def trained_rate(sparsity: Sparsity) -> float:
    """The sparsity rate of training; ValueError for routes of several, which one evaluation does not have."""
    ratios = sorted({route.ratio for route in sparsity.routes} | ({sparsity.mask} - {None}))
    if len(ratios) > 1:
        found = ", ".join(f"{ratio:g}" for ratio in ratios)
        raise ValueError(f"the routes have the ratios {found}, but all are trained at one: give them the same.")
    return ratios[0] if ratios else 0.0


class Ema:
    """A running mean of the weights, quick at first: decay min(ema, (1 + n) / (10 + n)) after n steps."""

    def __init__(self, network: nn.Module):
        self.network = network.requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, step: int, decay: float) -> None:
        decay = min(decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.network.parameters()), [p.detach() for p in source.parameters()], step)


def spec_of(config: TrainConfig, pictures: Pictures) -> ModelSpec:
    return ModelSpec(
        architecture_of(config.network), config.network, Flow(config.output, 0, config.time_scale), config.sparsity,
        pictures.label_names, latent="pixels", title=config.title, license="Apache-2.0",
    )  # fmt: skip


class Run:
    """One training run in a folder: state/ to resume from, log.jsonl, grids, and the exported checkpoints."""

    def __init__(self, config: TrainConfig, pictures: Pictures, out: Path):
        self.gamma = trained_rate(config.sparsity)
        self.accelerator = Accelerator(mixed_precision=config.precision)
        self.config, self.out = config, out
        self.pictures = pictures.to(self.accelerator.device) if self._fit(pictures) else pictures
        split = pictures.split(config.held_out, config.seed)
        self.train_index, self.held_out = (index.to(self.pictures.device) for index in split)
        self.spec = spec_of(config, pictures)
        torch.manual_seed(config.seed)
        on_cpu = self.accelerator.device.type == "cpu"
        network = build(self.spec, replace(TORCH, attention=attend_written_out) if on_cpu else TORCH)
        initialise(network)
        if config.start:
            start_from(network, pictures.label_names, bundled(config.start))
        self.ema = Ema(build(self.spec).to(self.accelerator.device))
        self.ema.network.load_state_dict(network.state_dict())
        if config.compile:
            for module in network.modules():
                if isinstance(module, AdaLNBlock):
                    module.compile(dynamic=False)
        self.network, *self.optimizers = self.accelerator.prepare(network, *optimizers(network, config))
        self.step = 0

    def _fit(self, pictures: Pictures) -> bool:
        """Whether they take no more than a quarter of what is free of the GPU's memory."""
        if self.accelerator.device.type != "cuda":
            return False
        return 4 * pictures.images.nbytes <= torch.cuda.mem_get_info(self.accelerator.device)[0]

    @property
    def state(self) -> Path:
        return self.out / "state"

    @property
    def fresh(self) -> Path:
        return self.out / "state.new"

    @property
    def replaced(self) -> Path:
        return self.out / "state.old"

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks of the state, by the names of their files."""
        return {"network": self.accelerator.unwrap_model(self.network), "average": self.ema.network}

    def resume(self) -> None:
        """Goes on from the state in the folder, if there is one, and removes what a killed run left there."""
        if self.accelerator.is_main_process:
            if not self.state.is_dir() and self.replaced.is_dir():
                os.replace(self.replaced, self.state)  # the last run was killed in the middle of `checkpoint`
            shutil.rmtree(self.fresh, ignore_errors=True)
            for name in (EXPORT, EARLY):
                remove_left_overs(self.out / name, age=0)
        self.accelerator.wait_for_everyone()
        if self.state.is_dir():
            self.step = read_state(self.state, self.networks, self.optimizers)

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes it: one that stopped alone would leave the others waiting for its gradients."""
        if self.accelerator.num_processes == 1:
            return wish
        if wish:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def checkpoint(self) -> None:
        """The whole state, replaced only once the new one is complete."""
        if self.accelerator.is_main_process:
            write_state(self.fresh, self.networks, self.optimizers, self.step)
            if self.state.is_dir():
                shutil.rmtree(self.replaced, ignore_errors=True)
                os.replace(self.state, self.replaced)
            os.replace(self.fresh, self.state)
            shutil.rmtree(self.replaced, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def export(self, name: str) -> None:
        """The averaged weights in half precision, as artists get them."""
        if self.accelerator.is_main_process:
            save(self.ema.network.state_dict(), self.spec, self.out / name, torch.float16)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x, y, sigma, z) of a step: decided by (seed, step, process) and the device that the pictures are on, so a
        resumed run repeats it."""
        config, rank, device = self.config, self.accelerator.process_index, self.pictures.device
        seed = (config.seed * 1_000_003 + step) * 1_009 + rank
        generator = torch.Generator(device).manual_seed(seed)
        drawn = {"generator": generator, "device": device}
        chosen = self.train_index[torch.randint(len(self.train_index), (config.batch,), **drawn)]
        x, y = self.pictures.pixels(chosen), self.pictures.weights(chosen)
        y *= torch.rand(config.batch, 1, **drawn) >= config.label_drop
        sigma = noise_levels(config.batch, config.noise_mean, config.noise_spread, generator)
        z = torch.randn(x.shape, **drawn)
        if config.word_drop:
            y *= torch.rand(y.shape, **drawn) >= config.word_drop
        if config.augmentation != Augmentation():
            x = augment(x, self.pictures.mirrors(chosen), config.augmentation, generator)
        torch.manual_seed(seed)  # the token subsets of this step
        return tuple(value.to(self.accelerator.device, non_blocking=True) for value in (x, y, sigma, z))

    def loss(self, x: Tensor, y: Tensor, sigma: Tensor, z: Tensor) -> Tensor:
        config, inputs = self.config, (self.network, self.spec.prediction, x, y, sigma, z, self.gamma)
        if config.sparsity.mask is None:
            return flow_loss(*inputs)
        return masked_flow_loss(*inputs, config.network.patch_size, config.mae)

    def train_step(self) -> Tensor:
        factor = rate_factor(self.step, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.rate * factor
        x, y, sigma, z = self.batch(self.step)
        with self.accelerator.autocast():
            loss = self.loss(x, y, sigma, z).mean()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.ema.update(self.accelerator.unwrap_model(self.network), self.step, self.config.ema)
        return loss.detach()

    def check(self, loss: Tensor) -> None:
        """ValueError if the loss of the last step, or a weight behind it, is no finite number in any process."""
        sums = torch.stack([loss, *(parameter.detach().sum() for parameter in self.network.parameters())])
        if self.agreed(not sums.isfinite().all()):
            raise ValueError(
                f"training has diverged: at step {self.step} the loss ({loss:g}) or a weight is no finite number, so "
                f"nothing was saved; lower the rate ({self.config.rate:g}) and go on from the last state, or start "
                "again in another folder."
            )

    def report(self, record: dict[str, float | None]) -> None:
        """The record with the validation losses into log.jsonl, a sample grid, and the averaged weights so far."""
        if not self.accelerator.is_main_process:
            return
        record |= self.validate()
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        tqdm.write(json.dumps(record))
        save_grid(self.ema.network, self.spec, self.pictures, self.held_out, self.out / f"grid-{self.step:06d}.png")
        self.export(EXPORT)

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights at several sparsity rates, always on the same pictures with the same noise:
        on held-out pictures as "gamma 0.5", on training pictures as they are as "training gamma 0.5"."""
        return self.losses(self.held_out[:VALIDATION_PICTURES]) | {
            f"training {name}": loss
            for name, loss in self.losses(self.train_index[: min(len(self.held_out), VALIDATION_PICTURES)]).items()
        }

    @torch.no_grad()
    def losses(self, index: Tensor) -> dict[str, float]:
        """Mean loss of the averaged weights on those pictures at each sparsity rate."""
        generator = torch.Generator().manual_seed(1)
        x, y = self.pictures.pixels(index), self.pictures.weights(index)
        sigma = noise_levels(len(x), self.config.noise_mean, self.config.noise_spread, generator)
        z = torch.randn(x.shape, generator=generator)
        values = [value.to(self.accelerator.device) for value in (x, y, sigma, z)]
        means: dict[str, float] = {}
        for gamma in VALIDATION_GAMMAS:
            torch.manual_seed(2)
            means[f"gamma {gamma:g}"] = flow_loss(self.ema.network, self.spec.prediction, *values, gamma).mean().item()
        return means


def train(
    config: TrainConfig, pictures: Pictures, out: Path, *, minutes: float = math.inf, every: int = 500
) -> int | None:
    """Trains until `config.steps` or for `minutes`; the same call again goes on where the last one stopped.

    Every `every` steps: state, validation losses (log.jsonl) and a sample grid. On a CPU it says soon how long that
    will take. SIGTERM and Ctrl-C save before they end the run; then the number of that signal is returned. ValueError
    once the run has diverged, with nothing saved since.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run(config, pictures, out)
    run.resume()
    with whole_file(out / "config.json") as temporary:
        temporary.write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
    started, first = time.monotonic(), run.step
    bar = tqdm(total=config.steps, initial=run.step, desc=config.title, disable=not run.accelerator.is_main_process)
    loss = mean = None
    slow = run.accelerator.device.type == "cpu" and run.accelerator.is_main_process
    if slow and run.step < config.steps:
        tqdm.write(beginning(config.batch))
    with bar, stop_signals() as stopping:
        while run.step < config.steps and not run.agreed(bool(stopping) or time.monotonic() - started >= 60 * minutes):
            before = time.monotonic()
            loss = run.train_step()
            bar.update()
            if slow and run.step == first + TIMED:
                tqdm.write(outlook(time.monotonic() - before, config.steps - run.step, every))
            measured, reported = run.step % MEASURED == 0, run.step % every == 0 or run.step == config.steps
            if measured or reported or run.step == config.early:
                run.check(loss)
            if measured:
                mean = loss.item() if mean is None else 0.9 * mean + 0.1 * loss.item()
                bar.set_postfix(loss=f"{mean:.4f}")
            if run.step == config.early:
                run.export(EARLY)
            if reported:
                run.checkpoint()
                speed = (run.step - first) * config.batch * run.accelerator.num_processes / (time.monotonic() - started)
                run.report({"step": run.step, "loss": mean, "pictures/s": speed})
        if loss is not None:
            run.check(loss)
        run.checkpoint()
        run.export(EXPORT)
    return stopping[0] if stopping else None


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT in a list instead of ending the process."""
    received: list[int] = []
    before = {
        kind: signal.signal(kind, lambda number, _: received.append(number)) for kind in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
