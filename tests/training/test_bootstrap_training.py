"""TransFGU's rounds: what a step does, when a round begins, what it starts from."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import decoder, mask_transformer_config
from zerolabel.ops import bootstrapping as losses
from zerolabel.training import bootstrap
from zerolabel.training.bootstrap import Bootstrapping, BootstrapTrainer, Views, views

B, K, GRID, DIM, PATCH = 4, 3, (4, 5), 16, 8
CONFIG = Bootstrapping(lr=1e-3, epochs=9, start=1, intervals=(2,), distort=False)


def trainer(config=CONFIG, *, length=2, dropout=None, k=K):
    head = mask_transformer_config("transfgu", encoder_dim=DIM, classes=k)
    if dropout is not None:
        head = replace(head, dropout=dropout)
    return BootstrapTrainer(decoder(head, seed=config.seed), config, length=length)


def planted(*, k=K, seed=0):
    """Tokens of k kinds, and targets that say which."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, k, (B, *GRID), generator=generator)
    codes = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))[0][:k]
    tokens = 3 * codes[kinds] + 0.1 * torch.randn(B, *GRID, DIM, generator=generator)
    targets = torch.nn.functional.one_hot(kinds, k).permute(0, 3, 1, 2).float()
    return tokens, Views(torch.empty(0), targets, targets.amax(1) > 0.5), kinds


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# --- when rounds begin ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "intervals", "epochs", "rounds"),
    [
        # PASCAL VOC: every 5 up to 39, every 4 up to 89, every 3 from 90 on
        (5, (5, 5, 5, 5, 4, 4, 4, 4, 4, 3), 100,
         [5, 10, 15, 20, 25, 30, 35, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 84, 88,
          90, 93, 96, 99]),
        # COCO-Stuff with 171 classes: every 3 up to 29, then every 2 (here the first 40 of 200)
        (3, (3, 3, 3, 2), 40, [3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 32, 34, 36, 38]),
        (2, (2,), 11, [2, 4, 6, 8, 10]),  # with 27 classes
        (1, (1,), 5, [1, 2, 3, 4]),  # Cityscapes
        (0, (2,), 5, [2, 4]),  # nobody is the teacher of the first epoch
        (3, (2,), 8, [4, 6]),
        (9, (1,), 9, []),
    ],
    ids=["voc", "coco171", "coco27", "cityscapes", "zero", "odd", "never"],
)  # fmt: skip
def test_rounds_begin_when_the_published_code_begins_them(start, intervals, epochs, rounds):
    config = Bootstrapping(start=start, intervals=intervals, epochs=epochs)
    assert [epoch for epoch in range(epochs) if config.renews(epoch)] == rounds


def test_a_round_begins_with_an_epoch_and_from_the_first_weights():
    made, (tokens, seen, _) = trainer(length=3), planted()
    first, teachers = weights(made.student), []
    for step in range(3 * 6):
        before, moments = weights(made.student), made.optimiser.state_dict()["state"]
        count = {i: int(entry["step"]) for i, entry in moments.items()}
        teacher = made.teacher
        made.learn(tokens, seen)
        epoch, place = divmod(step, 3)
        if place == 0 and epoch in (2, 4):
            assert made.teacher is not teacher
            assert same(weights(made.teacher), before)  # it is what the student was
            assert not same(weights(made.student), before)
            teachers.append(weights(made.teacher))
            # one step away from the first weights, of at most about lr per entry
            for name, value in made.student.state_dict().items():
                assert (value - first[name]).abs().max() < 10 * CONFIG.lr
            assert any((before[n] - first[n]).abs().max() > 2 * CONFIG.lr for n in first)
        else:
            assert made.teacher is teacher
        # the optimiser remembers across rounds
        now = made.optimiser.state_dict()["state"]
        assert all(int(now[i]["step"]) == steps + 1 for i, steps in count.items())
    assert len(teachers) == 2
    assert not same(*teachers)
    assert same(weights(made.teacher), teachers[1])  # it does not learn
    assert not made.teacher.training
    assert made.student.training
    assert not any(p.requires_grad for p in made.teacher.parameters())
    assert all(p.requires_grad for p in made.student.parameters())


# --- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
def test_steps_lower_the_loss_and_find_what_is_planted(background):
    config = replace(CONFIG, start=99, lr=3e-3, background=background)
    made, (tokens, seen, kinds) = trainer(config), planted()
    found = [made.learn(tokens, seen) for _ in range(60)]
    assert made.step == 60
    assert found[-1] < found[0] - 0.3
    assert max(found[-5:]) < min(found[:5])
    assert (made.student.eval()(tokens).argmax(1) == kinds).float().mean() > 0.95


