"""The crops of a data set, against crops cut, sorted and encoded one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured import PATCH, Coloured, coloured_world
from planted import broken, small_bank, tiny_vit
from reference.fgu_crops import code_windows, paper_windows, shares

from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.ops.resize import resize
from zerolabel.stages.crops import OBJECTS, STUFF, Crops, bank, check, lay, rebatched
from zerolabel.stages.encode import read
from zerolabel.store import Store

SMALL = Crops(crop_size=24, crop_batch=7, betas=(0.5, 0.3))
SIZE = (48, 64)


class Counting:
    """Passes everything on, and notes what was encoded."""

    def __init__(self, backbone):
        self.backbone, self.seen = backbone, []

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def encode(self, images, *, want):
        self.seen.append((len(images), tuple(images.shape[2:]), set(want)))
        return self.backbone.encode(images, want=want)

    def forwards(self, what):
        return [count for count, _, want in self.seen if want == {what}]


@pytest.fixture(scope="module")
def samples():
    return world(3, images=5, size=(60, 84))


def find(samples, options=SMALL, *, backbone=None, store=None, stuff=True, size=SIZE):
    backbone = backbone or tiny_vit()
    return bank(backbone, samples, options, size=size, stuff=stuff, store=store or Store())


def by_hand(backbone, samples, options, *, size, stuff):
    """One crop after the other: tokens, kinds and owners."""
    tokens, kinds, owners = [], [], []
    height, width = (int(side * options.zoom) for side in size)
    h, w = height // backbone.stride, width // backbone.stride
    laid = {"paper": paper_windows, "code": code_windows}[options.windows](h, w, options.betas)
    short = options.windows == "code"
    for j, sample in enumerate(samples):
        image = read([sample], (height, width)).images
        looked = resize(
            image, (int(height * options.prior_scale), int(width * options.prior_scale))
        )
        attention = backbone.encode(looked, want={"attention"}).attention[0].double().mean(0)
        mask = (attention > attention.mean()).numpy()
        mask = np.kron(mask, np.ones((h // len(mask),) * 2)) > 0
        for box, share in zip(laid, shares(mask[None], laid)[0], strict=True):
            if not options.prior or share > options.objects:
                kind = OBJECTS
            elif stuff and 1 - share > options.stuff_share:
                kind = STUFF
            else:
                continue
            top, left, bottom, right = (backbone.stride * end for end in box)
            crop = image[:, :, top : bottom - short, left : right - short]
            crop = resize(crop, (options.crop_size,) * 2, mode="bilinear")
            tokens.append(backbone.encode(crop, want={"cls"}).cls[0])
            kinds.append(kind)
            owners.append(j)
    return torch.stack(tokens), kinds, owners


@pytest.mark.parametrize(
    ("changes", "stuff"),
    [
        ({}, True),
        ({}, False),
        ({"windows": "code", "betas": (0.5, 0.4, 0.2)}, True),
        ({"prior": False}, True),
        ({"objects": 0.4, "stuff_share": 0.6, "zoom": 1.5}, True),
        ({"prior_scale": 0.5}, True),
    ],
    ids=["paper", "no stuff", "code", "no prior", "shares", "prior from small images"],
)
def test_crops_equal_those_cut_and_encoded_one_by_one(samples, changes, stuff):
    options, backbone = replace(SMALL, **changes), tiny_vit()
    found = find(samples, options, backbone=backbone, stuff=stuff)
    tokens, kinds, owners = by_hand(backbone, samples, options, size=SIZE, stuff=stuff)
    assert found.kinds.tolist() == kinds
    assert found.owners.tolist() == owners
    assert found.samples == samples
    assert found.cls.dtype == torch.float32
    # one half of a unit of half precision, beside the rounding of other batches
    torch.testing.assert_close(found.cls, tokens, rtol=1e-3, atol=1e-4)
    if options.prior:
        assert set(kinds) == ({OBJECTS, STUFF} if stuff else {OBJECTS})


def test_dropped_crops_are_not_encoded_and_batches_are_full(samples):
    backbone = Counting(tiny_vit())
    found = find(samples, backbone=backbone)
    pixels, kinds = lay(tiny_vit(), read(samples, (96, 128)).images, SMALL, stuff=True)
    kept = int((kinds >= 0).sum())
    assert 0 < kept < kinds.numel()
    assert len(found.cls) == kept
    forwards = backbone.forwards("cls")
    assert sum(forwards) == kept
    assert forwards[:-1] == [SMALL.crop_batch] * (len(forwards) - 1)  # across images
    assert 0 < forwards[-1] <= SMALL.crop_batch
    assert backbone.forwards("attention") == [1] * len(samples)
    assert len(pixels) == kinds.shape[1]


@pytest.mark.parametrize("crop_batch", [1, 3, 1000])
def test_the_size_of_a_forward_changes_nothing(samples, crop_batch):
    store, expected = Store(), find(samples)
    found = find(samples, replace(SMALL, crop_batch=crop_batch), store=store)
    torch.testing.assert_close(found.cls, expected.cls, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.kinds, expected.kinds)
    find(samples, store=store)
    assert len(store.computed) == 1  # nor is it a reason to encode again


def test_one_image_at_a_time_gives_the_same(samples):
    together, alone = find(samples), [find([sample]) for sample in samples]
    torch.testing.assert_close(
        together.cls, torch.cat([one.cls for one in alone]), rtol=1e-3, atol=1e-4
    )
    assert together.kinds.tolist() == [kind for one in alone for kind in one.kinds.tolist()]
    counts = torch.bincount(together.owners, minlength=len(samples))
    assert counts.tolist() == [len(one.cls) for one in alone]


@pytest.mark.parametrize(
    ("grid", "betas", "count"),
    [
        ((80, 80), (0.5, 0.4, 0.3, 0.2), 142),
        ((80, 80), (0.6, 0.5, 0.4, 0.3), 70),
        ((80, 160), (0.5, 0.4, 0.3, 0.2), 306),
        ((160, 80), (0.5, 0.4, 0.3, 0.2), 306),
    ],
    ids=["coco", "voc", "cityscapes", "lip"],
)
def test_as_many_windows_as_the_published_code(grid, betas, count):
    images = torch.zeros(1, 3, PATCH * grid[0], PATCH * grid[1], dtype=torch.uint8)
    options = Crops(windows="code", betas=betas, prior=False)
    pixels, kinds = lay(Coloured(), images, options, stuff=False)
    assert pixels.shape == (count, 4)
    assert kinds.tolist() == [[OBJECTS] * count]
    expected = PATCH * np.array(code_windows(*grid, betas)) - [0, 0, 1, 1]
    assert np.array_equal(pixels.numpy(), expected)


def test_planted_objects_and_stuff_are_sorted():
    planted = coloured_world(4)
    pure = replace(SMALL, stuff_share=0.99)  # a fifth of an object would outshine the rest
    found = find(planted, pure, backbone=Coloured(), size=(64, 64))
    codes = Coloured().codes
    for j, sample in enumerate(planted):
        label = sample.load_label()
        for kind, colour in ((OBJECTS, label.max()), (STUFF, label.min())):
            own = found.cls[(found.owners == j) & (found.kinds == kind)]
            assert len(own) > 2
            assert ((own @ codes.T).argmax(1) == colour).all()


def test_images_that_cannot_be_read(samples, tmp_path):
    mixed = [broken("a.png"), samples[0], broken("b.png", "is empty"), samples[1]]
    expected = find(samples[:2])
    for _ in range(2):  # the second time from disk
        found = find(mixed, store=Store(tmp_path))
        assert found.failures == {"a.png": "cannot be read: torn", "b.png": "is empty"}
        assert found.samples == samples[:2]
        assert torch.equal(found.owners, expected.owners)
        torch.testing.assert_close(found.cls, expected.cls)
    none = find([broken()], store=Store(tmp_path))
    assert (none.cls.shape, none.samples) == ((0, 64), [])
    assert none.failures == {"broken.png": "cannot be read: torn"}


def test_what_is_done_is_read_from_disk(samples, tmp_path):
    first = find(samples, store=Store(tmp_path))
    backbone = Counting(tiny_vit())
    again = find(samples, backbone=backbone, store=Store(tmp_path))
    assert backbone.seen == []
    assert torch.equal(first.cls, again.cls)
    assert torch.equal(first.kinds, again.kinds)
    assert torch.equal(first.cls, find(samples).cls)  # nor is it another in memory
    for changes, stuff in (({"objects": 0.4}, True), ({"crop_size": 16}, True), ({}, False)):
        store = Store(tmp_path)
        find(samples, replace(SMALL, **changes), store=store, stuff=stuff)
        assert len(store.computed) == 1


def test_without_attention_there_are_no_objects():
    found = find(coloured_world(2), backbone=Coloured(salience=0.0), size=(64, 64))
    assert (found.kinds == STUFF).all()
    none = find(coloured_world(2), backbone=Coloured(salience=0.0), size=(64, 64), stuff=False)
    assert none.cls.shape == (0, 16)
    assert len(none.samples) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_batch": 0}, "must be positive"),
        ({"crop_size": 0}, "must be positive"),
        ({"zoom": 0.0}, "must be positive"),
        ({"prior_scale": 0.0}, "must be positive"),
        ({"windows": "all"}, "Unknown rule for windows 'all'"),
        ({"betas": ()}, "Expected shares in"),
        ({"betas": (1.5,)}, "Expected shares in"),
        ({"objects": 0.1}, "sum of 1 or more"),
        ({"stuff_share": 1.1}, "thresholds in 0..1"),
    ],
)
def test_options_that_cannot_be(samples, changes, words):
    with pytest.raises(UsageError, match=words):
        check(replace(SMALL, **changes))
    with pytest.raises(UsageError, match=words):
        find(samples, replace(SMALL, **changes))


def test_windows_that_do_not_fit(samples):
    options = replace(SMALL, windows="code", betas=(0.2,))
    with pytest.raises(UsageError, match="has no window of 0.2"):
        find(samples, options, size=(16, 16))


def test_backbones_that_lack_something(samples):
    with pytest.raises(UsageError, match="attention, cls is needed|cls, attention is needed"):
        find(samples, backbone=small_bank())
    blind = Coloured(gives=("cls",))
    with pytest.raises(UsageError, match="attention is needed"):
        find(samples, backbone=blind)
    found = find(samples, replace(SMALL, prior=False), backbone=blind)
    assert (found.kinds == OBJECTS).all()


@pytest.mark.parametrize("sizes", [[], [0], [3], [2, 0, 5, 1, 9], [4, 4], [1] * 9, [8], [17]])
@pytest.mark.parametrize("size", [1, 4])
def test_parts_are_joined_to_batches(sizes, size):
    rows = torch.arange(2 * sum(sizes)).reshape(-1, 2)
    found = list(rebatched(iter(rows.split(sizes)), size))
    assert [len(part) for part in found[:-1]] == [size] * (len(found) - 1)
    assert all(0 < len(part) <= size for part in found)
    assert torch.equal(torch.cat([rows[:0], *found]), rows)
