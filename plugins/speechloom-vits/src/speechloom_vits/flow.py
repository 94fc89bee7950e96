"""The posterior encoder, and the flow between what it gives and the prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechloom_vits.config import VitsConfig
from speechloom_vits.gated import GatedStack
from speechloom_vits.text_encoder import RelativeEncoder

__all__ = ["CouplingFlow", "PosteriorEncoder"]


class PosteriorEncoder(nn.Module):
    """Frames of a spectrogram to the mean and log deviation of the latent.

    Args:
        inputs: D of the frames.
        hidden: inside.
        latent_size: of the latent.
        layers: of the gated stack.
        kernel: of it.
        dilation: of it.
        condition_size: of the speaker vector; 0 for none.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        latent_size: int,
        *,
        layers: int,
        kernel: int = 5,
        dilation: int = 1,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(inputs, hidden, 1)
        self.wavenet = GatedStack(hidden, layers, kernel, dilation, condition_size)
        self.conv_proj = nn.Conv1d(hidden, 2 * latent_size, 1)

    def forward(
        self, frames: Tensor, mask: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode frames [B, D, F]; returns mean and log deviation, [B, L, F] each."""
        hidden = self.wavenet(self.conv_pre(frames) * mask, mask, condition)
        mean, log_deviation = (self.conv_proj(hidden) * mask).chunk(2, dim=1)
        return mean, log_deviation


class Coupling(nn.Module):
    """One half of the channels moves the mean of the other (arXiv:1605.08803, volume kept).

    Args:
        latent_size: of the latent.
        hidden: of the gated stack.
        layers: of it.
        kernel: of it.
        dilation: of it.
        condition_size: of the speaker vector; 0 for none.
        attention_layers: of a transformer in front of the stack, as VITS 2 has it
            (arXiv:2307.16430); 0 for none.
    """

    def __init__(
        self,
        latent_size: int,
        hidden: int,
        *,
        layers: int,
        kernel: int,
        dilation: int,
        condition_size: int,
        attention_layers: int = 0,
    ) -> None:
        super().__init__()
        half = latent_size // 2
        self.pre_transformer: RelativeEncoder | None = None
        if attention_layers:
            self.pre_transformer = RelativeEncoder(
                VitsConfig(
                    symbols=2,
                    hidden=half,
                    feed_forward=half,
                    text_layers=attention_layers,
                )
            )
        self.conv_pre = nn.Conv1d(half, hidden, 1)
        self.wavenet = GatedStack(hidden, layers, kernel, dilation, condition_size)
        self.conv_post = nn.Conv1d(hidden, half, 1)
        # The flow is the identity at first.
        nn.init.zeros_(self.conv_post.weight)
        nn.init.zeros_(self._bias)

    @property
    def _bias(self) -> Tensor:
        bias = self.conv_post.bias
        assert bias is not None
        return bias

    def forward(
        self, latent: Tensor, mask: Tensor, condition: Tensor | None, *, inverse: bool
    ) -> Tensor:
        """Move the second half of [B, L, F], or move it back."""
        kept, moved = latent.chunk(2, dim=1)
        seen = kept
        if self.pre_transformer is not None:
            around = self.pre_transformer((kept * mask).transpose(1, 2), mask).transpose(1, 2)
            seen = kept + around
        hidden = self.wavenet(self.conv_pre(seen) * mask, mask, condition)
        shift = self.conv_post(hidden) * mask
        moved = (moved - shift) * mask if inverse else moved * mask + shift
        return torch.cat([kept, moved], dim=1)


class CouplingFlow(nn.Module):
    """Couplings with the channels reversed between them; its determinant is 1.

    Args:
        latent_size: of the latent.
        hidden: of the gated stacks.
        flows: couplings.
        layers: of each.
        kernel: of the gated stacks.
        dilation: of them.
        condition_size: of the speaker vector; 0 for none.
        attention_layers: of a transformer in each; 0 for none.
    """

    def __init__(
        self,
        latent_size: int,
        hidden: int,
        *,
        flows: int,
        layers: int,
        kernel: int = 5,
        dilation: int = 1,
        condition_size: int = 0,
        attention_layers: int = 0,
    ) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            Coupling(
                latent_size,
                hidden,
                layers=layers,
                kernel=kernel,
                dilation=dilation,
                condition_size=condition_size,
                attention_layers=attention_layers,
            )
            for _ in range(flows)
        )

    def forward(
        self,
        latent: Tensor,
        mask: Tensor,
        condition: Tensor | None = None,
        *,
        inverse: bool = False,
    ) -> Tensor:
        """From the posterior's latent [B, L, F] to the prior's, or back."""
        if inverse:
            for flow in reversed(self.flows):
                latent = flow(latent.flip(1), mask, condition, inverse=True)
        else:
            for flow in self.flows:
                latent = flow(latent, mask, condition, inverse=False).flip(1)
        return latent
