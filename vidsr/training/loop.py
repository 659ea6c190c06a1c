"""The training loop: from a recipe and a store to weights, with nothing hidden.

A step: crops of small pictures in, the output's error against the large ones in dB (and that of its change between
two frames of a shot, where the recipe wants calm), Muon for the convolutions, Adam for their biases and INT8 ranges, a
running average of the weights. Everything random is drawn from the recipe's seed and the step's number, so a run that
was stopped goes on as if it had not been.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidsr.durable import write_whole
from vidsr.errors import InputError, OutputError, UsageError
from vidsr.evaluate import PSNR_OF_EQUALS, psnr, y_of
from vidsr.networks import State
from vidsr.networks.span import Span, SpanConfig
from vidsr.training.machine import Machine
from vidsr.training.muon import Muon
from vidsr.training.quantise import calibrate, round_convolutions
from vidsr.training.recipe import Recipe, TrainRecipe
from vidsr.training.store import Store

__all__ = ["Row", "network_from", "train"]

_REPORT_STEPS = 50
_SAVE_STEPS = 500
_DETAIL, _INNER = 0.05, 4.0
_BIAS_SHARE = 0.2
"""Adam's rate is in the values' own size, which is about 1 for what biases are added to; Muon's is a share of it."""
_CALIBRATION_BATCHES = 4
_CHROMA = 0.25
_LEAST_ERROR = 1e-5
"""50 dB, about what 8 bits can show: beyond it a crop counts less and less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the log. loss: in dB, mean since the line before, or since the run was taken up again. psnr_y: of the
    averaged weights on the shots kept back, in dB, None where it was not measured."""

    step: int
    loss: float
    rate: float
    steps_per_second: float
    psnr_y: float | None


def network_from(recipe: Recipe, start: State | None = None) -> Span:
    """The recipe's network with random weights from the seed, or those of `start`.

    The last convolution stays random where the scale is another one: a x4 model may begin from a x2 one. Raises
    InputError where anything else does not fit, and for a start with more blocks.
    """
    torch.manual_seed(recipe.train.seed)
    network = Span(SpanConfig(**asdict(recipe.model), base="nearest", img_range=1.0))
    if start is not None:
        own = network.state_dict()
        fresh = _random_keys(network, start)
        if left := sorted(key for key in fresh if not key.startswith("upsampler.")):
            raise InputError(f"--init: {left[0]} is of another shape than the recipe's network, or missing")
        if left := sorted(key for key in start if key.startswith("block_") and key not in own):
            raise InputError(f"--init: has {left[0]}, and the recipe's network has only {recipe.model.blocks} blocks")
        network.load_state_dict({key: torch.tensor(start[key]) for key in own if key not in fresh}, strict=False)
    return network


def _random_keys(network: Span, start: State | None) -> set[str]:
    """Of the network's weights, those that `start` does not give."""
    given = {key: value.shape for key, value in (start or {}).items()}
    return {key for key, value in network.state_dict().items() if given.get(key) != value.shape}


