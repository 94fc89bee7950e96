"""What a WaveNet's outputs mean: likelihoods for training, draws for sampling.

A draw is a pure function of the outputs and of two uniform numbers, so that every sampler can be
compared with the plain one here:

=============  ==================================================================================
``mulaw``      the first class whose running sum of probabilities exceeds the first number
``logistic``   a component in the same way, then the inverse of its distribution function at the
               second number
``gaussian``   the Box-Muller transform of both
=============  ==================================================================================
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from speechloom.errors import UsageError
from speechloom_wavenet.config import WaveNetConfig

__all__ = [
    "STAGE",
    "check_temperature",
    "draw",
    "log_likelihood",
    "mu_law_classes",
    "mu_law_values",
    "start",
]

STAGE = 255
"""The vocoder's place among the stages that draw; the generators before it count from 0."""


def mu_law_classes(values: Tensor, classes: int) -> Tensor:
    """Values -1 to 1 to the nearest mu-law class (ITU-T G.711's curve); any shape, then int64."""
    mu = classes - 1
    bent = values.sign() * torch.log1p(mu * values.abs().clamp(max=1)) / math.log1p(mu)
    return ((bent + 1) / 2 * mu).round().long()


def mu_law_values(classes: Tensor, count: int) -> Tensor:
    """The values -1 to 1 that classes stand for; any shape, then float32."""
    mu = count - 1
    bent = 2 * classes.float() / mu - 1
    return bent.sign() * torch.expm1(bent.abs() * math.log1p(mu)) / mu


def start(config: WaveNetConfig) -> int:
    """What precedes the first sample: the class of silence, or the value 0."""
    return (config.classes - 1) // 2 if config.output == "mulaw" else 0


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that `draw` has no meaning for.

    Raises:
        UsageError: it is negative, infinite or NaN.
    """
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"temperature must be 0 or more and finite, but is {temperature}")


def log_likelihood(config: WaveNetConfig, outputs: Tensor, targets: Tensor) -> Tensor:
    """The log-likelihood of samples, in nats.

    Args:
        config: of the network.
        outputs: [B, C, T] of the network.
        targets: what follows: int64 [B, T] classes, or float [B, T] values in [-1, 1].

    Returns:
        [B, T]: log-probabilities, or for ``gaussian`` log-densities.
    """
    if config.output == "mulaw":
        return -F.cross_entropy(outputs, targets, reduction="none")
    if config.output == "gaussian":
        mean, log_scale = outputs.unbind(1)
        log_scale = log_scale.clamp(min=config.log_scale_min)
        away = (targets - mean) * torch.exp(-log_scale)
        return -0.5 * away.square() - log_scale - 0.5 * math.log(2 * math.pi)
    return _logistic_mixture(config, outputs, targets)


def _logistic_mixture(config: WaveNetConfig, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mass of the step around each value; the outermost steps reach to infinity."""
    logits, means, log_scales = outputs.chunk(3, dim=1)
    log_scales = log_scales.clamp(min=config.log_scale_min)
    values, rate = targets[:, None], torch.exp(-log_scales)
    half = 1 / (config.levels - 1)
    above = rate * (values - means + half)
    below = rate * (values - means - half)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), with no cancellation.
    width = (2 * half * rate).clamp(min=1e-12)
    between = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(-width))
    edge = 1 - half
    mass = torch.where(
        values < -edge,
        F.logsigmoid(above),
        torch.where(values > edge, F.logsigmoid(-below), between),
    )
    return torch.logsumexp(mass + logits.log_softmax(dim=1), dim=1)


def draw(
    config: WaveNetConfig, outputs: Tensor, first: Tensor, second: Tensor, temperature: float = 1.0
) -> Tensor:
    """Draw samples.

    Args:
        config: of the network.
        outputs: [N, C].
        first: [N], uniform in (0, 1).
        second: [N], uniform in (0, 1).
        temperature: divides logits and multiplies deviations from the mean; 0 takes the best.

    Returns:
        int64 [N] classes, or float [N] values in [-1, 1].
    """
    if config.output == "mulaw":
        return _index(outputs, first, temperature)
    if config.output == "gaussian":
        mean, log_scale = outputs.unbind(1)
        away = torch.sqrt(-2 * first.log()) * torch.cos(2 * math.pi * second)
    else:
        logits, means, log_scales = outputs.chunk(3, dim=1)
        chosen = _index(logits, first, temperature)[:, None]
        mean, log_scale = means.gather(1, chosen)[:, 0], log_scales.gather(1, chosen)[:, 0]
        away = second.log() - torch.log1p(-second)
    if config.clamp_scales:
        log_scale = log_scale.clamp(min=config.log_scale_min)
    return (mean + temperature * log_scale.exp() * away).clamp(-1, 1)


def _index(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """The first index whose running sum of probabilities exceeds the uniform number."""
    if temperature == 0:
        return logits.argmax(dim=1)
    running = (logits.double() / temperature).softmax(dim=1).cumsum(dim=1)
    goal = uniform.double()[:, None] * running[:, -1:]
    return (running <= goal).sum(dim=1)
