"""Bad kernels: sources that cannot be imported, called or judged, and those that end or hang their
process.
"""

import builtins

from tests.soak.generators import NARROW, Try, options_of, spoiled

_BODIES = """\
return VALUE
---
raise ERROR
---
print(TEXT); return torch.softmax(x, dim)
---
import sys, os; os.write(2, b'x' * 100000); sys.stderr.write('y' * 1000000); return torch.softmax(x, dim)
---
return f(x, dim)
---
import warnings; warnings.warn(TEXT); return torch.softmax(x, dim)
---
x.mul_(0); return torch.softmax(x, dim)
---
x.resize_(1); return torch.softmax(x, dim)
---
import no_such_module; return x
---
import sys; sys.exit(TEXT)
---
import sys; sys.stdout.close(); return torch.softmax(x, dim)
---
import sys; sys.stdout = sys.stderr = None; return torch.softmax(x, dim)
---
import sys; sys.modules.pop('suite.verdict.judge', None); return torch.softmax(x, dim)
---
import os; os.makedirs('elsewhere', exist_ok=True); os.chdir('elsewhere'); return torch.softmax(x, dim)
---
import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); return torch.softmax(x, dim)
---
import os; os.environ['X\\udcff'] = 'y'; return torch.softmax(x, dim)
---
import warnings; warnings.simplefilter('error'); return torch.softmax(x, dim)
---
import sys; sys.setrecursionlimit(60); return torch.softmax(x, dim)
"""
BODIES = _BODIES.strip().split("\n---\n")
"""Of f(x, dim=-1); VALUE, ERROR and TEXT stand for one of those below."""

VALUES = (
    'None', '1', "'x'", 'x.numpy()', '[x]', '(x, x)', '{}', 'x', 'x.t()', 'x[:1]', 'x.double()',
    'x.to(torch.complex64)', 'x > 0', 'x.int()', 'x.to_sparse()', "x.to('meta')", 'torch.empty(0)',
    'torch.tensor(1.0)', 'torch.nn.Parameter(x)', 'x.expand(3, *x.shape)', 'object()', 'f', 'torch.softmax',
    "torch.full_like(x, float('nan'))", "torch.full_like(x, float('inf'))", 'x.as_strided(x.shape, (0, 0))',
    'torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)', 'type(x)', 'iter([x])', '(y for y in [x])',
    'x.requires_grad_()', 'torch.softmax(x.requires_grad_(), dim)', 'Odd()', 'x.as_subclass(Sub)',
    'torch.softmax(x, dim).as_subclass(Sub)', 'NotImplemented', '...', 'torch.zeros(x.shape).conj()',
    'torch.softmax(x, dim).to(torch.bfloat16)', 'torch.softmax(x, dim).flip(0)', "float('nan')",
    'x.untyped_storage()', 'torch.softmax(x, dim)[None]', 'torch.nested.nested_tensor([x])',
    'torch.softmax(x, dim).t().contiguous().t()', 'torch._efficientzerotensor(x.shape)', 'torch.empty(10**7)',
)  # fmt: skip

BUILTIN = tuple(
    f"{name}('bad')"
    for name, kind in sorted(vars(builtins).items())
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not name.startswith(("Unicode", "ExceptionGroup"))
)
ERRORS = (
    "UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad')", 'SystemExit(0)', "SystemExit('bye')",
    'SystemExit(None)', 'GeneratorExit()', 'Silent()', 'Silent', 'Unprintable()', "ValueError('\\ud800')",
    "ValueError('\\n' * 1000)", "ValueError('x' * 1000000)", 'ValueError()', "ValueError(b'\\xff')",
    "ExceptionGroup('many', [ValueError(1)])", "torch.OutOfMemoryError('out')", "RuntimeError('a\\0b')", '5',
    'StopIteration(x)', 'MemoryError()', "BaseException('base')", 'AssertionError',
    "NotImplementedError('no')", "KeyError('\\x1b[2J')", "type('\\n', (ValueError,), {})()",
)  # fmt: skip

TEXTS = (
    "''", "'x' * 10_000_000", "'\\ud800'", "'\\0'", "'\\x1b[2J'", "'Trace' 'back'", "b'\\xff'", "'<script>'",
    '7', "'\\r' * 1000", "'日本'",
)  # fmt: skip

PRELUDE = """\
import torch

class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Unprintable(BaseException):
    def __str__(self):
        return None
    __repr__ = __str__

class Sub(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ in ("__get__", "detach", "cpu", "numpy"):
            raise RuntimeError("not this one")
        return super().__torch_function__(function, types, args, kwargs or {})

class Odd:
    def __getattr__(self, name):
        raise RuntimeError("no attribute " + name)
    def __repr__(self):
        raise ValueError("no repr")

"""