def watch(monkeypatch):
    """Note with which weights and targets the losses are asked."""
    seen = []
    original = losses.peer_loss

    def asked(logits, targets, *, weight, generator):
        seen.append((weight, targets.clone()))
        return original(logits, targets, weight=weight, generator=generator)

    monkeypatch.setattr(losses, "peer_loss", asked)
    return seen


def test_wrong_targets_cost_with_a_teacher_only_and_more_by_the_epoch(monkeypatch):
    seen, (tokens, told, _) = watch(monkeypatch), planted()
    made = trainer(replace(CONFIG, start=2, intervals=(10,), epochs=30, lr=1e-5), length=1)
    for _ in range(22):
        made.learn(tokens, told)
    found = [weight for weight, _ in seen]
    rising = [0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.1, 0.1]
    assert found == [0.0] * 10 + rising + rising[:2]
    assert all(torch.equal(targets, told.targets) for _, targets in seen[:10])


def test_without_peer_loss_wrong_targets_cost_nothing(monkeypatch):
    seen, (tokens, told, _) = watch(monkeypatch), planted()
    made = trainer(replace(CONFIG, peer=False, intervals=(1,)), length=1)
    for _ in range(4):
        made.learn(tokens, told)
    assert made.teacher is not None
    assert [weight for weight, _ in seen] == [0.0] * 4


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_teacher_has_its_share_in_the_targets(monkeypatch, share):
    seen, (tokens, told, _) = watch(monkeypatch), planted()
    made = trainer(replace(CONFIG, intervals=(1,), teacher=share), length=1)
    made.learn(tokens, told)
    made.learn(tokens, told)
    with torch.no_grad():
        said = made.teacher(tokens).softmax(1)  # without dropout
    expected = (1 - share) * told.targets + share * said
    torch.testing.assert_close(seen[1][1], expected)


@pytest.mark.parametrize("background", [False, True])
def test_the_loss_is_the_sum_of_the_published_terms(background):
    k = K + background
    config = replace(CONFIG, background=background, uncertainty=0.3, diversity=1.0)
    made, (tokens, seen, _) = trainer(config, dropout=0.0, k=k), planted(k=k)
    certain = torch.rand(B, *GRID, generator=torch.Generator().manual_seed(1)) < 0.5
    seen = replace(seen, certain=certain)
    with torch.no_grad():
        logits, classes = made.student.decode(tokens)
    right = torch.nn.functional.cross_entropy(logits, seen.targets.argmax(1))
    shares = (logits[:, 1:] if background else logits).softmax(1).sort(1, descending=True).values
    unsure = 1 - (shares[:, 0] - shares[:, 1])
    unsure = unsure[certain] if background else unsure
    pairs = [1 + (classes[:, i] * classes[:, j]).sum(1) for i in range(k) for j in range(i)]
    expected = right + 0.3 * unsure.mean() + torch.stack(pairs).mean()
    assert made.learn(tokens, seen) == pytest.approx(float(expected), rel=1e-5)


def test_terms_can_be_left_out():
    made = trainer(replace(CONFIG, uncertainty=0.0, diversity=0.0), dropout=0.0)
    tokens, seen, _ = planted()
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(made.student(tokens), seen.targets.argmax(1))
    assert made.learn(tokens, seen) == pytest.approx(float(expected), rel=1e-5)


def test_there_is_no_step_where_the_loss_is_not_above_0(monkeypatch):
    made, (tokens, seen, _) = trainer(), planted()
    made.learn(tokens, seen)
    before, state = weights(made.student), made.state()
    moments = {n: v.clone() for n, v in state.items() if n.startswith("optimiser/")}
    monkeypatch.setattr(losses, "peer_loss", lambda logits, targets, **options: logits.mean() - 100)
    assert made.learn(tokens, seen) < 0
    assert made.step == 2  # time goes on
    assert same(weights(made.student), before)
    now = made.state()
    assert all(torch.equal(now[name], value) for name, value in moments.items())


def test_every_entry_of_a_gradient_is_at_most_1(monkeypatch):
    made, (tokens, seen, _) = trainer(), planted()
    original = losses.peer_loss
    monkeypatch.setattr(
        losses, "peer_loss", lambda logits, targets, **o: 1e4 * original(logits, targets, **o)
    )
    made.learn(tokens, seen)
    grads = [p.grad for p in made.student.parameters() if p.grad is not None]
    assert max(float(g.abs().max()) for g in grads) == bootstrap.LIMIT == 1.0


