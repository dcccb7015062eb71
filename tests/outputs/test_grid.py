import numpy as np

from zerolabel.outputs.grid import GAP, MARGIN, SIDE, class_colours, draw_grid


def test_no_class_looks_like_another() -> None:
    names = ["background", *(f"class {i}" for i in range(170))]
    colours = class_colours(names)
    assert colours.shape == (173, 3)
    assert len(np.unique(colours, axis=0)) == 173
    greys = np.flatnonzero(np.ptp(colours.astype(int), axis=1) == 0)
    assert greys.tolist() == [0, 171, 172]  # background, no class, not scored
    assert (class_colours(names[:20])[:20] == colours[:20]).all()


def test_pictures_stand_in_rows_and_columns() -> None:
    red, blue = (np.full((90, SIDE, 3), rgb, np.uint8) for rgb in ((250, 0, 0), (0, 0, 250)))
    tall = np.full((SIDE, 80, 3), (0, 250, 0), np.uint8)
    titles = ["photo", "a title that is far too long for one line of this narrow column"]
    legend = {f"class {i}": (i, i, 99) for i in range(60)}
    figure = draw_grid([[red, blue], [tall, tall]], titles=titles, legend=legend, caption="words")
    assert figure.shape[1] == 2 * SIDE + GAP + 2 * MARGIN
    places = [np.argwhere((figure == rgb).all(axis=2)) for rgb in ((250, 0, 0), (0, 0, 250))]
    for column, found in enumerate(places):
        top, left = found.min(axis=0)
        bottom, right = found.max(axis=0)
        # all but the line around it
        assert (bottom - top + 1, right - left + 1) == (88, SIDE - 2)
        assert left == MARGIN + column * (SIDE + GAP) + 1
    green = np.argwhere((figure == (0, 250, 0)).all(axis=2))
    assert len(green) == 2 * 78 * (SIDE - 2)
    assert green[:, 0].min() > places[0][:, 0].max()
    first = green[green[:, 1] < SIDE + MARGIN]
    assert first[:, 1].min() - MARGIN == (SIDE - 80) // 2 + 1  # in the middle of its column
    for rgb in ((0, 0, 99), (59, 59, 99)):  # first and last of a legend of several lines
        assert (figure == rgb).all(axis=2).any()
