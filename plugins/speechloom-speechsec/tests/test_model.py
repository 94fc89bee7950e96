from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from speechloom.decoding import DecodeConfig, ExecutionConfig, MaskedNetwork, masked_decode
from speechloom.ops.masked_decode import SampleConfig
from speechloom_speechsec.conditioned import condition
from speechloom_speechsec.config import SpeechSECConfig, published, starter_t2u, starter_u2c, tiny
from speechloom_speechsec.inference import InferenceSpeechSEC
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC

LENGTHS = torch.tensor([13, 30, 21])


@pytest.fixture(scope="module")
def model() -> SpeechSEC:
    """A network with weights large enough that everything matters."""
    network = SpeechSEC(tiny(), seed=3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" not in name:
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return network


def some(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def codes() -> Tensor:
    return some(12, 3, 3, 30)


@pytest.fixture
def cond(model: SpeechSEC) -> Tensor:
    voice = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.embed_condition(some(7, 3, 30), torch.tensor([0, 1, 2]), voice)


def test_padding_never_reaches_real_frames(model: SpeechSEC, codes: Tensor, cond: Tensor) -> None:
    padding = torch.arange(30) >= LENGTHS[:, None]
    other = torch.where(padding[:, None], 11 - codes.clamp(max=11), codes)
    loud = torch.where(padding[..., None], 1e4, cond)
    with torch.no_grad():
        base = model.hidden(codes, 1, cond, LENGTHS)
        noisy = model.hidden(other, 1, loud, LENGTHS)
    assert torch.equal(base[~padding], noisy[~padding])


def test_an_item_is_the_same_alone_and_in_a_batch(
    model: SpeechSEC, codes: Tensor, cond: Tensor
) -> None:
    with torch.no_grad():
        padded = model.hidden(codes, 1, cond, LENGTHS)
        laid_out = InferenceSpeechSEC(model, ExecutionConfig(layers="torch").on("cpu"))
        for item, length in enumerate(LENGTHS.tolist()):
            one = slice(item, item + 1)
            alone = model.hidden(codes[one, :, :length], 1, cond[one, :length])[0]
            own = (codes[item, :, :length], 1, cond[item, :length])
            assert torch.equal(laid_out.hidden_at(*own, torch.arange(length)), alone)
            torch.testing.assert_close(padded[item, :length], alone, rtol=1e-4, atol=1e-5)


def test_level_may_differ_per_item(model: SpeechSEC, codes: Tensor, cond: Tensor) -> None:
    level = torch.tensor([0, 1, 2])
    with torch.no_grad():
        mixed = model.hidden(codes, level, cond, LENGTHS)
        assert torch.equal(mixed, model.hidden(codes, level.clone(), cond, LENGTHS))
        for item in range(3):
            same = model.hidden(codes, item, cond, LENGTHS)[item]
            torch.testing.assert_close(mixed[item], same)
            assert not torch.allclose(same, model.hidden(codes, (item + 1) % 3, cond)[item])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_is_seen_also_finer_ones(
    model: SpeechSEC, codes: Tensor, cond: Tensor, level: int
) -> None:
    """The finer levels of a prompt are known: what they are must matter."""
    changed = codes.clone()
    changed[0, level, 4] = (codes[0, level, 4] + 1) % 12
    with torch.no_grad():
        difference = model.hidden(codes, 0, cond) - model.hidden(changed, 0, cond)
    assert (difference[0].abs().amax(-1) > 0).all()
    assert (difference[1:] == 0).all()


def test_order_of_frames_matters(model: SpeechSEC, codes: Tensor, cond: Tensor) -> None:
    flat = cond[:1, :1].expand(1, 30, -1)
    same = codes[:1, :, :1].expand(1, 3, 30).clone()
    moved = same.clone()
    same[..., 5], moved[..., 20] = 0, 0
    with torch.no_grad():
        near, far = (model.hidden(x, 0, flat)[0, 12] for x in (same, moved))
    assert not torch.allclose(near, far)


def test_missing_content_and_voice_have_their_own_embedding(model: SpeechSEC) -> None:
    content, task = some(7, 2, 5), torch.tensor([0, 3])
    voice = torch.randn(2, 4, generator=torch.Generator().manual_seed(2))
    known = torch.tensor([True, False])
    with torch.no_grad():
        full = model.embed_condition(content, task, voice)
        mixed = model.embed_condition(content, task, voice, voice_known=known)
        mute = model.embed_condition(content, task)
        empty = model.embed_condition(torch.full_like(content, NO_CONTENT), task, voice)
    assert torch.equal(mixed[0], full[0])
    assert torch.equal(mixed[1], mute[1])
    assert not torch.allclose(mute, full)
    assert not torch.allclose(empty, full)
    assert torch.equal(empty[0, 0], empty[0, 4])


def test_a_network_without_voice_has_no_voice_weights() -> None:
    network = SpeechSEC(tiny(voice_dim=0))
    assert not [name for name, _ in network.named_parameters() if "voice" in name]
    cond = network.embed_condition(some(7, 1, 4), torch.tensor([0]))
    assert cond.shape == (1, 4, 16)


def test_weights_depend_on_the_seed_and_not_on_global_randomness() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (SpeechSEC(tiny(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in first.state_dict().items():
        assert torch.isfinite(weight).all()
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.head_weight, other.head_weight)


@pytest.mark.parametrize("tie", [True, False])
def test_head_belongs_to_its_level(tie: bool) -> None:
    network = SpeechSEC(tiny().model_copy(update={"tie_heads": tie}))
    weight, bias = network.head(1)
    assert (weight.shape, bias.shape) == ((11, 16), (11,))
    assert hasattr(network, "head_weight") != tie
    if tie:
        assert torch.equal(weight, network.code_embedding.weight[12:23])
    rows = torch.ones(2, 16)
    torch.testing.assert_close(network.logits(rows, 1), rows @ weight.T + bias)


def test_dropout_is_random_only_through_its_generator(codes: Tensor, cond: Tensor) -> None:
    network = SpeechSEC(tiny().model_copy(update={"dropout": 0.3}))
    state = torch.random.get_rng_state()
    with torch.no_grad():
        plain, again = (network.hidden(codes, 0, cond) for _ in range(2))
        first, same, other = (
            network.hidden(codes, 0, cond, dropout_generator=torch.Generator().manual_seed(s))
            for s in (1, 1, 2)
        )
    assert torch.equal(plain, again)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_decoding_with_the_network_is_the_same_alone_and_in_a_batch(model: SpeechSEC) -> None:
    content, task, known = some(7, 3, 30), torch.tensor([0, 1, 2]), some(2, 3, 3, 30, seed=4) > 0
    codes, seeds = some(11, 3, 3, 30, seed=5), torch.tensor([5, 6, 7])
    config = DecodeConfig(steps=(5, 2), sample=SampleConfig(guidance=1.5, top_k=6))

    def decode(items: slice, frames: int) -> Tensor:
        network: MaskedNetwork = condition(model, content[items, :frames], task[items], guided=True)
        return masked_decode(
            network,
            codes[items, :, :frames],
            known[items, :, :frames],
            LENGTHS[items],
            seeds=seeds[items],
            items=torch.zeros_like(seeds[items]),
            config=config,
        )

    together = decode(slice(0, 3), 30)
    assert torch.equal(together[known], codes[known])
    for item, length in enumerate(LENGTHS.tolist()):
        alone = decode(slice(item, item + 1), length)
        assert torch.equal(together[item, :, :length], alone[0])


@pytest.mark.parametrize(
    ("config", "millions"), [(starter_t2u(), 6.24), (starter_u2c(), 21.2), (published(), 354.4)]
)
def test_presets_have_the_size_they_claim(config: SpeechSECConfig, millions: float) -> None:
    network = SpeechSEC(config, seed=None)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.002)


@pytest.mark.parametrize(
    "wrong", [{"conv_kernel": 4}, {"heads": 3}, {"codebooks": 0}, {"colour": 1}]
)
def test_config_refuses_what_cannot_be_built(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpeechSECConfig(**(tiny().model_dump() | wrong))


@pytest.mark.parametrize("module", ["config", "checkpoint", "_spec"])
def test_what_is_announced_imports_no_torch(module: str) -> None:
    code = f"import sys, speechloom_speechsec.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
