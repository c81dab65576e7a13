"""What the process of a kernel may take. Each limit is set in a process that is made for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suite.execution import limits

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces these")


def python(code):
    command = [sys.executable, "-c", f"from suite.execution.limits import *\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@LINUX
def test_memory_beyond_the_limit_is_refused_and_memory_within_it_is_not():
    within = python("restrict(2**27); print(len(bytearray(2**25)))")
    beyond = python("restrict(2**27); bytearray(2**28)")

    assert within.stdout == f"{2**25}\n", within.stderr
    assert beyond.stderr.endswith("MemoryError\n")
    assert python("restrict(None); print(len(bytearray(2**28)))").stdout == f"{2**28}\n"


@LINUX
def test_there_is_no_core_dump_and_the_system_kills_this_process_first():
    code = "import resource; restrict(None); print(resource.getrlimit(resource.RLIMIT_CORE)); "
    result = python(code + "print(open('/proc/self/oom_score_adj').read())")

    assert result.stdout.split("\n")[:2] == ["(0, 0)", "1000"]


@LINUX
def test_a_hard_limit_of_the_user_stays():
    result = python(
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30)); restrict(2**40);"
        "print(resource.getrlimit(resource.RLIMIT_DATA))"
    )
    assert result.stdout == f"({2**30}, {2**30})\n", result.stderr


@LINUX
def test_a_process_dies_with_the_one_that_forked_it_even_in_c_code():
    code = """
import os, sys
if os.fork() == 0:
    die_with_parent()
    os.write(1, f"{os.getpid()}\\n".encode())
    import ctypes
    ctypes.PyDLL(None).pause()
import time; time.sleep(60)
"""
    command = [sys.executable, "-c", f"from suite.execution.limits import *\n{code}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 5
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(child)


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_half_of_the_machine_or_of_its_container_is_the_default(tmp_path, monkeypatch):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(limits, "_CGROUP_LIMITS", (str(limit),))

    assert limits.default_memory_bytes() == total // 2
    limit.write_text("max\n")
    assert limits.default_memory_bytes() == total // 2
    limit.write_text("1000000\n")
    assert limits.default_memory_bytes() == 500_000


@LINUX
def test_killings_for_lack_of_memory_are_counted_by_the_system():
    said = [
        int(line.split()[1])
        for line in Path("/proc/vmstat").read_text().splitlines()
        if line.startswith("oom_kill ")
    ]
    assert limits.killings_for_memory() >= (said or [0])[0]
