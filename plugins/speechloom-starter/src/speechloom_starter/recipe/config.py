"""Every number of the recipe, in one frozen tree."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speechloom_speechsec.config import SpeechSECConfig
from speechloom_starter.codec_model import CodecConfig
from speechloom_starter.content_model import ContentConfig
from speechloom_starter.duration_model import DurationConfig
from speechloom_starter.voice_model import VoiceConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusConfig(_Frozen):
    """What the engine speaks.

    A synthetic speaker is an engine voice with a mean pitch, a speaking rate and a frequency warp.

    Attributes:
        utterances: stop after so many of all that is planned; the plan is shuffled, so that they
            are a fair sample of it.
    """

    seed: int = 1
    voices: tuple[str, ...] = ("slt", "rms", "awb", "kal16")
    base_sentences: tuple[int, ...] = (600, 300, 300, 240)
    synthetic_speakers: int = 360
    sentences_per_speaker: int = 28
    held_out_sentences: int = 150
    held_out_speakers: int = 6
    evaluation_sentences: int = 20
    warp: tuple[float, float] = (0.82, 1.22)
    rate: tuple[float, float] = (0.85, 1.2)
    pitch_hz: tuple[tuple[float, float], ...] = ((140, 260), (80, 150), (85, 165), (80, 150))
    real_warps: tuple[float, ...] = (0.82, 0.88, 0.94, 1.06, 1.13, 1.2)
    utterances: int | None = Field(default=None, ge=1)
    workers: int = 2


class TrainConfig(_Frozen):
    """Steps and step sizes of one training."""

    steps: int
    batch: int
    seconds: float
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 1


class RecipeConfig(_Frozen):
    """The whole recipe: sizes of the networks, and steps, batches and seeds of their training.

    Attributes:
        polish_adversarial: whether the decoder is polished against discriminators.
        said_share: how often the units-to-codes generator learns from the units that the
            text-to-units generator makes of a text, instead of those of the recording.
        kept: stages whose results are taken over from the weights that a run starts from.
    """

    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    content_model: ContentConfig = ContentConfig()
    codec_model: CodecConfig = CodecConfig()
    voice_model: VoiceConfig = VoiceConfig()
    duration_model: DurationConfig = DurationConfig(width=128)
    t2u_model: SpeechSECConfig = SpeechSECConfig(
        content_vocab=123, codebooks=1, codebook_size=512, dim=192, layers=6, heads=4, ff_mult=2
    )
    u2c_model: SpeechSECConfig = SpeechSECConfig(
        content_vocab=512,
        codebooks=8,
        codebook_size=1024,
        voice_dim=128,
        dim=256,
        layers=6,
        heads=4,
        ff_mult=2,
        tie_heads=True,
    )
    content: TrainConfig = TrainConfig(steps=4000, batch=16, seconds=3.2)
    codec: TrainConfig = TrainConfig(steps=2000, batch=16, seconds=1.28, seed=2)
    codec_free_steps: int = 300
    voice: TrainConfig = TrainConfig(steps=450, batch=32, seconds=2.0, seed=3)
    durations: TrainConfig = TrainConfig(steps=1000, batch=24, seconds=0.0, seed=4)
    unit_utterances: int = 400
    unit_seed: int = 5
    t2u: TrainConfig = TrainConfig(steps=900, batch=16, seconds=8.0, seed=6)
    u2c: TrainConfig = TrainConfig(steps=3950, batch=16, seconds=6.0, seed=7)
    polish: TrainConfig = TrainConfig(
        steps=2200, batch=12, seconds=1.28, learning_rate=3e-4, seed=8
    )
    polish_alone_steps: int = 200
    polish_adversarial: bool = True
    said_share: float = 0.5
    kept: tuple[str, ...] = ()
    named_voices: dict[str, str] = Field(
        default_factory=lambda: {
            "iris": "slt",
            "rolf": "rms",
            "angus": "awb",
            "karl": "kal16",
            "mia": "slt-304",
            "nora": "slt-144",
            "lena": "slt-292",
            "otto": "rms-041",
            "emil": "rms-309",
        }
    )

    def scaled(self, factor: float) -> RecipeConfig:
        """The recipe with ``factor`` times as many steps in every training."""
        stages = ("content", "codec", "voice", "durations", "t2u", "u2c", "polish")
        changed: dict[str, object] = {}
        for name in stages:
            train: TrainConfig = getattr(self, name)
            steps = max(2, round(train.steps * factor))
            warmup = max(1, min(train.warmup, steps // 5))
            changed[name] = train.model_copy(update={"steps": steps, "warmup": warmup})
        changed["codec_free_steps"] = max(1, round(self.codec_free_steps * min(1.0, factor)))
        changed["polish_alone_steps"] = max(1, round(self.polish_alone_steps * min(1.0, factor)))
        return self.model_copy(update=changed)

    @classmethod
    def tiny(cls) -> RecipeConfig:
        """A recipe that runs through in seconds and teaches nothing, for tests."""
        short = TrainConfig(steps=3, batch=4, seconds=0.64, warmup=1)
        corpus = CorpusConfig(
            base_sentences=(3, 2, 2, 2),
            synthetic_speakers=2,
            sentences_per_speaker=2,
            held_out_sentences=2,
            held_out_speakers=0,
            evaluation_sentences=1,
        )
        t2u = SpeechSECConfig(content_vocab=123, codebooks=1, codebook_size=16, dim=16, heads=2)
        u2c = SpeechSECConfig(
            content_vocab=16, codebooks=2, codebook_size=16, voice_dim=128, dim=16, heads=2
        )
        return cls(
            corpus=corpus,
            content_model=ContentConfig.tiny(),
            codec_model=CodecConfig.tiny().model_copy(update={"codebooks": 2, "codebook_size": 16}),
            voice_model=VoiceConfig.tiny(),
            duration_model=DurationConfig.tiny(),
            t2u_model=t2u.model_copy(update={"layers": 1}),
            u2c_model=u2c.model_copy(update={"layers": 1}),
            content=short,
            codec=short,
            codec_free_steps=1,
            voice=short,
            durations=short,
            unit_utterances=4,
            t2u=short,
            u2c=short,
            polish=short,
            polish_alone_steps=1,
            named_voices={"iris": "slt"},
        )