def settle(network: Span, small: Tensor, keys: Collection[str]) -> None:
    """Scales each convolution with a weight among `keys`, all random, so that its output varies by 1 on these pictures,
    float [N, 3, h, w], and by 4 within blocks.

    Layer-sequential unit-variance initialisation (Mishkin and Matas, 2015). Without it SPAN's gates, which multiply by
    about a quarter of a convolution's output, shut at once: of six blocks four get no gradient, and never learn. With 1
    within blocks, too, SiLU stays near its straight part and training shuts the later blocks: measured over 7,500 steps
    of span-clean, 4 gains 0.26 dB. The last convolution's output varies by as little as what it adds to the repeated
    input.
    """
    last = network.upsampler[0]
    inner = {module for name, module in network.named_modules() if name.startswith("block_")}

    def scaled(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        spread = _DETAIL if conv is last else _INNER if conv in inner else 1.0
        factor = spread / output.std()
        for weight in conv.parameters():
            weight.mul_(factor)
        return output * factor

    hooks = [
        module.register_forward_hook(scaled)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and f"{name}.weight" in keys
    ]
    with torch.no_grad():
        network(small)
    for hook in hooks:
        hook.remove()


def train(
    recipe: Recipe,
    store: Store,
    folder: Path,
    *,
    machine: Machine,
    start: State | None = None,
    teacher: nn.Module | None = None,
    on_row: Callable[[Row], None],
    stopped: Callable[[], bool] = lambda: False,
) -> Span | None:
    """Trains until the recipe's last step and returns the network with the averaged weights.

    folder: the state of the run is kept in it every few hundred steps and when `stopped` says so, which ends the call
    with None; called again, the run goes on from there. teacher: RGB float [N, 3, h, w] -> [N, 3, s*h, s*w], whose
    output counts with the recipe's `teach` against the true picture. The result has ranges for INT8 (`ranges_of`).
    Raises InputError for a start or a kept state that cannot be used, UsageError for a rate that is too high,
    OutputError.
    """
    plan = recipe.train
    network = machine.placed(network_from(recipe, start))
    if fresh := _random_keys(network, start):
        drawn, _ = store.batch(np.random.default_rng(plan.seed), plan.batch, plan.patch_px, 1)
        settle(network, machine.tensor(drawn), fresh)
    run = _Run(recipe, network, machine)
    run.resume(folder)
    if plan.bits and not run.step:
        _find_ranges(run.network, store, plan, machine)
        run.average.load_state_dict(run.network.state_dict())
    network, average = run.network, run.average
    losses: list[float] = []
    since = time.perf_counter()
    while run.step < plan.steps:
        if stopped():
            _require_finite(losses, run.step)
            run.save(folder)
            return None
        rate = _rate(recipe, run.step)
        for optimizer in run.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
        rng = np.random.default_rng([plan.seed, run.step])
        small, large = (
            machine.tensor(crops) for crops in store.batch(rng, plan.batch, plan.patch_px, frames=2 if plan.calm else 1)
        )
        with machine.precision():
            made = network(small).float()
        loss = _loss(made, large, plan.calm)
        if teacher is not None:
            with torch.no_grad(), machine.precision():
                taught = teacher(small).float()
            loss = torch.lerp(loss, _loss(made, taught, plan.calm), plan.teach)
        for optimizer in run.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in run.optimizers:
            optimizer.step()
        run.step += 1
        run.follow()
        losses.append(loss.item())
        last = run.step == plan.steps
        if run.step % _REPORT_STEPS == 0 or last:
            save = run.step % _SAVE_STEPS == 0 or last
            pace = len(losses) / (time.perf_counter() - since)
            score = _validate(average, store, machine) if save else None
            _require_finite(losses if score is None else [*losses, score], run.step)
            on_row(Row(step=run.step, loss=float(np.mean(losses)), rate=rate, steps_per_second=pace, psnr_y=score))
            if save:
                run.save(folder)
            losses, since = [], time.perf_counter()
    if not plan.bits:
        round_convolutions(average)
        _find_ranges(average, store, plan, machine)
    return average


def _find_ranges(network: nn.Module, store: Store, plan: TrainRecipe, machine: Machine) -> None:
    """For INT8: what training for it begins with, and what a model gets after other training."""
    rng = np.random.default_rng([plan.seed, plan.steps])  # the number of a step that does not come
    drawn = (store.batch(rng, plan.batch, plan.patch_px, frames=1) for _ in range(_CALIBRATION_BATCHES))
    with machine.precision():
        calibrate(network, (machine.tensor(small) for small, _ in drawn))


def _require_finite(values: list[float], step: int) -> None:
    """Raises UsageError: weights that are not finite never become so again."""
    if not np.isfinite(values).all():
        raise UsageError(f"the loss is not finite at step {step}: lower [train] rate in the recipe, and begin again")


class _Run:
    """What a run consists of between two steps."""

    def __init__(self, recipe: Recipe, network: Span, machine: Machine) -> None:
        self._ema, self.step = recipe.train.ema, 0
        if recipe.train.bits:
            round_convolutions(network)
        self.network = machine.placed(network).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        weights = list(network.parameters())
        rate = recipe.train.rate
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon([weight for weight in weights if weight.dim() > 1], rate),
            torch.optim.Adam(
                [{"params": [weight for weight in weights if weight.dim() == 1], "share": _BIAS_SHARE}],
                betas=(0.9, 0.99),
            ),
        ]

    def follow(self) -> None:
        """Moves the average. At first it forgets quickly, or the random weights of the beginning would stay in it."""
        keep = min(self._ema, self.step / (self.step + 10))
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        for average, value in pairs:
            average.lerp_(value, 1 - keep)

    def save(self, folder: Path) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        held = io.BytesIO()
        torch.save(state, held)
        try:
            write_whole(folder / "last.pt", held.getvalue())
        except OSError as error:
            raise OutputError(f"{folder / 'last.pt'}: cannot be written ({error.strerror or error})") from error

    def resume(self, folder: Path) -> None:
        path = folder / "last.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.step = state["step"]
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        except Exception as error:  # damaged files end in struct.error, EOFError, RuntimeError and more
            raise InputError(f"{path}: not the state of this run, or damaged; remove it to train again") from error


def _rate(recipe: Recipe, step: int) -> float:
    plan = recipe.train
    warm = min(1.0, (step + 1) / max(1, plan.warmup))
    return plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / plan.steps))


def _loss(made: Tensor, large: Tensor, calm: float) -> Tensor:
    """Mean error of the crops in dB; frames of a shot follow each other in the batch.

    A mean of distances lets the crops decide that nobody can restore. In dB, as quality is measured, a soft crop that
    is nearly right counts as much; and what SPAN's products answer to a hard pattern, which can be thousands, decides
    no step alone.
    """
    error = made - large
    loss = _decibels(error)
    if calm:
        loss = loss + calm * _decibels(error[1::2] - error[::2])
    return loss


def _decibels(error: Tensor) -> Tensor:
    """RGB [N, 3, H, W], 1 is white: 10 log10 of its squares in luma and, less, chroma (BT.601); mean over N."""
    red, green, blue = error.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    squares = luma.square() + _CHROMA * ((0.564 * (blue - luma)).square() + (0.713 * (red - luma)).square())
    return 10 * (squares.mean((1, 2)) + _LEAST_ERROR).log10().mean()


def _validate(network: nn.Module, store: Store, machine: Machine) -> float:
    """Mean PSNR on luma, in dB, a border of `scale` pixels left out, over the first frames of the shots kept back; of
    a frame at most 100."""
    scores = []
    for small, large in store.validation():
        with torch.no_grad(), machine.precision():
            made = network(machine.tensor(small[None].transpose(0, 3, 1, 2)))[0].float()
        codes = made.clamp(0, 1).mul(255).round().permute(1, 2, 0).cpu().numpy()
        edge = store.scale
        found = psnr(*(y_of(picture)[edge:-edge, edge:-edge] for picture in (large, codes)))
        scores.append(min(found, PSNR_OF_EQUALS))  # a NaN stays one
    return float(np.mean(scores))