def test_matrices_decay_and_the_rest_does_not():
    made = trainer(replace(CONFIG, decay=5e-4))
    decays = {
        id(p): group["weight_decay"] for group in made.optimiser.param_groups
        for p in group["params"]
    }  # fmt: skip
    for name, value in made.student.named_parameters():
        assert decays[id(value)] == (0.0 if value.ndim == 1 else 5e-4), name
    assert [group["lr"] for group in made.optimiser.param_groups] == [1e-3, 1e-3]
    assert type(made.optimiser) is torch.optim.Adam  # decay is added to the gradient


@pytest.mark.parametrize("k", [1, 2])
def test_few_categories(k):
    made, (tokens, seen, _) = trainer(replace(CONFIG, intervals=(1,)), k=k), planted(k=k)
    found = [made.learn(tokens, seen) for _ in range(6)]
    assert torch.tensor(found).isfinite().all()
    assert all(value.isfinite().all() for value in made.student.state_dict().values())


# --- put aside and taken up ----------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 8])
def test_a_training_goes_on_bit_by_bit(stop):
    batches = [planted(seed=seed)[:2] for seed in range(9)]
    whole = trainer()
    expected = [whole.learn(*batch) for batch in batches]
    first, second = trainer(), trainer()
    found = [first.learn(*batch) for batch in batches[:stop]]
    kept = {name: value.clone() for name, value in first.state().items()}
    if stop > 2:
        first.learn(*batches[0])  # what was kept is not what goes on
    second.restore(kept)
    found += [second.learn(*batch) for batch in batches[stop:]]
    assert found == expected
    assert same(whole.state(), second.state())
    assert (second.teacher is None) == (whole.teacher is None)


def test_what_was_kept_may_be_used_twice():
    batch, made = planted()[:2], trainer()
    for _ in range(5):
        made.learn(*batch)
    kept = {name: value.clone() for name, value in made.state().items()}
    copies = {name: value.clone() for name, value in kept.items()}
    made.restore(kept)
    made.learn(*batch)
    assert same(kept, copies)


def test_the_seed_decides_what_is_dropped():
    tokens, seen, _ = planted()
    first, again = (trainer().learn(tokens, seen) for _ in range(2))
    torch.manual_seed(7)
    torch.rand(3)
    assert first == again == trainer().learn(tokens, seen)
    other = trainer()
    other.config = replace(CONFIG, seed=1)
    assert other.learn(tokens, seen) != first


# --- crops ---------------------------------------------------------------------------------------


def coded(count=6, grid=(8, 10), k=4, patch=PATCH):
    """Images whose channels say what responds: smooth, so that any crop can be checked."""
    rows = torch.linspace(0, 1, grid[0])[:, None].expand(grid)
    columns = torch.linspace(0, 1, grid[1])[None].expand(grid)
    one = torch.stack([rows, columns, 1 - rows, 1 - columns])[:k]
    responses = one.expand(count, -1, -1, -1).contiguous()
    # bilinear between the centres of patches, as regions of interest are
    images = torch.nn.functional.interpolate(
        200 * responses[:, :3], scale_factor=patch, mode="bilinear"
    )
    return images.round().byte(), responses


@pytest.mark.parametrize("rest", [0, 5])
def test_images_and_responses_stay_aligned(rest):
    images, responses = coded()
    images = torch.nn.functional.pad(images, (0, rest, 0, rest))  # what no patch covers
    for step in range(8):
        seen = views(images, responses, CONFIG, patch=PATCH, step=step)
        assert seen.images.shape == (6, 3, 32, 40)
        assert seen.targets.shape == (6, 4, 4, 5)
        means = torch.nn.functional.avg_pool2d(seen.images, PATCH) / 200  # (6, 3, 4, 5)
        # targets are scaled by the extremes of all channels of an image: undo that by a line
        for image, own in zip(means, seen.targets, strict=True):
            x, y = own[:3].flatten(), image.flatten()
            slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
            fit = slope * (x - x.mean()) + y.mean()
            assert (fit - y).abs().max() < 0.03
            assert slope > 0.1


