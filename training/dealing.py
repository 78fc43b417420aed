"""How images are dealt out to roles, by content and class, with what belongs together kept so.

Roles are numbers here; role 0 (training) gets what the others leave. Images are dealt in the
order of sha256(seed, id), which depends on neither file names nor the order of files.

Shapes: N images, K classes, R roles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Indices = npt.NDArray[np.int64]


def keep_together(groups: Sequence[str], clusters: Indices) -> Indices:
    """Join clusters that share a group: int64 (N,), equal for images that stay together.

    Args:
        groups: N group names, empty where there is none.
        clusters: (N,), equal for images that stay together already.
    """
    first: dict[str, int] = {}
    edges = [(first.setdefault(group, index), index) for index, group in enumerate(groups) if group]
    # Cluster numbers are nodes beside the images: N + cluster.
    nodes = len(groups) + int(clusters.max(initial=0)) + 1
    grouped = np.asarray(edges, np.int64).reshape(-1, 2)
    rows = np.concatenate([grouped[:, 0], np.arange(len(groups))])
    columns = np.concatenate([grouped[:, 1], len(groups) + clusters])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(nodes, nodes))
    joined = connected_components(graph, directed=False)[1][: len(groups)]
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)


def quotas(labels: Indices, shares: Sequence[float], *, class_count: int) -> Indices:
    """How many images of each class each role should get: int64 (R, K).

    The total of role r >= 1 is round(share_r * N); its classes get share_r * N_y rounded down
    or up (largest remainders). Role 0 gets the rest, at least one image of every class.
    """
    sizes = np.bincount(labels, minlength=class_count)
    table = np.zeros((len(shares), class_count), np.int64)
    free = np.maximum(sizes - 1, 0)
    for role, share in enumerate(shares[1:], start=1):
        exact = share * sizes
        given = np.minimum(np.floor(exact + 1e-9).astype(np.int64), free)
        missing = round(share * len(labels)) - int(given.sum())
        remainders = np.where(free > given, exact - given, -1.0)
        for label in np.argsort(-remainders, kind="stable")[: max(missing, 0)]:
            given[label] += int(remainders[label] > 0)
        table[role] = given
        free = free - given
    table[0] = sizes - table.sum(axis=0)
    return table


def deal(
    ids: Sequence[str],
    labels: Indices,
    clusters: Indices,
    shares: Sequence[float],
    *,
    seed: int,
) -> Indices:
    """Deal images out to roles 0 ... R-1: int64 (N,).

    First the clusters that are large beside a role's quota (over a tenth of it), the largest
    first, each to the role that lacks the largest share of its quota; then the small ones, each
    to a role drawn with the roles' shares if it fits there; then single images fill every quota
    exactly. Large groups can overshoot a quota, but every role gets its turn before any gets a
    second group.

    Args:
        ids: N content ids.
        labels: (N,).
        clusters: (N,), equal for images that stay together.
        shares: Shares of the R roles; the first is not read, role 0 gets what is left.
        seed: Seed of the order.
    """
    class_count = int(labels.max(initial=0)) + 1
    target = quotas(labels, shares, class_count=class_count)
    left = target.copy()
    totals = target.sum(axis=1)
    order = np.argsort(np.array([_rank(seed, key) for key in ids], np.uint64), kind="stable")
    roles = np.full(len(ids), -1, np.int64)

    def give(members: Indices, role: int) -> None:
        roles[members] = role
        np.subtract.at(left[role], labels[members], 1)

    sizes = np.bincount(clusters)
    members: dict[int, list[int]] = {}
    for index in order[sizes[clusters[order]] > 1]:
        members.setdefault(int(clusters[index]), []).append(int(index))
    groups = [np.asarray(indices, np.int64) for indices in members.values()]
    threshold = totals[totals > 0].min() / 10 if len(ids) else 0.0
    large = sorted((g for g in groups if len(g) > threshold), key=len, reverse=True)
    for group in large:
        give(group, _neediest(left, target, labels[group]))
    cumulative = np.cumsum(totals / max(totals.sum(), 1))
    for group in (g for g in groups if len(g) <= threshold):
        needed = np.bincount(labels[group], minlength=class_count)
        draw = _rank(seed, "draw " + ids[group[0]]) / 2.0**64
        role = min(int(np.searchsorted(cumulative, draw, side="right")), len(totals) - 1)
        fits = bool((left[role] >= needed).all())
        give(group, role if fits else _neediest(left, target, labels[group]))

    for label in range(class_count):
        single = order[(roles[order] < 0) & (labels[order] == label)]
        for role in range(1, len(totals)):
            taken, single = np.split(single, [max(int(left[role, label]), 0)])
            give(taken, role)
        give(single, 0)
    return roles


def _neediest(left: Indices, target: Indices, labels: Indices) -> int:
    """The role that lacks the largest shares of its quotas, in a cluster's classes and in all."""
    classes = np.unique(labels)
    in_classes = left[:, classes].sum(axis=1) / np.maximum(target[:, classes].sum(axis=1), 1)
    total = target.sum(axis=1)
    in_all = left.sum(axis=1) / np.maximum(total, 1)
    # Classes can lie in groups of their own: a role that has nothing yet goes before balance.
    untouched = left.sum(axis=1) == total
    need = in_classes + in_all + 2 * untouched
    return int(np.argmax(np.where(total > 0, need, -np.inf)))


def _rank(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
