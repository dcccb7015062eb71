"""Lloyd's algorithm and the centroid silhouette, one vector at a time in float64."""

import math

import numpy as np


def lloyd(x, centroids, *, iterations=100, tolerance=1e-5):
    """Move centroids to the means of their vectors until the inertia hardly falls any more.

    An empty cluster restarts at the vector that is served worst, the next empty one at the second
    worst, and so on. Returns centroids, labels and the mean squared distance.
    """
    x = np.asarray(x, np.float64)
    centroids = np.array(centroids, np.float64)
    labels, distances = nearest(x, centroids)
    previous = math.inf
    for _ in range(iterations):
        worst = iter(sorted(range(len(x)), key=lambda i: -distances[i]))
        for j in range(len(centroids)):
            members = [x[i] for i in range(len(x)) if labels[i] == j]
            centroids[j] = sum(members) / len(members) if members else x[next(worst)]
        labels, distances = nearest(x, centroids)
        inertia = sum(distances) / len(x)
        if previous - inertia <= tolerance * inertia:
            break
        previous = inertia
    return centroids, labels, sum(distances) / len(x)


def nearest(x, centroids):
    """Label of the nearest centroid and the squared distance to it, for every vector."""
    labels, distances = [], []
    for vector in x:
        to = [float(((vector - centroid) ** 2).sum()) for centroid in centroids]
        labels.append(int(np.argmin(to)))
        distances.append(min(to))
    return labels, distances


def silhouette(x, labels):
    """Mean over clusters of the mean of (b - a) / max(a, b), from the vectors and labels alone.

    a is the distance to the mean of the other members of the own cluster, b the distance to the
    nearest mean of another cluster; a vector that is alone scores 0.
    """
    x = np.asarray(x, np.float64)
    groups = {j: [i for i in range(len(x)) if labels[i] == j] for j in sorted(set(labels))}
    means = {j: x[members].mean(0) for j, members in groups.items()}
    by_cluster = []
    for j, members in groups.items():
        scores = []
        for i in members:
            others = [o for o in members if o != i]
            if not others:
                scores.append(0.0)
                continue
            a = np.linalg.norm(x[i] - x[others].mean(0))
            b = min(np.linalg.norm(x[i] - means[m]) for m in means if m != j)
            scores.append((b - a) / max(a, b, 1e-12))
        by_cluster.append(sum(scores) / len(scores))
    return sum(by_cluster) / len(by_cluster)