def test_crops_are_flipped_scaled_and_placed_at_random():
    images, responses = coded(count=64)
    seen = views(images, responses, CONFIG, patch=PATCH, step=0)
    x = seen.images / 200
    across, down = x[:, 1, :, -1] - x[:, 1, :, 0], x[:, 0, -1] - x[:, 0, 0]
    flipped = across.mean(1) < 0
    assert 16 < int(flipped.sum()) < 48
    assert (down > 0).all()  # never upside down
    # both axes lose the same share; the border of half a patch is flat
    sizes = down.mean(1) * 7 / 8
    assert sizes.min() > 0.3
    assert sizes.max() < 0.95
    assert len(set((sizes * 10).round().int().tolist())) >= 5
    targets = seen.targets
    assert torch.equal(targets[flipped, 1, 0, 0] > targets[flipped, 1, 0, -1], flipped[flipped])
    right = ~flipped
    assert (targets[right, 1, 0, 0] < targets[right, 1, 0, -1]).all()


def test_a_view_is_a_function_of_seed_and_step():
    images, responses = coded()
    look = partial(views, images, responses, patch=PATCH)
    config = replace(CONFIG, distort=True)
    first, again = look(config, step=3), look(config, step=3)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, look(config, step=4).images)
    assert not torch.equal(first.images, look(replace(config, seed=1), step=3).images)


def test_colours_change_only_where_they_may():
    images, responses = coded()
    changed = 0
    for step in range(12):
        plain = views(images, responses, CONFIG, patch=PATCH, step=step)
        seen = views(images, responses, replace(CONFIG, distort=True), patch=PATCH, step=step)
        assert seen.images.min() >= 0
        assert seen.images.max() <= 255.01
        changed += not torch.allclose(seen.images.mean(), plain.images.mean(), rtol=0.02)
    assert 0 < changed < 12


def test_the_background_comes_first_where_little_responds():
    images, responses = coded(k=3)
    responses = responses * torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    responses[:, 2] = (responses[:, 2] - 0.5).clamp_min(0)  # nothing in the lower half
    config = replace(CONFIG, background=True)
    for step in range(4):
        seen = views(images, responses, config, patch=PATCH, step=step)
        plain = views(images, responses, CONFIG, patch=PATCH, step=step)
        assert seen.targets.shape[1] == 4
        assert torch.equal(seen.targets[:, 1:], plain.targets)
        most = plain.targets.amax(1)
        torch.testing.assert_close(seen.targets[:, 0], (0.1 - most).clamp_min(0))
        assert torch.equal(seen.certain, most > 0.1)
        assert torch.equal(seen.targets.argmax(1) == 0, most < 0.05)
    assert (most < 0.05).any()


@pytest.mark.parametrize("norm", ["image", "crop"])
def test_responses_are_normalised_in_the_image_or_in_the_crop(norm):
    """One patch responds fully, the rest half or not: what is a crop without that patch?"""
    responses = torch.zeros(6, 1, 8, 8)
    responses[:, :, :, 1:] = 0.5
    responses[:, :, 0, 1] = 1
    images = torch.zeros(6, 3, 8 * PATCH, 8 * PATCH, dtype=torch.uint8)
    config = replace(CONFIG, norm=norm, background=True)
    tops = [
        views(images, responses, config, patch=PATCH, step=step).targets[:, 1].amax((1, 2))
        for step in range(4)
    ]
    highest = torch.cat(tops)
    if norm == "image":
        assert 0.45 < highest.min() < 0.55
    else:  # all alike, or their highest is the highest there is
        assert ((highest == 0) | (highest == 1)).all()
    with pytest.raises(UsageError, match="choice of norm 'all'"):
        replace(CONFIG, norm="all")


def test_epochs_have_some_steps_at_least():
    config = replace(CONFIG, batch=4, repeat=0)
    assert [config.length(images) for images in (1, 4, 480, 481, 4000)] == [120] * 4 + [1000]
    assert [replace(config, repeat=3).length(images) for images in (1, 4, 9)] == [3, 3, 6]


def test_grids_of_one_patch():
    images, responses = coded(grid=(1, 3))
    seen = views(images, responses, CONFIG, patch=PATCH, step=0)
    assert seen.images.shape == (6, 3, PATCH, PATCH)
    assert seen.targets.shape == (6, 4, 1, 1)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "whole numbers above 0"),
        ({"repeat": -1}, "whole number from 0"),
        ({"batch": 0}, "whole numbers above 0"),
        ({"intervals": (3, 0)}, "whole numbers above 0"),
        ({"intervals": ()}, "whole numbers above 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"decay": -1.0}, "0 or more"),
        ({"start": -1}, "0 or more"),
        ({"uncertainty": -0.1}, "0 or more"),
        ({"diversity": -0.1}, "0 or more"),
        ({"teacher": 1.1}, "a share in 0..1"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(UsageError, match=words):
        Bootstrapping(**changes)
