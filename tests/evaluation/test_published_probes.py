from dataclasses import asdict

import numpy as np
import pytest
import torch
from reference import published_probes as reference

from zerolabel.evaluation.published_probes import (
    MaskContrastLinear,
    MaskContrastProbe,
    StegoProbe,
    StegoProbes,
)

D, C = 6, 4


def test_settings_are_the_published_ones():
    assert asdict(MaskContrastLinear()) == {
        "size": (512, 512),
        "epochs": 60,
        "batch": 16,
        "lr": 0.1,
        "drop_after": 25,
        "drop": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "deviation": 0.01,
        "flip": 0.5,
        "angle": 5.0,
        "scale": (0.75, 1.25),
    }
    assert asdict(StegoProbes()) == {
        "train_size": 224,
        "size": 320,
        "steps": 5000,
        "batch": 16,
        "lr": 5e-3,
        "mirrored": True,
    }


def batches(count, seed=0):
    """Noisy tokens with one direction per class, and their labels, some of them void."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(C, D, generator=torch.Generator().manual_seed(9))
    for _ in range(count):
        ids = torch.randint(0, C, (3, 4, 5), generator=generator)
        tokens = directions[ids] + 0.3 * torch.randn(3, 4, 5, D, generator=generator)
        labels = ids.repeat_interleave(4, 1).repeat_interleave(4, 2)
        labels[:, :2] = 255
        labels[0, 3:6, 4:9] = 255
        yield tokens, labels


def test_the_start_of_the_layer():
    probe = MaskContrastProbe(MaskContrastLinear(), 400, 21, seed=0)
    weight, bias = probe.state()["weight"], probe.state()["bias"]
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(weight.mean())) < 1e-3
    assert not bias.any()
    other = MaskContrastProbe(MaskContrastLinear(), 400, 21, seed=1)
    assert not torch.equal(weight, other.state()["weight"])
    stego = StegoProbe(StegoProbes(), 400, 21, seed=0).state()
    assert float(stego["weight"].abs().max()) <= 0.05
    assert float(stego["prototypes"].std()) == pytest.approx(1, rel=0.05)


def test_the_rate_falls_after_epoch_25():
    probe = MaskContrastProbe(MaskContrastLinear(), D, C, seed=0)
    rates = []
    for epoch in range(60):
        probe.begin(epoch)
        rates.append(probe.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 26 + [0.01] * 34)


def test_training_is_that_of_a_convolution():
    probe = MaskContrastProbe(MaskContrastLinear(drop_after=1), D, C, seed=3)
    start = probe.parameters["weight"].detach().clone()
    for epoch, (tokens, labels) in enumerate(batches(5)):
        probe.begin(epoch)
        probe.step(tokens, labels)
    conv = reference.maskcontrast(batches(5), weight=start, rates=[0.1, 0.1, 0.01, 0.01, 0.01])
    torch.testing.assert_close(
        probe.parameters["weight"].detach(), conv.weight.detach()[:, :, 0, 0], atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        probe.parameters["bias"].detach(), conv.bias.detach(), atol=1e-6, rtol=1e-5
    )


def test_both_stego_probes_are_those_of_one_loss():
    probe = StegoProbe(StegoProbes(lr=0.01), D, C, seed=3)
    start = probe.state()
    for tokens, labels in batches(6):
        probe.step(tokens, labels)
    conv, clusters = reference.stego(batches(6), **start, lr=0.01)
    found = probe.state()
    torch.testing.assert_close(
        found["weight"], conv.weight.detach()[:, :, 0, 0], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found["bias"], conv.bias.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["prototypes"], clusters, atol=1e-5, rtol=1e-4)


def test_pixels_get_the_prototype_that_is_nearest_to_their_token():
    probe = StegoProbe(StegoProbes(), D, 9, seed=0)
    tokens = torch.randn(5, 6, D, generator=torch.Generator().manual_seed(1)) + 0.3
    expected = reference.assign(tokens, probe.parameters["prototypes"], (23, 31))
    assert (probe.cluster(tokens, (23, 31)) == expected).float().mean() > 0.995


def test_what_is_linear_is_learned_and_prototypes_settle():
    probe = StegoProbe(StegoProbes(lr=0.05), D, C, seed=0)
    losses = [probe.step(tokens, labels) for tokens, labels in batches(40)]
    assert losses[-1][0] < 0.5 * losses[0][0]
    assert losses[-1][1] < losses[0][1] - 0.05
    tokens, labels = next(batches(1, seed=5))
    scored = labels[1] != 255
    assert (probe.predict(tokens[1], (16, 20)) == labels[1])[scored].float().mean() > 0.8
    linear = MaskContrastProbe(MaskContrastLinear(), D, C, seed=0)
    for some, truth in batches(60):
        linear.step(some, truth)
    assert (linear.predict(tokens[1], (16, 20)) == labels[1])[scored].float().mean() > 0.8


def test_prototypes_never_see_labels():
    first, second = (StegoProbe(StegoProbes(), D, C, seed=0) for _ in range(2))
    for tokens, labels in batches(5):
        first.step(tokens, labels)
        second.step(tokens, (labels + 1) % C)
    assert torch.equal(first.state()["prototypes"], second.state()["prototypes"])
    assert not torch.equal(first.state()["weight"], second.state()["weight"])


def test_a_batch_without_labels_teaches_nothing():
    probe = MaskContrastProbe(MaskContrastLinear(weight_decay=0), D, C, seed=0)
    before = probe.state()
    tokens, labels = next(batches(1))
    assert probe.step(tokens, torch.full_like(labels, 255)) == 0
    assert torch.equal(before["weight"], probe.state()["weight"])


@pytest.mark.parametrize("kind", ["maskcontrast", "stego"])
def test_training_goes_on_from_a_state(kind):
    def fresh(seed):
        if kind == "stego":
            return StegoProbe(StegoProbes(), D, C, seed=seed)
        return MaskContrastProbe(MaskContrastLinear(), D, C, seed=seed)

    whole, first, second = fresh(0), fresh(0), fresh(1)
    some = list(batches(6))
    for tokens, labels in some:
        whole.step(tokens, labels)
    for tokens, labels in some[:3]:
        first.step(tokens, labels)
    # As it comes back from a file: numpy arrays of one dimension or more.
    kept = {name: np.atleast_1d(value.numpy()) for name, value in first.state().items()}
    second.restore({name: torch.from_numpy(value) for name, value in kept.items()})
    for tokens, labels in some[3:]:
        second.step(tokens, labels)
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name
