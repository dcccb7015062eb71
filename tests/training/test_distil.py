"""How a student learns from rectified CLIP: losses, heads, learning rates, interruptions."""

from dataclasses import replace

import pytest
import torch
from reference import distil as slow
from reference.distil import P, images_of, planted, positions, teacher, texts

from zerolabel.errors import UsageError
from zerolabel.networks.deeplab import DeepLabConfig, random_deeplab
from zerolabel.networks.distilled import HEADS
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.ops.distillation import feature_loss, nearest, one_hot
from zerolabel.training.distil import MASKCLIP_PLUS, Distillation, DistilTrainer

BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8)
QUERIES, REFERENCES = texts()
SIZE = (48, 64)
LOSSES = ("mask", "feature", "text")


def student(**settings):
    return random_deeplab(
        DeepLabConfig(**{"resnet": BODY, "out": P, "dilations": (1, 2), **settings}), seed=0
    )


def trainer(net=None, rectifier=None, **settings):
    config = Distillation(**{"iterations": 20, "batch": 4, **settings})
    return DistilTrainer(
        student() if net is None else net,
        teacher() if rectifier is None else rectifier,
        config,
        queries=QUERIES,
        references=REFERENCES,
    )


def alone(loss, **settings):
    return trainer(**{name: float(name == loss) for name in LOSSES}, **settings)


def step(made, seed=0, size=SIZE):
    images, dense, labels = planted(seed, size)
    return made.learn(images, dense, labels, positions(size))


def copied(state):
    return {name: value.clone() for name, value in state.items()}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- the losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, (44, 61)])
def test_the_loss_is_the_papers_sum(size):
    made = trainer(mask=2.0, feature=0.5, text=0.25, logit_scale=20.0)
    images, dense, labels = planted(size=size)
    labels[:, :9] = 255
    with torch.no_grad():
        made.net.train()
        seen = made.net(images, positions(size))
        grid = seen.embedding.shape[1:3]
        assert grid == (6, 8)
        small = nearest(labels, tuple(grid))
        expected = (
            2 * slow.mask_loss(seen.logits, labels)
            + 0.5 * slow.feature_loss(seen.embedding, dense)
            + 0.25 * slow.text_loss(seen.embedding, small, QUERIES, scale=20.0)
        )
    assert made.learn(images, dense, labels, positions(size)) == pytest.approx(
        float(expected), rel=1e-4
    )
    assert made.step == 1


@pytest.mark.parametrize("masks", ["teacher", "student"])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_alone_teaches_the_student_and_not_its_head(loss, masks):
    made = alone(loss, masks=masks, decay=0.0)
    head = copied(made.net.head.state_dict())
    before = copied(dict(made.net.student.named_parameters()))
    step(made)
    for name, value in made.net.student.named_parameters():
        assert value.grad is not None, name
        assert value.grad.any(), name
        assert not torch.equal(value, before[name]), name
    moved = {k for k, v in made.net.head.state_dict().items() if not torch.equal(v, head[k])}
    assert moved <= {
        f"rectifier.decoder.norm.{n}"
        for n in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_the_losses_fall_alone():
    for loss in LOSSES:
        made = alone(loss, net=student(relu=False), lr=0.05, iterations=30)
        values = [step(made, seed) for seed in range(30)]
        assert sum(values[-5:]) < 0.8 * sum(values[:5]), loss


def test_published_weights_and_scales_are_the_defaults():
    c = Distillation()
    assert (c.mask, c.feature, c.text, c.logit_scale) == (1, 0.5, 0.5, 100)
    assert (c.lr, c.momentum, c.decay, c.power, c.floor) == (0.01, 0.9, 5e-4, 0.9, 1e-4)
    group = trainer().optimiser.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
    assert (c.head, c.masks, c.pool, c.cosine) == ("inherited", "teacher", "area", False)


def test_labels_of_a_grid_are_those_of_its_pixels():
    images, dense, labels = planted()
    small = labels[:, ::16, ::16]
    values = [
        made.learn(images, dense, given, positions(SIZE))
        for made, given in ((trainer(), labels), (trainer(), small))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_finer_grid_is_the_students_or_the_teachers():
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.randn(2, n, n + 1, P, generator=generator) for n in (3, 7))
    for mine, taught in ((coarse, fine), (fine, coarse), (fine, fine + 1)):
        torch.testing.assert_close(feature_loss(mine, taught), slow.feature_loss(mine, taught))
    assert feature_loss(fine, fine + 1) == pytest.approx(1)
    assert not feature_loss(fine, fine.clone())


def test_masks_and_nearest_labels():
    labels = torch.tensor([[[0, 2], [255, 1]]])
    masks = one_hot(labels, 3)
    assert masks.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]]]]
    assert one_hot(torch.tensor([[[-1, 255]]]), 300, ignore=-1).sum() == 1
    wide = nearest(labels, (4, 6))
    assert torch.equal(wide, labels.repeat_interleave(2, 1).repeat_interleave(3, 2))
    assert torch.equal(nearest(wide, (2, 2)), labels)
    assert nearest(wide.byte(), (4, 6)).dtype == torch.int64


