"""Sizes of the networks. Imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

TASKS: tuple[str, ...] = ("synthesize", "continue", "edit", "convert")
"""Names of the tasks; a task's id in the network is its index here."""


class SpeechSECConfig(BaseModel):
    """Everything that fixes the shape of a SpeechSEC network.

    Attributes:
        content_vocab: number of content ids.
        codebooks: levels K that are generated.
        codebook_size: ids V per level; id V is the mask.
        voice_dim: length of the voice vector, 0 for a network without a voice.
        dim: width D of the network.
        layers: Conformer blocks.
        heads: attention heads; `dim / heads` must be an even number.
        ff_mult: width of the feed-forward layers over `dim`.
        conv_kernel: frames of the depthwise convolution, odd.
        conv_expansion: width of that convolution over `dim`.
        dropout: share of features dropped after each block while training.
        tie_heads: the output heads use the code embeddings as weights.
        prompt_embedding: a second embedding of the codes, as in the figure of SpeechSEC: where a
            continuation has no content, the known codes of the level that is predicted are given
            once more through it. False leaves such frames the learned null content alone.
        max_frames: longest item seen in training. Positions are relative (rotary), so a longer
            item runs, but quality is not promised: callers split longer ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content_vocab: int = Field(ge=1)
    codebooks: int = Field(ge=1)
    codebook_size: int = Field(ge=2)
    voice_dim: int = Field(default=0, ge=0)
    dim: int = Field(default=256, ge=2)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=4, ge=1)
    ff_mult: int = Field(default=4, ge=1)
    conv_kernel: int = Field(default=5, ge=1)
    conv_expansion: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    tie_heads: bool = False
    prompt_embedding: bool = False
    max_frames: int = Field(default=750, ge=1)

    @model_validator(mode="after")
    def _check(self) -> SpeechSECConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(f"`dim` / `heads` must be even, but is {self.dim} / {self.heads}.")
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"`conv_kernel` must be odd, but is {self.conv_kernel}.")
        return self

    @property
    def mask_id(self) -> int:
        """The id that stands for an unknown code."""
        return self.codebook_size


class DurationConfig(BaseModel):
    """Everything that fixes the shape of a duration network.

    Attributes:
        phones: size of the alphabet.
        width: values per phone.
        depth: convolution blocks.
        kernel: phones that a block sees, odd.
        expansion: width of the perceptron in a block over `width`.
        mean_log_frames: of all phones; the network learns the deviation from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phones: int = Field(ge=1)
    width: int = Field(default=192, ge=1)
    depth: int = Field(default=5, ge=1)
    kernel: int = Field(default=7, ge=1)
    expansion: int = Field(default=3, ge=1)
    mean_log_frames: float = 1.4

    @model_validator(mode="after")
    def _check(self) -> DurationConfig:
        if self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd, but is {self.kernel}.")
        return self


SIZES: dict[str, dict[str, int | bool]] = {
    "tiny": {"dim": 16, "layers": 2, "heads": 2, "ff_mult": 2, "max_frames": 64},
    "starter-units": {"dim": 256, "layers": 6, "heads": 4, "ff_mult": 2},
    "starter-codes": {"dim": 384, "layers": 8, "heads": 6, "ff_mult": 2, "tie_heads": True},
    "published": {
        "dim": 1024,
        "layers": 12,
        "heads": 16,
        "ff_mult": 4,
        "conv_expansion": 2,
        "prompt_embedding": True,
        "max_frames": 1500,
    },
}
"""Named sizes of the network, whatever the tokens; see the functions below."""


def sized(
    size: str, *, content_vocab: int, codebooks: int, codebook_size: int, voice_dim: int = 0
) -> SpeechSECConfig:
    """A network of a named size between any two kinds of tokens.

    Args:
        size: one of `SIZES`.
        content_vocab: see `SpeechSECConfig`.
        codebooks: see `SpeechSECConfig`.
        codebook_size: see `SpeechSECConfig`.
        voice_dim: see `SpeechSECConfig`.
    """
    tokens = {
        "content_vocab": content_vocab,
        "codebooks": codebooks,
        "codebook_size": codebook_size,
        "voice_dim": voice_dim,
    }
    return SpeechSECConfig.model_validate(tokens | SIZES[size])


def tiny(
    *, content_vocab: int = 7, codebooks: int = 3, codebook_size: int = 11, voice_dim: int = 4
) -> SpeechSECConfig:
    """A network for tests: built and run in milliseconds."""
    return sized(
        "tiny",
        content_vocab=content_vocab,
        codebooks=codebooks,
        codebook_size=codebook_size,
        voice_dim=voice_dim,
    )


def starter_t2u() -> SpeechSECConfig:
    """Thirds of phones (41 x 3) to 512 content units, 6.2 M parameters."""
    return sized("starter-units", content_vocab=123, codebooks=1, codebook_size=512)


def starter_u2c() -> SpeechSECConfig:
    """512 content units and a voice of 128 numbers to 8 x 1024 codes, 21 M parameters."""
    return sized("starter-codes", content_vocab=512, codebooks=8, codebook_size=1024, voice_dim=128)


def published(
    *,
    content_vocab: int = 1024,
    codebooks: int = 8,
    codebook_size: int = 1024,
    voice_dim: int = 256,
) -> SpeechSECConfig:
    """The size of the SoundStorm paper: 12 layers of 1024, 354 M parameters.

    The paper says 350 M. We differ from it by the second code embedding of SpeechSEC's figure
    (8.4 M) and the voice.
    """
    return sized(
        "published",
        content_vocab=content_vocab,
        codebooks=codebooks,
        codebook_size=codebook_size,
        voice_dim=voice_dim,
    )
