"""Squares of photos: which, how often, and that they are encoded once."""

from dataclasses import replace

import pytest
import torch
from planted_clip import planted_clip, planted_photos

from zerolabel.errors import DataError, ImageError
from zerolabel.stages.views import Library, Views, readable
from zerolabel.store import Store
from zerolabel.types import Sample

CLIP = planted_clip(noise=0.1)
PHOTOS = planted_photos(21, size=(48, 64))
VIEWS = Views(short=32, crop=32, views=2, batch=4)


@pytest.mark.parametrize(("photos", "batch"), [(21, 4), (21, 1), (21, 32), (3, 4), (16, 5)])
def test_an_epoch_sees_every_photo_once(photos, batch):
    library = Library(CLIP, PHOTOS[:photos], replace(VIEWS, batch=batch), store=Store())
    for epoch in range(2):
        steps = range(epoch * library.epoch, (epoch + 1) * library.epoch)
        rows = [row for step in steps for row in library.page(step).rows.tolist()]
        assert sorted(rows) == list(range(photos))


def test_a_page_has_the_features_of_its_squares():
    library = Library(CLIP, PHOTOS, VIEWS, store=Store())
    for step in (0, 3, 7):
        page = library.page(step)
        expected = CLIP.encode(library.pixels(page), want={"dense"}).dense
        torch.testing.assert_close(page.dense, expected, atol=2e-2, rtol=2e-3)


def test_steps_are_the_same_in_any_order_and_after_a_break(tmp_path):
    pages = [Library(CLIP, PHOTOS, VIEWS, store=Store(tmp_path)).page(s) for s in (9, 2, 5)]
    library = Library(CLIP, PHOTOS, VIEWS, store=Store())
    for page, step in zip(pages, (9, 2, 5), strict=True):
        again = library.page(step)
        assert torch.equal(page.rows, again.rows)
        assert torch.equal(page.dense, again.dense)


def test_epochs_take_turns_with_the_views_and_encode_nothing_twice():
    store = Store()
    library = Library(CLIP, PHOTOS, VIEWS, store=store)
    for step in range(2 * library.epoch):
        library.page(step)
    done = len(store.computed)
    assert done == 4  # two views, two shelves each
    for step in range(2 * library.epoch, 4 * library.epoch):
        library.page(step)
    assert len(store.computed) == done


def test_without_views_every_epoch_draws_new_squares_and_keeps_none():
    store = Store()
    library = Library(CLIP, PHOTOS[:2], replace(VIEWS, views=0), store=store)
    first, second = (
        {row: image for page in [library.page(step)] for row, image in squares(library, page)}
        for step in range(2)
    )
    assert not torch.equal(first[0], second[0])
    assert not store.computed


def squares(library, page):
    return zip(page.rows.tolist(), library.pixels(page), strict=True)


def test_a_batch_of_another_size_shares_what_was_encoded():
    store = Store()
    for batch in (4, 2):
        Library(CLIP, PHOTOS, replace(VIEWS, batch=batch, views=1), store=store).page(0)
    assert len(store.computed) <= 2  # at most both shelves of the one view


def test_photos_that_can_be_read_are_found_once(tmp_path):
    def torn():
        raise ImageError("torn")

    broken = Sample("torn.png", torn, lambda: "torn")
    store = Store(tmp_path)
    assert readable([*PHOTOS[:2], broken], store=store) == PHOTOS[:2]
    assert readable([*PHOTOS[:2], broken], store=Store(tmp_path)) == PHOTOS[:2]
    with pytest.raises(DataError, match="None of the images"):
        readable([broken], store=Store())