_SOURCES = """\
def f(:
---
def f(x, dim=-1):
return x
---
import no_such_module
---
from suite import nothing
---
raise ValueError('at import')
---
import sys
sys.exit(0)
---
import sys
sys.exit('bye')
---
raise KeyboardInterrupt
---
raise SystemExit
---
raise BaseException('base')
---
raise GeneratorExit
---
class Silent(Exception):
    def __str__(self):
        raise RuntimeError
raise Silent
---
1/0
---
f = 5
---
f = None
---
f = []
---
class f:
    pass
---
class f:
    def __init__(self, x, dim=-1):
        pass
---
f = lambda x, dim=-1: x.softmax(dim)
---
f = lambda: 0
---
def f(x, dim=-1):
    yield x
---
async def f(x, dim=-1):
    return x
---
async def f(x, dim=-1):
    yield x
---
def f():
    return 1
---
def f(x):
    return x.softmax(-1)
---
def f(x, dim, other):
    return x
---
def f(*, x):
    return x
---
def f(*a, **k):
    return a[0]
---
def f(x, axis=-1):
    return x
---
def f(a, b, c, d):
    pass
---
from functools import partial
import torch
f = partial(torch.softmax, dim=-1)
---
import torch
f = torch.nn.Softmax(-1)
---
import torch
f = torch.jit.script(torch.nn.Softmax(-1))
---
f = print
---
f = type
---
f = int
---
import sys
sys.modules[__name__] = None
def f(x, dim=-1):
    return x
---
def __getattr__(name):
    raise RuntimeError(name)
---
def __getattr__(name):
    return lambda x, dim=-1: x.softmax(dim)
---
class C:
    def __call__(self, x, dim=-1):
        return x.softmax(dim)
    def __getattr__(self, name):
        raise RuntimeError(name)
f = C()
---
class C:
    def __call__(self, x, dim=-1):
        return x.softmax(dim)
    def __getattr__(self, name):
        return self
f = C()
---
class C:
    __signature__ = 5
    def __call__(self, x, dim=-1):
        return x.softmax(dim)
f = C()
---
class C:
    @property
    def __signature__(self):
        raise RuntimeError('sig')
    def __call__(self, x, dim=-1):
        return x.softmax(dim)
f = C()
---
def f(x, dim=-1):
    return x.softmax(dim)
f.__wrapped__ = f
---
def f(x, dim=-1):
    return x.softmax(dim)
f.__softmax_suite_kernels__ = 5
---
def f(x, dim=-1):
    return x.softmax(dim)
f.__softmax_suite_kernels__ = {'softmax': 5}
---
def f(x, dim=-1):
    return x.softmax(dim)
f.__softmax_suite_kernels__ = {5: 5, 'softmax': None}
---
def f(x, dim=-1):
    return x.softmax(dim)
f.__name__ = '<b>'
__file__ = '/nowhere'
---
from suite import kernel
@kernel('softmax')
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('nosuch')
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', dtypes=('float33',))
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', adapter='nosuch')
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', dtypes=5)
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', requires=('no_such_package',))
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', requires=(5,))
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', requires=('a.b.c',))
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', devices=(None,))
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', numerics=5)
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('softmax', semantics=5)
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('softmax', domain=5)
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('softmax', domain=lambda *a: 1/0)
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('softmax', name=5)
def f(x, dim=-1):
    return x.softmax(dim)
---
from suite import kernel
@kernel('softmax', domain=lambda facts, format: None)
def f(x, dim=-1):
    return x * 0
---
from suite import kernel
@kernel
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('logsumexp')
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', adapter='numpy')
def f(x, dim=-1):
    return None
---
from suite import kernel
@kernel('softmax', adapter='jax')
def f(x, dim=-1):
    return x
---
from suite import kernel
@kernel('softmax', slow='x', name='')
def f(x, dim=-1):
    return x.softmax(dim)
---
# coding: nosuch
def f(x, dim=-1):
    return x
---
# coding: utf-16
---
print('x' * 10_000_000)
def f(x, dim=-1):
    return x.softmax(dim)
---
import os
os.close(1)
def f(x, dim=-1):
    return x.softmax(dim)
---
[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
---
def f(x, dim=-1):
  if x is not None:
    return x
---
import sys
sys.path.clear()
def f(x, dim=-1):
    return x.softmax(dim)
---
import builtins
def f(x, dim=-1):
    return x.softmax(dim)
f.__doc__ = 5
---
import suite.verdict.judge
suite.verdict.judge.judge_values = None
def f(x, dim=-1):
    return x.softmax(dim)
"""
SOURCES = (
    *_SOURCES.split("\n---\n"),
    "", "\0", "(" * 300 + ")" * 300, "x = " + "-" * 100_000 + "1", "[" * 100 + "]" * 100,
)  # fmt: skip
"""Whole files."""

