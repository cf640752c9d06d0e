"""LMUFormer and its spiking form against their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hush.models.initial import seeded
from hush.models.lmuformer import (
    LIF,
    TINY,
    LMUFormer,
    LMUFormerConfig,
    Memory,
    build_spiking,
    example,
    impulse,
    sizes_of,
    state_space,
)
from hush.models.registry import get

SPIKING = replace(TINY, spiking=True, memory_ratio=2)


@pytest.fixture(scope="module")
def spiking() -> LMUFormer:
    made = build_spiking(sizes_of(True), "tiny", None)
    assert isinstance(made, LMUFormer)
    return made


def test_the_memory_is_the_recurrence() -> None:
    length, order = 50, 12
    u = torch.rand(2, 1, length, generator=torch.Generator().manual_seed(0))
    step, drive = state_space(order, 40.0)
    m, states = torch.zeros(2, order, dtype=torch.float64), []
    for now in u.double().unbind(-1):
        m = m @ step.T + now * drive
        states.append(m)
    wanted = torch.stack(states, -1)
    assert (Memory(order, 40.0, length)(u) - wanted).abs().max() < 1e-5
    spectrum = torch.fft.rfft(u.double(), 2 * length) * torch.fft.rfft(impulse(order, 40.0, length), 2 * length)
    assert (torch.fft.irfft(spectrum, 2 * length)[..., :length] - wanted).abs().max() < 1e-12


def test_the_state_space_is_scipys() -> None:
    signal = pytest.importorskip("scipy.signal")
    place = torch.arange(6, dtype=torch.float64)
    i, j = torch.meshgrid(place, place, indexing="ij")
    rate = ((2 * place + 1) / 9.0)[:, None]
    continuous = rate * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    drive = rate * ((-1.0) ** place)[:, None]
    a, b, *_ = signal.cont2discrete(
        (continuous.numpy(), drive.numpy(), torch.ones(1, 6).numpy(), torch.zeros(1, 1).numpy()), dt=1.0, method="zoh"
    )
    step, drawn = state_space(6, 9.0)
    assert (step - torch.tensor(a)).abs().max() < 1e-12
    assert (drawn - torch.tensor(b)[:, 0]).abs().max() < 1e-12


def test_a_remembered_constant_is_the_first_polynomial() -> None:
    """Legendre coefficients of 1 over the whole window: 1, 0, 0.."""
    m = Memory(6, 20.0, 200)(torch.ones(1, 1, 200))[0, :, -1]
    assert (m - torch.tensor([1.0, 0, 0, 0, 0, 0])).abs().max() < 1e-3


def test_the_memory_knows_nothing_of_what_comes() -> None:
    memory, u = Memory(8, 16.0, 16), torch.rand(1, 1, 16)
    other = u.clone()
    other[..., 9] += 1
    changed = (memory(u) - memory(other)).abs().amax((0, 1)) > 1e-6
    assert changed.tolist() == [False] * 9 + [True] * 7


def test_a_neuron_by_hand() -> None:
    x = torch.tensor([[[1.0, 1.0, 1.5, 0.0, 0.9, 4.0, 1.9]]])
    # potentials 0.5, 0.75, 1.125 (fires), 0, 0.45, 2.225 (fires), 0.95
    assert LIF(TINY).eval()(x).flatten().tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert LIF(TINY, 0.5).eval()(x).flatten().tolist() == [1, 1, 1, 0, 0, 1, 1]


def test_spikes_in_training_are_the_same_and_have_a_gradient() -> None:
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)) + 1
    free = x.clone().requires_grad_()
    spikes = LIF(TINY).train()(free)
    assert torch.allclose(spikes, LIF(TINY).eval()(x))
    spikes.sum().backward()
    assert free.grad is not None
    assert (free.grad > 0).all()


def test_neurons_fire(spiking: LMUFormer) -> None:
    """Spikes are 0 or 1, some of each behind every layer of neurons."""
    seen: list[Tensor] = []
    handles = [
        part.register_forward_hook(lambda module, given, made: seen.append(made))
        for part in spiking.modules()
        if isinstance(part, LIF)
    ]
    spiking(*example("tiny", 8, 16, 0))
    for handle in handles:
        handle.remove()
    assert len(seen) == 11
    for spikes in seen:
        assert ((spikes == 0) | (spikes == 1)).all()
        assert 0.005 < spikes.mean() < 0.9


def test_scores_averaged_over_time_are_those_of_the_average(spiking: LMUFormer) -> None:
    (x,) = example("tiny", 8, 3, 0)
    steps = spiking.patch_embed(x.transpose(1, 2))
    for block in spiking.block:
        steps = block(steps)
    each = spiking.head(spiking.head_act(steps).transpose(1, 2))
    assert (spiking(x) - each.mean(1)).abs().max() < 1e-6


@pytest.mark.parametrize("model", ["lmuformer", "lmuformer-spiking"])
def test_batches(model: str) -> None:
    net, (x,) = get(model).build("tiny", None), example("tiny", 8, 4, 1)
    assert (net(x) - torch.cat([net(row[None]) for row in x])).abs().max() < 1e-5


def test_thresholds_matter(spiking: LMUFormer) -> None:
    (x,) = example("tiny", 8, 4, 1)
    other = seeded(lambda: LMUFormer(replace(SPIKING, first_threshold=1.0)))
    other.load_state_dict(spiking.state_dict())
    assert not torch.allclose(other(x), spiking(x))


def counted(c: LMUFormerConfig) -> int:
    """Parameters by hand: convolutions, the unit, the mixer, norms, scores."""
    d, hidden, order = c.embed_dims, c.embed_dims * c.mlp_ratio, c.embed_dims * c.memory_ratio
    embed = 3 * c.in_channels * d + 4 * 3 * d * d + 4 * 2 * d
    unit = (d + 1) + (order + d) * d + d + d * d + d + 2 * d
    mixer = 2 * d * hidden + hidden + d + 2 * hidden + 2 * d
    if c.spiking:
        unit += 2 * d + 2 + 2 * order + 2 * d
    return embed + c.depths * (unit + mixer) + d * c.num_classes + c.num_classes + 2 * d * c.spiking


@pytest.mark.parametrize("size", ["tiny", "paper"])
@pytest.mark.parametrize("spiking_form", [False, True])
def test_parameters(size: str, spiking_form: bool) -> None:
    net = sizes_of(spiking_form)[size]
    with torch.device("meta"):
        made = net.architecture()
    assert isinstance(made, LMUFormer)
    c = LMUFormerConfig() if size == "paper" else TINY
    assert net.parameters() == counted(replace(c, spiking=spiking_form, memory_ratio=1 + spiking_form))
    assert sum(isinstance(part, nn.Linear) for part in made.modules()) == 3


def test_parameters_at_paper_size() -> None:
    """What the official code has; the paper says 1.62 million."""
    assert get("lmuformer").sizes["paper"].parameters() == 1_621_796
    assert get("lmuformer-spiking").sizes["paper"].parameters() == 1_689_894
