"""TransFGU's windows and shares, centre by centre and box by box."""

import numpy as np


def code_windows(h, w, betas):
    """Try every centre against the published conditions; a box has the cells within s / 2."""
    boxes = []
    for beta in betas:
        s = int(beta * min(h, w))
        half = s / 2
        for cy in range(h):
            for cx in range(w):
                if cx - half < 0 or cy - half < 0 or cx + half >= w or cy + half >= h:
                    continue
                left, right = cx == half, cx + half == w - 1
                top, bottom = cy == half, cy + half == h - 1
                if (
                    (cx % half == 0 and cy % half == 0)
                    or (cy % half == 0 and (left or right))
                    or (cx % half == 0 and (top or bottom))
                    or (right and bottom)
                ):
                    rows = [y for y in range(h) if abs(y - cy) <= half]
                    columns = [x for x in range(w) if abs(x - cx) <= half]
                    boxes.append((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    return boxes


def paper_windows(h, w, betas):
    """Step by half a side until a square reaches the far edge, and push that one back."""
    boxes = []
    for beta in betas:
        side = max(1, round(beta * min(h, w)))
        starts = []
        for length in (h, w):
            at = 0
            starts.append([])
            while at + side < length:
                starts[-1].append(at)
                at += max(1, side // 2)
            starts[-1].append(length - side)
        boxes += [(y, x, y + side, x + side) for y in starts[0] for x in starts[1]]
    return boxes


def shares(mask, boxes):
    """Mean of a mask over each box."""
    return np.array([[image[t:b, x:y].mean() for t, x, b, y in boxes] for image in mask])
