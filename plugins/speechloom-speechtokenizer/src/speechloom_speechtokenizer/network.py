"""The network of SpeechTokenizer (Zhang et al. 2024, arXiv:2308.16692), for any length of audio.

What has a bounded reach, the convolutions, runs in windows, which changes nothing but the memory
that it takes. The decoder's LSTM goes on from window to window with its state. The encoder's runs
both ways: it is given up to `WHOLE_SECONDS` at once, and longer recordings in blocks of that length
with `CONTEXT_SECONDS` more on either side. Only there a code can differ from that of the whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor, nn

from speechloom.values import Audio
from speechloom.windows import over_windows, plan_windows
from speechloom_speechtokenizer.config import SpeechTokenizerConfig
from speechloom_speechtokenizer.quantizer import ResidualQuantizer
from speechloom_speechtokenizer.seanet import Decoder, Encoder, State, reach_of

__all__ = ["CONTEXT_SECONDS", "WHOLE_SECONDS", "DecoderStream", "SpeechTokenizerNetwork"]

WINDOW_SECONDS = 2
"""Audio that the convolutions are given at once."""

WHOLE_SECONDS = 600
"""Audio that the encoder's LSTM is given at once."""

CONTEXT_SECONDS = 20
"""What the encoder's LSTM hears on either side of a block of a longer recording."""

QUANTIZED_FRAMES = 2048
"""Frames that are compared with a codebook at once."""

REMEMBERED_FRAMES = 200_000
"""Frames whose codes are kept (about an hour; 13 MB), so that units and codes cost one pass."""


class SpeechTokenizerNetwork(nn.Module):
    """Encoder, residual quantiser and decoder, with the parameter names of the original.

    Attributes:
        config: its sizes.
        codes_of_audio: codes of what was heard last, shared by the components that use it.
    """

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualQuantizer(config.n_q, config.codebook_size, config.dimension)
        self.decoder = Decoder(config)
        self.codes_of_audio = RecentCodes()

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, samples: Tensor) -> Tensor:
        """Codes int64 [K, ceil(T / hop)] of mono samples float32 [T]."""
        latents = self.latents(samples)
        blocks = torch.split(latents, QUANTIZED_FRAMES, dim=-1)
        return torch.cat([self.quantizer.encode(block) for block in blocks], dim=-1)

    @torch.inference_mode()
    def latents(self, samples: Tensor) -> Tensor:
        """What is quantised: float32 [D, ceil(T / hop)] of mono samples float32 [T]."""
        hop, rate = self.config.hop, self.config.frame_rate
        frames = -(-len(samples) // hop)
        front, reach = self.encoder.front, reach_of(self.encoder.front)
        windows = plan_windows(frames, int(WINDOW_SECONDS * rate), -(-reach // hop))
        heard = over_windows(front, samples[None, None], windows, takes=hop)
        features = torch.cat(list(heard), dim=-1)
        blocks = plan_windows(frames, int(WHOLE_SECONDS * rate), int(CONTEXT_SECONDS * rate))
        return torch.cat(list(over_windows(self._recurred, features, blocks)), dim=-1)[0]

    def _recurred(self, features: Tensor) -> Tensor:
        """Latents [1, D, F] of features [1, C, F], both of a whole block."""
        recurrent = self.encoder.recurrent
        result: Tensor = self.encoder.back(
            features if recurrent is None else recurrent(features)[0]
        )
        return result

    @torch.inference_mode()
    def decode(self, ids: Tensor) -> Tensor:
        """Samples float32 [F x hop] of codes int64 [k, F], the first k levels."""
        stream = DecoderStream(self)
        pieces = torch.split(ids, int(WINDOW_SECONDS * self.config.frame_rate), dim=-1)
        parts = [stream.push(piece, last=piece is pieces[-1]) for piece in pieces]
        return torch.cat(parts)


class DecoderStream:
    """Codes in, samples out, piece by piece: joined, they are what the whole gives.

    Each piece comes back late by the few frames that the convolutions look ahead.

    Args:
        network: that decodes.
    """

    def __init__(self, network: SpeechTokenizerNetwork) -> None:
        decoder = network.decoder
        self._network = network
        self._front = _Lookahead(decoder.front, reach_of(decoder.front), gives=1)
        self._state: State | None = None
        self._back = _Lookahead(decoder.back, reach_of(decoder.back), gives=network.config.hop)

    @property
    def delay_frames(self) -> int:
        """Frames that must have come after one before its samples are given."""
        return self._front.reach + self._back.reach

    @torch.inference_mode()
    def push(self, ids: Tensor, *, last: bool = False) -> Tensor:
        """Give codes int64 [k, f] and take the samples float32 [t] that they make ready.

        Args:
            ids: the next f frames; k stays the same from call to call.
            last: whether nothing follows, so that everything is given.
        """
        latents = self._network.quantizer.decode(ids)[None]
        hidden = self._front.push(latents, last=last)
        if hidden is None:
            return latents.new_zeros(0)
        recurrent = self._network.decoder.recurrent
        if recurrent is not None:
            hidden, self._state = recurrent(hidden, self._state)
        samples = self._back.push(hidden, last=last)
        return latents.new_zeros(0) if samples is None else samples[0, 0]


class _Lookahead:
    """Layers of bounded reach, fed piece by piece, with what they need of before held back."""

    def __init__(self, run: Callable[[Tensor], Tensor], reach: int, *, gives: int) -> None:
        self.reach = reach
        self._run = run
        self._gives = gives
        self._held: Tensor | None = None
        self._given = 0

    def push(self, values: Tensor, *, last: bool) -> Tensor | None:
        """Results [1, C', f' x gives] that values [1, C, f] and those before make ready, if any."""
        held = values if self._held is None else torch.cat([self._held, values], dim=-1)
        given, ready = self._given, held.shape[-1] - (0 if last else self.reach)
        if ready <= given:
            self._held = held
            return None
        result = self._run(held)[..., given * self._gives : ready * self._gives]
        start = max(0, ready - self.reach)
        self._held, self._given = held[..., start:], ready - start
        return result


class RecentCodes:
    """The codes of the recordings that were encoded last, by the hash of their samples."""

    def __init__(self) -> None:
        self._codes: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    def get(self, audio: Audio, make: Callable[[], Tensor]) -> Tensor:
        """Codes int64 [K, F] of a recording, made where they are not known."""
        key = audio.sha256
        with self._lock:
            if key in self._codes:
                self._codes.move_to_end(key)
                return self._codes[key]
        codes = make()
        with self._lock:
            self._codes[key] = codes
            while sum(kept.shape[-1] for kept in self._codes.values()) > REMEMBERED_FRAMES:
                self._codes.popitem(last=False)
        return codes

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._codes.clear()
