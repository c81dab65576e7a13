"""The identity of this machine and its software, as recorded with every run. Host and user names
are never part of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = (
    "torch", "numpy", "scipy", "mpmath", "python-flint", "pandas", "pytest", "hypothesis",
    "triton", "jax", "onnxruntime", "onnx",
)  # fmt: skip


@functools.cache
def cpu_model() -> str:
    """The CPU's model name, as the operating system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a device file, read line by line
            for line in lines:
                if line.startswith(("model name", "Hardware")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result; those not installed are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def numpy_identity() -> str:
    """A short name of what decides numpy's exp and log: its version, the CPU and the dispatch switches."""
    import numpy

    switches = os.environ.get("NPY_DISABLE_CPU_FEATURES", "")
    text = f"{numpy.__version__}|{cpu_model()}|{platform.machine()}|{platform.libc_ver()}|{switches}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def probe(device: str = "cpu") -> dict[str, Any]:
    """Reads this machine's identity: one flat dictionary, JSON-ready, with `env_id`, a hash of what
    can change a result.
    """
    from suite.floating_point import subnormals_are_flushed
    from suite.version import __version__

    facts: dict[str, Any] = {
        "suite_version": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "packages": package_versions(),
        "device": device,
        "subnormals_flushed": subnormals_are_flushed(),
    }
    if "torch" in sys.modules:
        facts |= _torch_facts(sys.modules["torch"], device)
    identity = {key: value for key, value in facts.items() if key not in ("cpu_count", "suite_version")}
    facts["env_id"] = hashlib.blake2b(
        json.dumps(identity, sort_keys=True).encode(), digest_size=6
    ).hexdigest()
    return facts


def matmul_precision(torch: Any) -> str:
    """torch's switch for the products of all backends; "mixed" where some were set alone, of which
    torch does not tell.
    """
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return "mixed"


def _torch_facts(torch: Any, device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": matmul_precision(torch),
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_capability": f"{properties.major}.{properties.minor}",
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
        }
    return facts
