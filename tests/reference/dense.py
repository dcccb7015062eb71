"""Places of patches and readings between them, one at a time."""


def centre(box, flip, grid, row, column):
    """Row and column, in units of the image's side, of the middle of a patch of a view."""
    top, left, height, width = box
    if flip:
        column = grid - 1 - column
    return top + (row + 0.5) / grid * height, left + (column + 0.5) / grid * width


def read(tokens, box, flip, place):
    """Bilinear reading of a view's patches (g, g, D) at a place of the image."""
    grid = len(tokens)
    top, left, height, width = box
    y, x = (place[0] - top) / height, (place[1] - left) / width
    if flip:
        x = 1 - x
    y, x = (min(max(v * grid - 0.5, 0), grid - 1) for v in (y, x))
    above, before = min(int(y), grid - 2), min(int(x), grid - 2)
    dy, dx = y - above, x - before
    return (
        (1 - dy) * (1 - dx) * tokens[above][before]
        + (1 - dy) * dx * tokens[above][before + 1]
        + dy * (1 - dx) * tokens[above + 1][before]
        + dy * dx * tokens[above + 1][before + 1]
    )


def inside(box, place):
    top, left, height, width = box
    return top < place[0] < top + height and left < place[1] < left + width
