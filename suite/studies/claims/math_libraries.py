"""The accuracy of exp and log in float32: glibc, torch, numpy and jax against what they publish, in ulps.

ulp(y) = 2^(max(floor(log2 |y|), -126) - 23) of the exact y (Muller, RR-5504); 0.5 is correct
rounding. The reference is numpy's float64 function, itself good to a few ulps of float64, that is
10^-8 ulp of float32. Results below 2^-125 are left out: one that is a little low may be flushed to
0, as jax's exp2(-126) is, an error of 2^23 ulps that is not counted here.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import float32
from suite.studies.claims import Finding, NotRunHereError, claim, same_digits

Singles = NDArray[np.float32]
Function = Callable[[Singles], Any]
Ranges = tuple[tuple[int, int], ...]

CHUNK = 2**20
SAMPLE = 2**22
SCALAR_SAMPLE = 2**20  # a function called number by number, half a microsecond each


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Float32 bit patterns, ends included. dense: ranges that a sample contains whole, placed where
    larger runs found the largest errors: a sample's maximum owes something to them."""

    ranges: Ranges
    dense: Ranges = ()

    def size(self) -> int:
        return sum(stop - start + 1 for start, stop in self.ranges)

    def numbers(self, points: int | None) -> Iterator[Singles]:
        """All numbers, or about `points` equally spaced in their order as bits, then the dense
        ranges; in chunks.
        """
        stride = 1 if points is None else max(1, self.size() // points)
        for ranges, step in ((self.ranges, stride), (self.dense if points is not None else (), 1)):
            for start, stop in ranges:
                for low in range(start, stop + 1, CHUNK * step):
                    yield (
                        np.arange(low, min(low + CHUNK * step, stop + 1), step)
                        .astype(np.uint32)
                        .view(np.float32)
                    )


# Below 2^-26 exp(x) rounds to 1 and log1p(x) to x in any implementation that is good to an ulp.
TINY = 2.0**-26
DOMAINS = {
    "exp": Domain(
        ranges=((_bits(TINY), _bits(88.72283)), (_bits(-TINY), _bits(-86.64))),
        dense=((_bits(-62), _bits(-62.25)), (_bits(-0.00695), _bits(-0.00696))),
    ),
    "exp2": Domain(ranges=((_bits(TINY), _bits(127.99999)), (_bits(-TINY), _bits(-125)))),
    "log": Domain(
        ranges=((_bits(2.0**-126), 0x7F7FFFFF),),
        dense=((_bits(0.78125), _bits(0.796875)), (_bits(0.9375), _bits(1.0625))),
    ),
    "log1p": Domain(
        ranges=((_bits(TINY), 0x7F7FFFFF), (_bits(-TINY), _bits(-1) - 1)), dense=((_bits(0.25), _bits(0.5)),)
    ),
}


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest error of a function."""

    ulp: float

    at: float
    """The argument that has it."""

    count: int
    """Over how many numbers."""

    complete: bool
    """Whether those are all."""

    def __str__(self) -> str:
        numbers = (
            f"all {self.count} numbers" if self.complete else f"a lower bound, from {self.count} numbers"
        )
        return f"at {self.at!r}; {numbers}"

    def decide(self, agrees: bool, published: str) -> bool | None:
        """A sample's maximum below the published one decides nothing."""
        return None if not agrees and not self.complete and self.ulp < float(published) else agrees


def largest_ulp(function: Function, name: str, *, points: int | None) -> Worst:
    """The largest error of a float32 `function` for np.<name>, on about `points` numbers of its
    domain; on all for None.
    """
    worst, at, count = 0.0, 0.0, 0
    for x in DOMAINS[name].numbers(points):
        exact = getattr(np, name)(x.astype(np.float64))
        error = np.abs(np.asarray(function(x), dtype=np.float64) - exact) / float32.ulp(exact)
        error[np.isnan(error)] = np.inf
        index = int(error.argmax())
        if error[index] > worst:
            worst, at = float(error[index]), float(x[index])
        count += len(x)
    return Worst(worst, at, count, points is None)


def glibc(name: str) -> Function:
    """The C library's float32 function. Raises NotRunHereError where there is no glibc."""
    try:
        scalar = getattr(ctypes.CDLL("libm.so.6"), name + "f")
    except (OSError, AttributeError):
        raise NotRunHereError("needs glibc (libm.so.6)") from None
    scalar.restype, scalar.argtypes = ctypes.c_float, [ctypes.c_float]
    return lambda x: np.fromiter(map(scalar, x.tolist()), np.float32, len(x))


def _declare_glibc(name: str, published: str, minutes: float) -> None:
    @claim(
        name=f"glibc-{name}f",
        source=f"source comment of glibc's {name}f, from Arm's optimized routines",
        stated=f"glibc's {name}f has this largest error, in ulps.",
        published=published,
        criterion="equal to the printed digits; a sample whose maximum is smaller decides nothing",
        seconds=2,
        exhaustive_seconds=60 * minutes,
    )
    def measure(points: int | None = SCALAR_SAMPLE) -> Finding:
        worst = largest_ulp(glibc(name), name, points=points)
        agrees = worst.decide(same_digits(worst.ulp, published), published)
        return Finding(
            measured=f"{worst.ulp:.4f}", agrees=agrees, note=f"{worst}; {' '.join(platform.libc_ver())}"
        )


_declare_glibc("exp", "0.502", 5)
_declare_glibc("exp2", "0.502", 5)
_declare_glibc("log", "0.818", 20)


def _torch(name: str) -> Function:
    import torch

    return lambda x: getattr(torch, name)(torch.from_numpy(x)).numpy()


def _declare_torch(name: str) -> None:
    @claim(
        name=f"torch-{name}",
        source=(
            "SLEEF's documentation: at most 1.0 ULP for the suffix u10, which torch's vectors call where MKL"
            " is not used"
        ),
        stated=f"torch.{name} in float32 on the CPU is good to 1 ulp.",
        published="at most 1.0",
        criterion="no number that was tried has an error above 1.0 ulp",
        seconds=0.5,
        exhaustive_seconds=130,
    )
    def measure(points: int | None = SAMPLE) -> Finding:
        import torch

        worst = largest_ulp(_torch(name), name, points=points)
        capability = torch.backends.cpu.get_cpu_capability()
        note = f"{worst}; torch {torch.__version__}, CPU capability {capability}"
        return Finding(measured=f"{worst.ulp:.4f}", agrees=worst.ulp <= 1.0, note=note)


for _name in ("exp", "exp2", "log", "log1p"):
    _declare_torch(_name)


def numpy_capability(name: str) -> str:
    """Which of its instruction sets numpy uses for this function in float32."""
    introspect = getattr(np.lib, "introspect", None)
    if introspect is None:
        return f"numpy {np.__version__}, which does not name its dispatch"
    information = introspect.opt_func_info(func_name=f"^{name}$", signature="^float32$")
    sets = {signature["current"] for signatures in information.values() for signature in signatures.values()}
    return f"numpy {np.__version__}, dispatched to {' '.join(sorted(sets)) or 'its baseline'}"


def _declare_numpy(name: str, published: str) -> None:
    @claim(
        name=f"numpy-{name}",
        source="numpy 1.17.0 release notes, with AVX2 or AVX-512",
        stated=f"numpy.{name} in float32 has this largest error, in ulps.",
        published=published,
        criterion="equal to the printed digits; a sample whose maximum is smaller decides nothing",
        seconds=0.5,
        exhaustive_seconds=130,
    )
    def measure(points: int | None = SAMPLE) -> Finding:
        worst = largest_ulp(getattr(np, name), name, points=points)
        agrees = worst.decide(same_digits(worst.ulp, published), published)
        return Finding(measured=f"{worst.ulp:.4f}", agrees=agrees, note=f"{worst}; {numpy_capability(name)}")


_declare_numpy("exp", "2.52")
_declare_numpy("log", "3.83")


def rounds_up_to(worst: float, published: str) -> bool:
    """Whether a table in steps of half an ulp, rounded up, would print `published` for this error."""
    return float(published) - 0.5 < worst <= float(published)


def _declare_jax(name: str, published: str) -> None:
    @claim(
        name=f"jax-{name}",
        source="JAX documentation, docs.jax.dev/en/latest/accuracy.html, float32, CPU x86_64",
        stated=(
            f"jax.lax.{name} in float32 on the CPU has this largest error, in ulps, in a table in steps of"
            " 0.5."
        ),
        published=published,
        criterion=(
            "in the half ulp that ends at the printed number; a sample whose maximum is smaller decides"
            " nothing"
        ),
        seconds=2,
        exhaustive_seconds=130,
    )
    def measure(points: int | None = SAMPLE) -> Finding:
        try:
            import jax
        except ImportError:
            raise NotRunHereError("needs jax") from None
        function = jax.jit(getattr(jax.lax, name), backend="cpu")
        worst = largest_ulp(function, name, points=points)
        agrees = worst.decide(rounds_up_to(worst.ulp, published), published)
        return Finding(measured=f"{worst.ulp:.4f}", agrees=agrees, note=f"{worst}; jax {jax.__version__}")


_declare_jax("exp", "1.5")
_declare_jax("exp2", "68.5")
_declare_jax("log", "1.5")
_declare_jax("log1p", "3.0")


@claim(
    name="cuda-expf-intrinsic",
    source="CUDA C++ Programming Guide, table of intrinsic functions (read in copies)",
    published="2 + floor(|1.173 x|)",
    criterion="no error above the published bound",
    seconds=0,
)
def cuda_intrinsic() -> Finding:
    """CUDA's __expf(x) is good to 2 + floor(|1.173 x|) ulps."""
    raise NotRunHereError("needs CUDA and a kernel around __expf, which this suite does not have yet")
