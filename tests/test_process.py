"""The life of kernels' processes: nothing outlives the suite, whatever ends it, and Ctrl-C leaves a
report.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from suite.execution.host import Call, DiedError
from suite.execution.isolated import Isolated
from suite.execution.process import KernelProcess
from suite.records.store import read_run

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 120.0
"""What a busy machine may take for a moment's work: there to end a hang, and for nothing else."""
TOKEN = "SOFTMAX_SUITE_TEST_PROCESS"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is promised of processes is promised for Linux"
)


def members(token):
    """The ids of the living processes that have the token in their environment."""
    marker, found = f"{TOKEN}={token}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            if alive and marker in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


HEEDS_CONTROL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so do its children
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def command(token, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", TOKEN: token}
    return subprocess.Popen(
        [sys.executable, "-c", HEEDS_CONTROL_C, "-m", "suite", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(process):
    """What a process printed that did not come as far as it should have."""
    process.kill()
    return process.communicate()


def kernel_file(folder, body):
    path = folder / "kernels.py"
    path.write_text(f"import ctypes, os, subprocess, torch\n\ndef f(x, dim=-1):\n    {body}\n")
    return f"{path}:f"


HANGS = "open(os.environ['MARK'], 'a').close(); ctypes.PyDLL(None).pause()"


@pytest.mark.parametrize("attempt", range(10))
def test_a_process_that_was_killed_says_how_it_ended_whatever_is_asked_of_it(attempt):
    """Ten times: the server tells the exit code a moment before it closes what tells that there is one."""
    process = KernelProcess(method="forkserver", memory_bytes=None)
    process.kill()
    with pytest.raises(DiedError, match="its process was killed by SIGKILL, after a call had returned"):
        process.send({"do": "load"})
    with pytest.raises(DiedError, match="its process was killed by SIGKILL, in its call") as caught:
        process.receive("in its call", limit_seconds=WAIT_SECONDS)
    assert caught.value.status == "crashed"
    process.close()


@pytest.mark.parametrize("leaves", [False, True])
def test_what_a_kernel_started_ends_with_its_process(leaves, tmp_path):
    specification = kernel_file(
        tmp_path,
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid)); "
        + ("os._exit(1)" if leaves else "ctypes.PyDLL(None).pause()"),
    )
    with Isolated() as host:
        [kernel] = host.load(specification, "softmax")
        [outcome] = host.submit(kernel, [Call({"x": torch.zeros(2, 3)}, {"dim": -1})], limit_seconds=0.3)
    assert outcome.status == ("crashed" if leaves else "timed_out")
    started = int((tmp_path / "pid").read_text())

    def gone():
        try:
            return Path(f"/proc/{started}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    assert wait_for(gone)


def test_closing_a_host_ends_its_processes_and_leaves_no_zombies(tmp_path):
    host = Isolated()
    [kernel] = host.load(kernel_file(tmp_path, "print(os.getpid()); return torch.softmax(x, dim)"), "softmax")
    process = int(host.call(kernel, torch.zeros(2, 3), {"dim": -1}).output)
    assert Path(f"/proc/{process}").exists()
    host.close()
    assert wait_for(lambda: not Path(f"/proc/{process}").exists())
    assert host.call(kernel, torch.zeros(2, 3), {"dim": -1}).status is None  # a closed host starts anew
    host.close()


def test_a_suite_that_is_killed_leaves_no_process_not_even_one_that_hangs_in_c(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    process = command(
        "killed", "check", "--op=softmax", "--dtype=float32", f"--kernel={kernel_file(tmp_path, HANGS)}"
    )
    assert wait_for(mark.exists), said(process)
    assert len(members("killed")) >= 3  # the command, the server, the kernel
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_for(lambda: not members("killed"))


def test_a_suite_that_is_killed_leaves_no_copy_that_its_kernel_forked_and_no_folder(tmp_path, monkeypatch):
    """The copy sleeps in the group of a kernel that hangs; the folder has the socket of the server."""
    temporary, mark = Path(tempfile.mkdtemp()), tmp_path / "mark"  # a socket's path has 108 bytes at most
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setenv("TMPDIR", str(temporary))
    specification = kernel_file(tmp_path, f"os.fork(); {HANGS}")
    process = command("forked", "check", "--op=softmax", "--dtype=float32", f"--kernel={specification}")
    assert wait_for(mark.exists), said(process)
    assert wait_for(lambda: len(members("forked")) >= 4)
    assert list(temporary.glob("pymp-*"))
    process.kill()
    process.wait()
    process.stdout.close()

    assert wait_for(lambda: not members("forked"))
    assert wait_for(lambda: not list(temporary.glob("pymp-*")))
    shutil.rmtree(temporary)


def test_control_c_ends_a_run_with_130_a_report_and_no_process(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    specification = kernel_file(
        tmp_path, "if x.dtype == torch.bfloat16: " + HANGS + "\n    return torch.softmax(x, dim)"
    )
    arguments = ["run", "--op=softmax", "--dtype=float32", "--dtype=bfloat16", f"--kernel={specification}"]
    process = command("control-c", *arguments, "--case=softmax/normal/*", f"--out={tmp_path / 'run'}")
    assert wait_for(mark.exists), said(process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert [record.status for record in read_run(tmp_path / "run").records] == ["passed"]
    assert (tmp_path / "run" / "report.html").is_file()
    assert wait_for(lambda: not members("control-c"))