POISON = (
    b'os.close', b'sys.path.clear', b'judge_values = None', b'sys.modules[', b'sys.modules.pop',
    b'setrecursionlimit', b'SIGALRM', b'environ', b"simplefilter('error')", b'stdout = ', b'stdout.close',
    b'setrecursion',
)  # fmt: skip
"""What a kernel that runs in the judge's own process spoils for good: left out where kernels have
no process of their own.
"""

_DEADLY = """\
import os; os._exit(0)
---
import os; os._exit(7)
---
import os; os.abort()
---
import ctypes; ctypes.string_at(0)
---
while True: pass
---
import time; time.sleep(10**6)
---
import os, signal; os.kill(os.getpid(), signal.SIGKILL)
---
import os, signal; os.kill(os.getpid(), signal.SIGSTOP)
---
raise KeyboardInterrupt
---
import os; os.fork(); return torch.softmax(x, dim)
---
import os; os.closerange(3, 4096); return torch.softmax(x, dim)
---
import threading as t; t.Thread(target=lambda: any(iter(int, 1))).start(); return torch.softmax(x, dim)
---
import os, signal; os.kill(os.getpid(), signal.SIGINT); return torch.softmax(x, dim)
---
import sys; sys.stdin.read(); return torch.softmax(x, dim)
---
import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); [None for _ in iter(int, 1)]
---
torch.set_default_dtype(torch.float64); return torch.softmax(x, dim)
---
import subprocess; subprocess.Popen(['sleep', '30']); return torch.softmax(x, dim)
---
import gc; gc.disable(); torch.set_num_threads(3); return torch.softmax(x, dim)
"""
DEADLY = _DEADLY.strip().split("\n---\n")
"""Bodies for kernels in a process of their own only."""

_DEADLY_SOURCES = """\
import os
os._exit(0)
---
import os
os.abort()
---
import ctypes
ctypes.string_at(0)
---
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
---
import os
os.fork()
def f(x, dim=-1):
    return x.softmax(dim)
"""
DEADLY_SOURCES = _DEADLY_SOURCES.split("\n---\n")
"""Whole files that end their process. One that hangs in its import has ten minutes: too long for here."""


def kernel_files(random, folder):
    """A kernel that cannot be loaded, called or judged."""
    isolated = "timeout" in options_of("check")
    path = folder / "odd.py"
    data = _kernel_source(random, folder, deadly=isolated)
    while not isolated and any(word in data for word in POISON):
        data = _kernel_source(random, folder, deadly=False)
    path.write_bytes(data)
    interrupted = b"KeyboardInterrupt" in data
    name = random.choice(("odd.py:f",) * 12 + ("odd.py", "odd.py:g", "odd.py:", "odd.py:__doc__", "odd:f"))
    limits = ["--timeout", "1"] if isolated else []
    commands = [["check", *NARROW, "--kernel", name, *limits]] * 8
    commands += [
        ["check", *NARROW, "--kernel", name, "--kernel", "shifted", "--out", "new", *limits],
        ["run", *NARROW, "--kernel", name, "--out", "new", "--no-measure", *limits],
        ["check", "--op", "softmax", "--kernel", name, "--input", "good.npz", *limits],
        ["check", *NARROW, "--kernel", name, "--strict", "--json", "found.json", *limits],
    ]
    return Try(
        arguments=tuple(random.choice(commands)),
        shown=("odd",),
        interrupted=interrupted,
        written=("elsewhere",),
    )


def _kernel_source(random, folder, *, deadly):
    kind = random.randrange(10)
    if kind <= 2:
        return random.choice(SOURCES).encode()
    if kind == 3:
        return spoiled(random, (folder / "good.py").read_bytes())
    if kind == 4 and deadly:
        body, whole = random.choice(DEADLY), random.choice(DEADLY_SOURCES)
        return (f"{PRELUDE}def f(x, dim=-1):\n    {body}\n" if random.random() < 0.75 else whole).encode()
    body = random.choice([*BODIES, *["return VALUE", "raise ERROR"] * 8])
    for mark, texts in (("VALUE", VALUES), ("ERROR", BUILTIN + ERRORS), ("TEXT", TEXTS)):
        body = body.replace(mark, random.choice(texts))
    decorator = random.choice(
        ("", "", "", "@torch.no_grad()\n", "@staticmethod\n", "@torch.compiler.disable\n")
    )
    return f"{PRELUDE}{decorator}def f(x, dim=-1):\n    {body}\n".encode()
