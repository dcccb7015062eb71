"""Bicubic interpolation as matrix products: the same as torch's, whatever the grids are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zerolabel.jobs.exporting.bicubic import FAR, NEAR, A, bicubic
from zerolabel.jobs.exporting.graph import trace

pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")
GRIDS = [(5, 7), (1, 1), (1, 9), (10, 14), (3, 2), (40, 1), (6, 6)]


class Places(nn.Module):
    """Interpolates what it holds to a quarter of the image's sides."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.held = nn.Parameter(torch.randn(1, 3, 5, 7, generator=generator))

    def forward(self, image):
        size = tuple(side // 4 for side in image.shape[2:])
        return F.interpolate(self.held, size=size, mode="bicubic").expand(len(image), -1, -1, -1)


def test_the_kernel_is_that_of_the_paper():
    """Eq. 4 of Keys: 1 at 0, 0 at 1 and 2, smooth at 1, and flat at 0 and 2."""
    near, far = np.poly1d(NEAR), np.poly1d(FAR)
    assert (near(0), near(1), far(1), far(2)) == (1, 0, 0, 0)
    assert near.deriv()(0) == 0 == far.deriv()(2)
    assert near.deriv()(1) == far.deriv()(1) == A


def test_other_ways_are_refused():
    with pytest.raises(NotImplementedError):
        bicubic(None, None, True)
    with pytest.raises(NotImplementedError):
        bicubic(None, None, False, [2.0, 2.0])


@pytest.mark.slow
def test_places_are_those_of_torch():
    net = Places().eval()
    graph = trace(net, (20, 28))
    assert "Resize" not in {node.op_type for node in graph.graph.node}
    session = runtime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for h, w in GRIDS:
        image = torch.zeros(2, 3, 4 * h + 1, 4 * w + 3)
        [found] = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, net(image).numpy(), atol=1e-5)
