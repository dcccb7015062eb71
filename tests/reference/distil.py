"""DeepLab's pyramid and the losses of a distillation, slow and obvious; and a planted teacher."""

import torch
import torch.nn.functional as F

from zerolabel.networks.bias import BiasConfig, rectifier


def tap(x, weight, rows, columns):
    """Every place takes what is so many rows and columns away, times one tap; zeros outside."""
    B, _, h, w = x.shape
    out = x.new_zeros(B, weight.shape[0], h, w)
    for i in range(h):
        for j in range(w):
            if 0 <= i + rows < h and 0 <= j + columns < w:
                out[:, :, i, j] = x[:, :, i + rows, j + columns] @ weight.T
    return out


def aspp(x, state, dilations, *, relu=True):
    """The sum of dilated 3x3 convolutions, norms in evaluation mode and rectifiers."""
    total = 0
    for number, dilation in enumerate(dilations):
        weight = state[f"{number}.conv.weight"]
        z = sum(
            tap(x, weight[:, :, i, j], (i - 1) * dilation, (j - 1) * dilation)
            for i in range(3)
            for j in range(3)
        )
        if f"{number}.conv.bias" in state:
            z = z + state[f"{number}.conv.bias"][:, None, None]
        if f"{number}.bn.weight" in state:
            mean, var, scale, shift = (
                state[f"{number}.bn.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            z = (z - mean) / (var + 1e-5).sqrt() * scale + shift
        total = total + (z.clamp(min=0) if relu else z)
    return total


def mask_loss(logits, labels, *, scale=1.0, ignore=255):
    """Equation 8 at every pixel (B, H, W) that counts."""
    scores = F.interpolate(scale * logits, size=labels.shape[1:], mode="bilinear")
    return F.cross_entropy(scores, labels, ignore_index=ignore)


def feature_loss(embedding, dense):
    """Equation 9 on the finer of two grids, value by value."""
    mine, taught = embedding.permute(0, 3, 1, 2), dense.permute(0, 3, 1, 2)
    size = [max(a, b) for a, b in zip(mine.shape[2:], taught.shape[2:], strict=True)]
    mine, taught = (F.interpolate(z, size=size, mode="bilinear") for z in (mine, taught))
    return (mine - taught).abs().sum() / mine.numel()


def text_loss(embedding, labels, queries, *, scale=100.0):
    """Equation 7 as the code has it: sums under masks over the number of all places, per image."""
    per_image = []
    for vectors, ids in zip(embedding, labels, strict=True):
        words = [k for k in range(len(queries)) if (ids == k).any()]
        losses = []
        for k in words:
            pooled = torch.zeros(queries.shape[1])
            for i in range(ids.shape[0]):
                for j in range(ids.shape[1]):
                    if ids[i, j] == k:
                        pooled = pooled + vectors[i, j] / vectors[i, j].norm()
            scores = scale * (pooled / ids.numel()) @ queries.T
            losses.append(torch.logsumexp(scores, 0) - scores[k])
        if words:
            per_image.append(sum(losses) / len(losses))
    return sum(per_image) / len(per_image) if per_image else torch.tensor(0.0)


# --- a planted teacher ---------------------------------------------------------------------------

WORDS, P, D, PATCH = 3, 16, 8, 16


def texts(words=WORDS, dim=P, seed=0):
    """Queries, unit rows at right angles, and references of Frobenius norm 1."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.linalg.qr(torch.randn(dim, words, generator=generator))[0].T.contiguous()
    references = torch.randn(words, dim, generator=generator)
    return queries, references / references.norm()


def teacher(*, words=WORDS, seed=0, passes=True, **settings):
    """A rectifier; its decoder passes scores on, or is random."""
    shape = {"dim": P, "width": D, "words": words, "text_dim": 4, "shared": 2}
    made = rectifier(BiasConfig(**{**shape, **settings}), seed=seed)
    if passes and made.decoder is not None:
        with torch.no_grad():
            made.decoder.conv.weight.zero_()
            made.decoder.conv.weight[:, P:, 2, 2] = torch.eye(words)
    return made


def positions(size, seed=0):
    """A position embedding (h, w, D) of images of so many pixels."""
    grid = (-(-size[0] // PATCH), -(-size[1] // PATCH))
    return torch.randn(*grid, D, generator=torch.Generator().manual_seed(seed))


def planted(seed=0, size=(48, 64), count=4):
    """Images with a patch of colour everywhere, the teacher's features, and its labels.

    Returns:
        images (B, 3, H, W), dense (B, h, w, P) of length about 3, labels (B, H, W), ids 0..2.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = (-(-size[0] // PATCH), -(-size[1] // PATCH))
    cells = torch.randint(
        0, WORDS, (count, 1 + grid[0] // 2, 1 + grid[1] // 2), generator=generator
    )
    small = F.interpolate(cells[:, None].float(), size=grid)[:, 0].long()
    labels = small.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    labels = labels[:, : size[0], : size[1]]
    images = 2.0 * torch.eye(3)[labels].permute(0, 3, 1, 2) - 1
    dense = 3 * texts()[0][small]
    noise = torch.randn(images.shape, generator=generator)
    shaken = dense + 0.2 * torch.randn(dense.shape, generator=generator)
    return images + 0.1 * noise, shaken, labels


def images_of(count, size, seed=0):
    """Noise (B, 3, H, W)."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))