def test_ignored_places_teach_nothing():
    images, dense, labels = planted()
    none = torch.full_like(labels, 255)
    made = trainer(feature=0.0, decay=0.0)
    before = copied(dict(made.net.student.named_parameters()))
    assert made.learn(images, dense, none, positions(SIZE)) == 0
    same(dict(made.net.student.named_parameters()), before)
    blank = trainer(text=0.0, feature=0.0)
    part = labels.clone()
    part[:, :, 32:] = 255
    blank.net.train()
    seen = blank.net(images, positions(SIZE))
    terms = blank.losses(seen, None, part, size=SIZE)
    expected = slow.mask_loss(seen.logits, part)
    torch.testing.assert_close(terms["mask"], expected)


def test_masks_of_the_student_are_drawn_by_seed_and_step():
    def values(**settings):
        made = alone("text", masks="student", logit_scale=2.0, **settings)
        return [step(made) for _ in range(2)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = values()
    assert torch.equal(torch.get_rng_state(), before)
    assert values() == first
    assert values(seed=1) != first
    assert [step(made) for made in [alone("text", logit_scale=2.0)] for _ in range(2)] != first


# --- heads and students --------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_the_student_follows_planted_labels(head):
    """Colours mean words: after some steps nearly every pixel has the teacher's label."""
    scale = 20.0 if head.startswith("query") else 1.0
    made = trainer(student(relu=False), head=head, lr=0.02, iterations=60, mask_scale=scale)
    losses = [step(made, seed) for seed in range(60)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    images, _, labels = planted(1000)
    scores = made.predict(images, positions(SIZE))
    assert scores.shape == (4, 3, 6, 8)
    right = nearest(scores.argmax(1), SIZE) == labels
    assert right.float().mean() > 0.85
    assert torch.equal(made.predict(images, positions(SIZE)), scores)


def test_maskclip_plus_needs_labels_only():
    config = replace(MASKCLIP_PLUS, iterations=40, lr=0.05)
    made = DistilTrainer(student(), None, config, queries=QUERIES)
    losses = []
    for seed in range(40):
        images, _, labels = planted(seed)
        losses.append(made.learn(images, None, labels))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    images, _, labels = planted(1000)
    scores = made.predict(images)
    assert (nearest(scores.argmax(1), SIZE) == labels).float().mean() > 0.8
    expected = torch.einsum("bhwp,qp->bqhw", made.net.eval()(images).embedding, QUERIES)
    torch.testing.assert_close(scores, expected)  # no length is taken off


@pytest.mark.parametrize(
    "config",
    [
        DeepLabConfig(resnet=replace(BODY, deep_stem=True), out=P, relu=False),
        DeepLabConfig(resnet=replace(BODY, fixed_norm=True), out=P, norm=False),
        DeepLabConfig(resnet=ResNetConfig("bottleneck", (1, 1, 1, 1), width=4), out=P),
    ],
    ids=["deep-stem", "fixed-norms", "stride-32"],
)
def test_other_students_learn_too(config):
    made = trainer(random_deeplab(config, seed=0))
    assert step(made, size=(64, 64)) > 0
    assert step(made, 1, size=(64, 64)) > 0


def test_bfloat16_learns_nearly_the_same():
    losses = {}
    for amp in (False, True):
        made = trainer(amp=amp)
        losses[amp] = [step(made, seed) for seed in range(3)]
        assert all(v.dtype in (torch.float32, torch.int64) for v in made.weights().values())
    assert losses[False] != losses[True]
    assert losses[False] == pytest.approx(losses[True], rel=0.05)


# --- learning rates and interruptions ------------------------------------------------------------


def test_the_learning_rate_falls_by_step_or_by_epoch():
    made = trainer(iterations=10)
    rates = []
    for _ in range(10):
        rates.append(made.lr())
        made.step += 1
    assert rates == pytest.approx([0.01 * (1 - i / 10) ** 0.9 for i in range(10)])
    made.step = 50
    assert made.lr() == 1e-4
    slowly = trainer(iterations=10, epoch=3)  # four epochs, the last one short
    rates = []
    for _ in range(10):
        rates.append(slowly.lr())
        slowly.step += 1
    assert rates == pytest.approx([0.01 * (1 - i // 3 / 4) ** 0.9 for i in range(10)])
    low = trainer(lr=1e-5)
    low.step = 19
    assert low.lr() == 1e-5  # the floor never raises it
    step(low)
    assert low.optimiser.param_groups[0]["lr"] == 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"masks": "student", "epoch": 3},
        {"head": "own"},
        {"head": "query+bias"},
    ],
    ids=str,
)
def test_an_interrupted_training_ends_bit_by_bit_the_same(settings):
    whole = trainer(**settings)
    losses = [step(whole, seed) for seed in range(6)]
    first = trainer(**settings)
    before = [step(first, seed) for seed in range(3)]
    kept = copied(first.state())
    step(first, 99)  # what was kept does not move with the trainer
    second = trainer(student(relu=True), **settings)
    step(second, 50)
    second.restore(kept)
    assert second.step == 3
    assert before + [step(second, seed) for seed in range(3, 6)] == losses
    same(second.state(), whole.state())
    same(second.weights(), whole.weights())


def test_weights_are_those_of_student_and_head():
    made = trainer(head="own")
    assert {name.split(".")[0] for name in made.weights()} == {"student", "head"}
    assert {n for n in made.weights() if n.startswith("head.")} == {
        "head.queries",
        "head.own.weight",
        "head.own.bias",
    }


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head": "querry"}, "Did you mean 'query'"),
        ({"pool": "max"}, "Unknown choice of pool"),
        ({"masks": "both"}, "Unknown choice of masks"),
        ({"iterations": 0}, "must be 1 or more, found 0"),
        ({"lr": 0.0}, "lr and scales must be above 0"),
        ({"momentum": 1.0}, "momentum in 0..1"),
        ({"text": -1.0}, "must be 0 or more"),
        ({"mask": 0.0, "feature": 0.0, "text": 0.0}, "nothing would be learned"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Distillation(**settings)


def test_what_does_not_fit_is_refused_in_words():
    images, dense, labels = planted()
    made, places = trainer(), positions(SIZE)
    with pytest.raises(UsageError, match="needs the teacher's features"):
        made.learn(images, None, labels, places)
    with pytest.raises(UsageError, match="needs CLIP's positions"):
        made.learn(images, dense, labels)
    with pytest.raises(UsageError, match=r"found \(4, 3, 48, 64\), \(4, 3, 4, 15\)"):
        made.learn(images, dense[..., 1:], labels, places)
    with pytest.raises(UsageError, match="found .* and \\(3, 48, 64\\)"):
        made.learn(images, dense, labels[1:], places)
    with pytest.raises(UsageError, match="a single one is left"):
        made.learn(images_of(1, (8, 8)), dense[:1], labels[:1], places)
    with pytest.raises(UsageError, match="labels 0..2"):
        made.learn(images, dense, labels + 7, places)
    with pytest.raises(UsageError, match="inherited from a rectifier"):
        DistilTrainer(student(), None, Distillation(), queries=QUERIES)
    many = torch.randn(300, P)
    with pytest.raises(UsageError, match="Set ignore to -1"):
        DistilTrainer(student(), None, MASKCLIP_PLUS, queries=many)
    able = DistilTrainer(student(), None, replace(MASKCLIP_PLUS, ignore=-1), queries=many)
    ids = torch.full_like(labels, 299)
    ids[:, :4] = -1
    assert able.learn(images, None, ids) > 0
