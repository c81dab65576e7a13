"""Tests that need an optional package are skipped where it is missing, with the line that installs it."""

import importlib.util

import pytest

EXTRA = {
    "triton": "triton",
    "jax": "zoo",
    "onnxruntime": "zoo",
    "onnx": "zoo",
    "scipy": "zoo",
    "psutil": "env",
}
"""The extra of this project that installs a package."""


def missing(*packages: str) -> str | None:
    """None where all are installed, or the reason of the skip."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'softmax-suite[{EXTRA[package]}]'"
    return None


def needs(*packages: str) -> None:
    """Skips the test that calls it, or at the top of a file all of its tests, where a package is missing."""
    reason = missing(*packages)
    if reason is not None:
        pytest.skip(reason, allow_module_level=True)
