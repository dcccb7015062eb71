"""The losses of self-distillation, one pair, row and entry at a time."""

import math

import torch


def dino(student, teacher, *, centre, teacher_temperature, student_temperature, same):
    """Caron et al. 2021, eq. 3: `same(t, s)` says whether two views are the same one."""
    losses = []
    for t, told in enumerate(teacher):
        p = ((told - centre) / teacher_temperature).softmax(-1)
        for s, said in enumerate(student):
            if not same(t, s):
                log_q = (said / student_temperature).log_softmax(-1)
                losses.append(-(p * log_q).sum(-1).mean())
    return sum(losses) / len(losses)


def sinkhorn(cosines, *, temperature, iterations):
    """Scale columns, then rows, of exp(cosine / temperature); lists of lists."""
    q = [[math.exp(x / temperature) for x in row] for row in cosines.tolist()]
    rows, columns = len(q), len(q[0])
    for _ in range(iterations):
        sums = [sum(q[i][k] for i in range(rows)) for k in range(columns)]
        q = [[q[i][k] / sums[k] / columns for k in range(columns)] for i in range(rows)]
        q = [[x / sum(row) / rows for x in row] for row in q]
    return [[x * rows for x in row] for row in q]


def infonce(student, teacher, *, temperature):
    losses = []
    for i, row in enumerate(student):
        scores = [torch.dot(row, other) / temperature for other in teacher]
        total = sum(torch.exp(score) for score in scores)
        losses.append(-torch.log(torch.exp(scores[i]) / total))
    return sum(losses) / len(losses)


def coding_rate(student, teacher, *, epsilon):
    """Negative mean cosine of partners minus the scaled coding rate, by the log-determinant."""
    n, d = student.shape
    agreement = sum(torch.dot(a, b) for a, b in zip(student, teacher, strict=True)) / n
    second = sum(torch.outer(z, z) for z in student)
    eye = torch.eye(d, dtype=student.dtype)
    rate = 0.5 * torch.linalg.slogdet(eye + d / (n * epsilon) * second).logabsdet
    return -agreement - rate * (d + n) / (d * n)


def koleo(embeddings):
    z = [x / x.norm() for x in embeddings]
    losses = []
    for i, a in enumerate(z):
        distances = [(a - b).norm() for j, b in enumerate(z) if j != i]
        losses.append(-torch.log(min(distances)))
    return sum(losses) / len(losses)
