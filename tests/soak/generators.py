"""Bad input, drawn from a seed: a generator for each class of what people and machines hand to the command.

A generator takes a random.Random and a copy of the template folder, in which it makes files, and
returns a Try.
"""

import copy
import json
import math
import os
import struct
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import click
import numpy as np

from suite.commands.main import COMMANDS as NAMES
from suite.commands.main import cli

MINUTES = ("gpu-goals", "gpu-run", "tune")
"""The commands that measure by a budget of minutes."""

COMMANDS = {name: cli.get_command(None, name) for name in NAMES if name not in MINUTES}
CASE = "softmax/normal/16x33/s0"
NARROW = ("--op", "softmax", "--dtype", "float32", "--case", CASE)
RUNS = ("run", "part0", "part1")
"""The run folders of the template: one of one process, and two shards, where the command has shards."""


@dataclass(frozen=True, kw_only=True)
class Try:
    """A command line, and what is known of a right answer to it.

    shown: where it is misuse, one of these texts stands in the message. interrupted: 130 is a right
    exit code.
    written: the paths that it may write to, besides those that stand in the arguments themselves.
    """

    arguments: tuple[str, ...]
    shown: tuple[str, ...]
    interrupted: bool = False
    written: tuple[str, ...] = ()


def make_template(folder, main, *, measure=True):
    """Good files of every kind, to be spoiled, and the oddities of a file system. main: runs a
    command line in `folder`.
    """
    (folder / "good.py").write_text("import torch\n\ndef f(x, dim=-1):\n    return torch.softmax(x, dim)\n")
    (folder / "known.txt").write_text(f"nobody float32 cpu inaccurate {CASE} it fails | no link\n")
    (folder / "notes.txt").write_text("some notes\n")
    x = np.linspace(-3, 3, 66, dtype=np.float32).reshape(2, 33)
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.savez(folder / "good.npz", x=x, y=y)
    (folder / "good.safetensors").write_bytes(safetensors({"x": x, "y": y}))
    run = ["run", *NARROW, "--kernel", "shifted"]
    main([*run, "--measure" if measure else "--no-measure", "--out", "run"])
    for number in range(2):
        shard = ["--shard", f"{number + 1}/2"] if "shard" in options_of("run") else []
        main(
            [
                *run[:-4],
                "--kernel",
                "shifted",
                "--no-measure",
                "--case",
                "softmax/normal/*",
                *shard,
                "--out",
                f"part{number}",
            ]
        )
    (folder / "empty").mkdir()
    (folder / "folder.py").mkdir()
    (folder / "folder.npz").mkdir()


def add_oddities(folder):
    """What a copy of the template cannot hold: pipes, loops, devices that are full, files that
    cannot be read.
    """
    os.mkfifo(folder / "fifo")
    for name, target in {
        "loop": "loop",
        "dangling": "nowhere/at/all",
        "full": "/dev/full",
        "null": "/dev/null",
        "mem.npz": "/proc/self/mem",  # opens, and gives an error when it is read
        "mem.safetensors": "/proc/self/mem",
        "mem.py": "/proc/self/mem",
    }.items():
        (folder / name).symlink_to(target)


ODD_PATHS = (
    "empty", "folder.py", "folder.npz", "fifo", "loop", "dangling", "full", "null", "mem.npz",
    "mem.safetensors", "mem.py", "nosuch", "nosuch/deeper/file", "notes.txt", "notes.txt/below", "good.py",
    "good.npz", "good.safetensors", "known.txt", "run", "part0", "part1", "run/env.json", "run/report.html",
    ".", "./", "..x", "run/", "", " ", "new file", "-", "--", "-x", "x" * 300, "x/" * 3000, "日本語", "a\nb",
    "\x1b[31mred", "\udcff\udc80", "a\0b", "~", "$HOME", "*", "[", "%s", "{0}", "null/x",
    "/proc/nothing/here", "/dev/null/x", "loop/x", "good.npz:x", "run/records.csv", "run/RECORDS",
    "run/RECORDS", "./run//RECORDS", "run/run.json",
)  # fmt: skip
"""Relative paths, or absolute ones that nobody can write to."""

WORDS = (
    "", " ", "\t", "nosuch", "NONE", "None", "null", "true", "0", "1", "-1", "nan", "inf", "-inf", "1e400",
    "1e-400", "9" * 30, "9" * 5000, "0x10", "1_0", "٣", "½", "1.5", " 1", "1 ", "--", "-", "--op", "-h", "=",
    "=x", "x=", "日本語", "\u202egnihton", "a\nb", "a\0b", "\udcff", "\x1b[2J", "%s%n", "{0.__class__}", "'",
    '"', "`ls`", "$(ls)", "x" * 20000, "softmax", "float32", "softmax float32", "SOFTMAX", "softmaxx", "../x",
    "🙂" * 50, "\ufeff", "[", "[!", "(", "*" * 2000, "\\",
)  # fmt: skip

SPECIAL = {
    "kernels": ("shifted", "fused", "nosuch", "good.py:f", "good.py", "good.py:", "good.py:g", "good.py:f:g",
        ":", ":f",
        "::", "folder.py", "folder.py:f", "mem.py:f", "fifo:f", "nosuch.py", "notes.txt:f", "os:getcwd",
        "math:pi", "torch:softmax", "os.path:join", "no.such.module:f", ".relative:f", "a..b:f",
        "suite:judge", "json:", "string:ascii_letters", "builtins:print", ".py:f", "this:s", "\udcff.py:f",
        "a\0b.py:f", "é.py:f", "good.py:é", "good.py:__name__", "good.py:__builtins__", "x" * 300 + ".py:f",),
    "device": ("cpu:0", "cpu:99", "cuda", "cuda:0", "cuda:-1", "cuda:99999999999999999999", "meta", "xla",
        "mps", "hip",
        "privateuseone",),
    "patterns": (CASE, "softmax/normal/16x33/s1", "softmax/normal/16x33/s999", "softmax/normal/16x33/s*", "[",
        "]",
        "softmax/[", "softmax/no/*", "softmax/normal/0x0/s0", "softmax/normal/9x9/dim=7/s0",
        "logsumexp/normal/16x33/s0", "//", "softmax//16x33/s0", "softmax/normal/16x33/layout=nosuch/s0",
        "?" * 300,),
    "settings": ("dim=0", "dim=-1", "dim=9", "dim=", "dim", "=1", "dim=x", "dim=0=1", "dim=" + "9" * 400,
        "reduction=none",
        "Dim=0", "ignore_index=-100", "label_smoothing=2", "label_smoothing=nan", "dim=٣", "dim=\0",),
    "shape": ("8192", "32x8192", "0", "0x0", "x", "8x", "x8", "8X8", "-1x8", "8,8", "1" + "0" * 400, "٣x٣",
        "1x" * 400 + "1", "8x8x8x8", "9" * 19, "9" * 30 + "x1", "1e3", "8 x 8",),
    "dim": ("0", "1", "-1", "-2", "5", "-99", "9" * 30,),
    "gap": ("0", "1", "1e308", "-1", "nan", "inf", "-inf", "1e-320",),
    "largest": ("0", "1", "1e308", "1e30", "-1", "nan", "inf", "-inf",),
    "names": ("bfloat16-addition-example", "nosuch", "bhh-*", "BFLOAT16-ADDITION-EXAMPLE",),
    "record": ("rabc", "r" * 13, "run:1", "run/env.json:1", "notes.txt:1", "fifo:1", "loop:1", "mem.npz:1",
        "full:1",
        "empty:1", "known.txt:0", "known.txt:" + "9" * 30, "known.txt:٣", ":1", "nosuch:1", "known.txt:-1",
        "known.txt:²",),
    "shard": ("0/2", "1/2", "2/2", "3/2", "1/1", "-1/2", "0/0", "1/0", "0", "/", "0/", "/2", "a/b", "0/2/3",
        "0/" + "9" * 30, "0.5/2", "٠/٢", "0 / 2",),
    "threads": ("1", "0", "-1", "99999999", "1.5",),
    "timeout": ("1", "0", "-1", "nan", "inf", "1e-9", "1e300",),
    "memory": ("4", "0", "-1", "nan", "inf", "1e-9", "1e300",),
}  # fmt: skip
"""Values that a parameter of this name is tried with, besides those of its type."""

CHEAP = {
    "run": ["run", *NARROW, "--kernel", "shifted", "--out", "new"],
    "check": ["check", *NARROW, "--kernel", "shifted"],
    "judge": ["judge", "--op", "softmax", "--tensors", "good.npz"],
    "report": ["report", "run"],
    "reproduce": ["reproduce", "rabc", "--runs", "."],
    "tolerance": ["tolerance", "--op", "softmax", "--shape", "4x64", "--dtype", "float32"],
    "claims": ["claims", "--claim", "bfloat16-addition-example"],
    "list": ["list", "ops"],
    "doctor": ["doctor"],
    "merge": ["merge", "part0", "part1", "--out", "merged"],
}
"""A command line that works, for each command that needs arguments, and takes little time."""


def options_of(command):
    """The parameters of a command by name; none where there is no such command."""
    found = COMMANDS.get(command)
    return {} if found is None else {parameter.name: parameter for parameter in found.params}


def pick_value(random, parameter):
    """A value for a parameter, most of them wrong."""
    pools = [WORDS, SPECIAL.get(parameter.name, WORDS)]
    if isinstance(parameter.type, click.Choice):
        choices = [str(choice) for choice in parameter.type.choices]
        pools += [
            choices,
            [c.upper() for c in choices] + [c[:-1] for c in choices] + [c + " " for c in choices],
        ]
    elif isinstance(parameter.type, click.Path):
        pools = [ODD_PATHS, ODD_PATHS, ODD_PATHS, SPECIAL.get(parameter.name, WORDS)]
    value = random.choice(random.choice(pools))
    if random.random() < 0.05 and value:
        value = value.replace(random.choice(value), random.choice("\0\n\udc80é=/:x"), 1)
    return value


def command_lines(random, folder):
    """A command that works, spoiled one to three times: by any value of any option that the command has."""
    name = random.choice([*COMMANDS, "check", "run", "judge", "tolerance"])
    words = list(CHEAP.get(name, [name]))
    parameters = COMMANDS[name].params
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        parameter = random.choice([*parameters, cli.params[0]])
        change = random.randrange(10)
        if change <= 5 and isinstance(parameter, click.Option):
            option = random.choice([*parameter.opts, *parameter.secondary_opts])
            if parameter.is_flag:
                words += [option] if random.random() < 0.7 else [f"{option}={random.choice(WORDS)}"]
            elif random.random() < 0.5:
                words += [f"{option}={pick_value(random, parameter)}"]
            else:
                words += [option, pick_value(random, parameter)]
        elif change <= 5:
            words.insert(random.randrange(1, len(words) + 1), pick_value(random, parameter))
        elif change == 6 and len(words) > 1:
            del words[random.randrange(1, len(words))]
        elif change == 7:
            words.insert(random.randrange(len(words) + 1), random.choice(WORDS))
        elif change == 8:
            words[random.randrange(len(words))] = random.choice(WORDS)
        else:
            words.append(
                random.choice(
                    ["--nosuch", "--o", "-k", "--op=softmax", "--", "--help", "--kern", *parameter.opts]
                )
            )
    records = next((folder / "run").glob("records-*.jsonl")).name
    words = bounded([word.replace("RECORDS", records) for word in words])
    return Try(arguments=tuple(words), shown=tuple(words))


def bounded(words):
    """The words, or others where the command would work for long: on many cases, kernels, claims or
    formats.
    """
    try:
        name, *rest = words[1:] if words[0] == "--" else words
        given = COMMANDS[name].make_context(name, rest).params
    except (
        KeyError,
        click.ClickException,
        click.exceptions.Exit,
        click.exceptions.Abort,
        ValueError,
        TypeError,
        OSError,
    ):
        return list(words)  # answered before anything runs
    few = (
        len(given.get("dtypes") or ()) <= 2
        and len(given.get("kernels") or ()) <= 3
        and given.get("profile") != "full"
    )
    few &= given.get("out") != Path()  # what a command writes where the files are would count as strayed
    if name == "claims":
        few = bool(given["names"]) and set(given["names"]) <= {"bfloat16-addition-example"} | (
            set(WORDS) - {""}
        )
    elif name == "doctor":
        few &= not given["kernels"] or len(given["dtypes"]) == 1
    elif name in ("run", "check"):
        patterns = given["patterns"]
        narrow = (
            bool(patterns)
            and all(p == CASE or not fnmatchcase(CASE, p) for p in patterns)
            and bool(given["dtypes"])
        )
        few &= (
            bool(given["kernels"])
            and not given.get("measure")
            and (narrow or given.get("input_file") is not None)
        )
    return list(words) if few else ["list", *words[1:], "nosuch"]


# Record files and run folders.


def record_files(random, folder):
    """A run folder whose files were torn, mixed, foreign or hostile, and every command that reads one."""
    target = folder / "run"
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice(_SPOIL_A_FOLDER)(random, target)
    record = "r" * 13
    lines = 1
    for path in sorted(target.glob("records-*.jsonl")):
        if path.is_file() and not path.is_symlink():
            text = path.read_text(encoding="utf-8", errors="replace").splitlines()
            lines = len(text)
            for line in text:
                try:
                    record = json.loads(line)["id"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
    file = next(
        (f"run/{path.name}" for path in sorted(target.glob("records-*.jsonl"))), "run/records-x.jsonl"
    )
    commands = [
        ["report", "run"],
        ["report", "run", "part0"],
        ["report", "run", "--out", "page.html"],
        ["reproduce", str(record), "--runs", "."],
        ["reproduce", f"{file}:{random.randrange(lines + 2)}"],
        ["run", *NARROW, "--kernel", "shifted", "--out", "run"],
    ]
    if "resume" in options_of("run"):
        commands += [["run", *NARROW, "--kernel", "shifted", "--measure", "--out", "run", "--resume"]] * 2
    if "merge" in COMMANDS:
        commands += [
            ["merge", "run", "part0", "--out", "merged"],
            ["merge", "run", "part0", "part1", "--out", "merged"],
        ]
    words = tuple(random.choice(commands))
    written = ("run",) if words[0] in ("report", "run") else ()
    page = ("records.csv",) if "page.html" in words else ()
    return Try(
        arguments=words, shown=("run", words[1], "records", "case", "kernel", "op"), written=written + page
    )


HOSTILE = (
    None, True, -1, 0, 2**63, 10**400, 1.5, math.nan, math.inf, -math.inf, "", " ", "x", "nan", "inf",
    "1e400", "a\0b", "\ud800", "日本語", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "../../x",
    "x" * 100_000, "a\nb\r\nc", "{{ 7*7 }}", "%s", [], {}, [[]], [None], ["x"], [1, 2, 3], [math.nan],
    {"x": None}, {"__proto__": 1}, {"x": {"y": [1]}}, [[[[[[[[]]]]]]]], {"": ""}, [10**30], "\u2028",
)  # fmt: skip

HOSTILE_CASES = (
    "softmax/normal/0x0/s0", "softmax/normal/99999x99999/s0", "softmax/normal/999999999999x999999999999/s0",
    "softmax/nosuch/8x8/s0", "nosuch/normal/8x8/s0", "softmax/normal/8x8/dim=5/s0", "softmax/normal/8x8/s-1",
    "softmax/normal/8x8/dim=x/s0", "softmax", "softmax/normal/8x8/layout=expanded/s0", "softmax/normal/1/s0",
    "softmax/normal/" + "1x" * 70 + "1/s0", "cross_entropy/normal/8/s0", "softmax/normal/8x8/s" + "9" * 5000,
    "softmax/captured/8x8/s0", "softmax/normal/٣x٣/s0", "softmax/normal/8x0/s0", "log_softmax/normal/4x8/s0",
    "softmax/normal/16x33/dim=0/dim=1/s0", "softmax/normal/8x8/target=nosuch/s0",
)  # fmt: skip


def _paths(random, folder, pattern):
    return sorted(p for p in folder.glob(pattern) if p.is_file() and not p.is_symlink())


def _spoil_bytes(random, folder):
    """A file of the run with its bytes changed, as a torn disk or an editor leaves them."""
    for path in random.sample(paths := _paths(random, folder, "*.json*"), k=min(1, len(paths))):
        path.write_bytes(spoiled(random, path.read_bytes()))


def spoiled(random, data):
    """The bytes after an accident."""
    place = random.randrange(len(data) + 1)
    accident = random.randrange(12)
    if accident <= 1:
        return data[:place]
    if accident == 2:
        return data[place:]
    if accident == 3:
        changed = bytearray(data or b"\0")
        for _ in range(random.choice((1, 3, 30))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    if accident == 4:
        return (
            data[:place]
            + bytes(random.randrange(256) for _ in range(random.choice((1, 8, 400))))
            + data[place:]
        )
    if accident == 5:
        return b"\xef\xbb\xbf" + data
    if accident == 6:
        return data.decode("utf-8", "replace").encode("utf-16")
    if accident == 7:
        return data.replace(b"\n", random.choice((b"\r\n", b"", b"\r", b"\n\n\n")))
    if accident == 8:
        return data + data[:place]
    if accident == 9:
        return random.choice((b"", b"\n", b"\0" * 4096, b"null\n", b"[]\n", b"{}\n", b"1\n", b'"x"\n'))
    if accident == 10:
        return (
            data
            + random.choice(
                (
                    b"[" * 100_000,
                    b'{"a":' * 50_000,
                    b"9" * 100_000,
                    b'{"schema": 1}',
                    b"\xff\xfe\n",
                    b"x" * 3_000_000,
                )
            )
            + b"\n"
        )
    return data[:place] + data[place + random.choice((1, 5, 100)) :]


def _spoil_a_field(random, folder):
    """A record, measurement, environment or configuration with a field that is gone, of another
    type or hostile.
    """
    paths = _paths(random, folder, "*.json*")
    if not paths:
        return
    path = random.choice(paths)
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = path.suffix == ".json"
    lines = [text] if whole else text.splitlines()
    if not lines:
        return
    number = random.randrange(len(lines))
    try:
        data = json.loads(lines[number])
    except (ValueError, RecursionError):
        return
    for _ in range(random.choice((1, 1, 3))):
        _change_somewhere(random, data)
    line = json.dumps(data, indent=2 if whole else None)
    if whole:
        lines = [line]
    elif random.random() < 0.5:
        lines[number] = line
    else:
        lines.append(line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _change_somewhere(random, data):
    """Changes an entry of nested dicts and lists, at any depth."""
    while isinstance(data, dict | list) and data:
        key = random.choice(list(data)) if isinstance(data, dict) else random.randrange(len(data))
        if isinstance(data[key], dict | list) and data[key] and random.random() < 0.8:
            data = data[key]
            continue
        if isinstance(data, dict) and random.random() < 0.15:
            del data[key]
        elif key == "case":
            data[key] = random.choice(HOSTILE_CASES)
        elif key == "kernel" and random.random() < 0.5:
            data[key] = random.choice(SPECIAL["kernels"])
        elif key == "device" and random.random() < 0.5:
            data[key] = random.choice(SPECIAL["device"])
        elif key == "laws":
            data[key] = ["nosuch"]
        else:
            data[key] = copy.deepcopy(random.choice(HOSTILE))
        return


def _spoil_the_shape(random, folder):
    """Files that are missing, folders in their place, pipes, loops, copies, foreign and unreadable files."""
    paths = _paths(random, folder, "*")
    kind = random.randrange(8)
    odd = folder / random.choice(
        (
            "records-odd.jsonl",
            "measurements-odd.jsonl",
            "records-.jsonl",
            "records-\udcff.jsonl",
            "env.json",
            "run.json",
        )
    )
    if kind == 0 and paths:
        random.choice(paths).unlink()
    elif kind == 1:
        odd.unlink(missing_ok=True) if not odd.is_dir() else odd.rmdir()
        random.choice(
            (
                odd.mkdir,
                lambda: os.mkfifo(odd),
                lambda: odd.symlink_to(odd.name),
                lambda: odd.symlink_to("nowhere"),
                lambda: odd.symlink_to("/proc/self/mem"),
                lambda: odd.symlink_to("/dev/null"),
            )
        )()
    elif kind == 2 and paths and not odd.exists() and not odd.is_symlink():
        odd.write_bytes(random.choice(paths).read_bytes())
    elif kind == 3 and not odd.exists() and not odd.is_symlink():
        odd.write_bytes(
            random.choice((b"", b"\0" * 100, os.urandom(0) + random.randbytes(1000), b"a,b,c\n1,2,3\n"))
        )
    elif kind == 4:
        for name in ("report.html", "records.csv"):
            (folder / name).unlink(missing_ok=True)
        random.choice(
            (
                lambda: (folder / "report.html").mkdir(),
                lambda: (folder / "records.csv").mkdir(),
                lambda: (folder / "report.html").symlink_to("/dev/full"),
                lambda: (folder / "records.csv").symlink_to("/dev/full"),
            )
        )()
    elif kind == 5:
        for path in paths:
            path.unlink()
    elif kind == 6:
        for name in ("part0", "part1"):
            for path in _paths(random, folder.parent / name, "records-*.jsonl"):
                (folder / path.name).write_bytes(path.read_bytes())
    else:
        for path in _paths(random, folder, "records-*.jsonl"):
            path.write_bytes(path.read_bytes() * random.choice((2, 50)))


_SPOIL_A_FOLDER = (
    _spoil_bytes,
    _spoil_bytes,
    _spoil_a_field,
    _spoil_a_field,
    _spoil_a_field,
    _spoil_the_shape,
)


# Tensors.


def tensors(random, folder):
    """A .npz or .safetensors with wrong names, dtypes, shapes and values, or broken as a file."""
    make = random.choice(
        (_odd_arrays, _odd_arrays, _odd_headers, _odd_safetensors, _odd_safetensors, _spoiled_file)
    )
    path = make(random, folder)
    op = random.choice(("softmax", "softmax", "log_softmax", "logsumexp", "cross_entropy"))
    name = path.name
    words = random.choice(
        (
            ["judge", "--op", op, "--tensors", name],
            [
                "judge",
                "--op",
                op,
                "--tensors",
                name,
                "--dtype",
                random.choice(("bfloat16", "float16", "float32")),
            ],
            ["judge", "--op", op, "--tensors", name, "--dim", random.choice(("0", "-1", "5", "-7"))],
            ["judge", "--op", op, "--tensors", name, "--option", random.choice(SPECIAL["settings"])],
            ["check", "--op", op, "--kernel", "fused", "--input", name],
            [
                "check",
                "--op",
                op,
                "--kernel",
                "fused",
                "--input",
                name,
                "--dtype",
                random.choice(("bfloat16", "float64")),
            ],
            ["check", "--op", op, "--kernel", "fused", "--input", name, "--out", "new"],
            ["tolerance", "--op", op, "--input", name],
            [
                "tolerance",
                "--op",
                op,
                "--input",
                name,
                "--dtype",
                "float16",
                "--dim",
                random.choice(("0", "-1", "5")),
            ],
        )
    )
    words += ["--json", random.choice(("found.json", "-", "empty", "full"))] if random.random() < 0.2 else []
    return Try(arguments=tuple(words), shown=(name, *_OWN_WORDS, *words[2:]))


_OWN_WORDS = (
    "format",
    "input",
    "x has",
    "y has",
    "output",
    "target",
    "logits",
    "shape",
    "dtype",
    "dim",
    "tensor",
)
"""What a message about a tensor that was read may name in the place of its file."""

_NAMES = (
    "x", "y", "input", "output", "logits", "target", "X", "", "x.npy", "../x", "日本", "x" * 300, "\n", "a/b",
    "__metadata__",
)  # fmt: skip


def _array(random):
    """An array of any dtype, shape, order and values."""
    shape = random.choice(
        (
            (2, 33),
            (2, 33),
            (2, 33),
            (4, 8),
            (33,),
            (),
            (0,),
            (2, 0),
            (0, 33),
            (1,) * 32,
            (2, 3, 4),
            (1, 1),
            (2, 34),
            (2,),
        )
    )
    dtype = random.choice(
        (
            "f4",
            "f4",
            "f4",
            "f8",
            "f2",
            ">f4",
            ">f8",
            "i4",
            "i8",
            "u1",
            "u2",
            "u4",
            "u8",
            "i1",
            "i2",
            "?",
            "c8",
            "c16",
            "S3",
            "U3",
            "V2",
            "V1",
            "V7",
            "M8[s]",
            "m8[s]",
            "g",
            "O",
            [("a", "f4"), ("b", "i2")],
        )
    )
    generator = np.random.default_rng(random.randrange(2**32))
    if dtype == "O":
        array = np.empty(shape, dtype=object)
    elif isinstance(dtype, str) and np.dtype(dtype).kind in "fiu?c":
        array = (generator.standard_normal(shape) * 5).astype(dtype)
    else:
        array = np.zeros(shape, dtype)
    values = random.choice(
        (
            None,
            None,
            None,
            np.nan,
            np.inf,
            -np.inf,
            0.0,
            -0.0,
            1e308,
            -1e308,
            5e-324,
            65504.0,
            3e38,
            "payload",
        )
    )
    if values is not None and array.dtype.kind == "f" and array.size:
        with np.errstate(all="ignore"):
            if values == "payload":
                array = (
                    generator.integers(0, 256, array.nbytes, dtype=np.uint8).view(array.dtype).reshape(shape)
                )
            else:
                array = np.where(
                    generator.random(shape) < random.choice((0.1, 1.0)), array.dtype.type(values), array
                )
    return np.asfortranarray(array) if random.random() < 0.2 else array


def _odd_arrays(random, folder):
    path = folder / "odd.npz"
    pairs = random.choice(
        (("x", "y"), ("x", "y"), ("logits", "target"), ("x",), (), tuple(random.sample(_NAMES, 3)))
    )
    first = _array(random)
    arrays = {name: first if random.random() < 0.5 else _array(random) for name in pairs}
    if random.random() < 0.2 and first.dtype.kind == "f":
        arrays |= {
            "logits": first,
            "target": np.zeros(first.shape[:1], np.int64) + random.choice((0, 5, -1, -100, 10**12)),
            "y": np.float32(1),
        }
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=True)
    return path


def _odd_headers(random, folder):
    """An .npz whose .npy members say what is not so."""
    path = folder / "odd.npz"
    count = random.choice((10**6, 10**10, 2**40, 2**62, 2**63, 10**30, -1))
    header = random.choice(
        (
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},), }}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2**5,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2.5), }",
            "{'descr': '<f4', 'fortran_order': 7, 'shape': (66,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': 'nosuch', 'fortran_order': False, 'shape': (66,), }",
            "{'descr': [('a', '<f4', (10**9,))], 'fortran_order': False, 'shape': (66,), }",
            "{'descr': [('a', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (66,), }",
            "__import__('os').system('true')",
            "{'descr': '<f4'}",
            "{",
            "(" * 5000,
            "[" * 200 + "]" * 200,
            "\0" * 64,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 33), 'more': 1}",
            "{'descr': '<V0', 'fortran_order': False, 'shape': (66,), }",
            "{'descr': '<U0', 'fortran_order': False, 'shape': (0, 66), }",
        )
    )
    text = header.encode("latin1") + b"\n"
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H" if version[0] == 1 else "<I", random.choice((len(text), len(text), 0, 65535)))
    data = np.linspace(-3, 3, 66, dtype=np.float32).tobytes()
    with zipfile.ZipFile(
        path, "w", compression=random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    ) as file:
        for name in random.choice((("x.npy", "y.npy"), ("x.npy", "x.npy"), ("x", "y"))):
            file.writestr(name, b"\x93NUMPY" + version + length + text + data)
    return path


def safetensors(arrays, header=None):
    """The bytes of a .safetensors with these arrays; header: the entries to write in the place of
    the right ones.
    """
    names = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32"}
    entries, data = {}, b""
    for name, array in arrays.items():
        raw = array.tobytes()
        entries[name] = {
            "dtype": names[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(entries if header is None else header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _odd_safetensors(random, folder):
    path = folder / "odd.safetensors"
    x = np.linspace(-3, 3, 66, dtype=np.float32).reshape(2, 33)
    content = safetensors({"x": x, "y": x})
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    kind = random.randrange(8)
    if kind <= 3:
        for _ in range(random.choice((1, 1, 3))):
            entry = header.get(random.choice(list(header))) if header else None
            if isinstance(entry, dict) and entry and random.random() < 0.85:
                key = random.choice(list(entry))
                odd = {
                    "dtype": ("BF16", "F16", "F8_E4M3", "I64", "BOOL", "f32", "", None, 4, ["F32"], {}),
                    "shape": (
                        [66],
                        [2, 34],
                        [-2, -33],
                        [2, 33.0],
                        [2, "33"],
                        [True, 66],
                        [],
                        [0],
                        [0, 10**30],
                        [10**30],
                        None,
                        66,
                        "66",
                        [[2], 33],
                        [2**62, 4],
                        [1] * 70 + [66],
                        [math.nan],
                    ),
                    "data_offsets": (
                        [0],
                        [],
                        [0, 264, 1],
                        [264, 0],
                        [-264, 0],
                        [0, 10**30],
                        [0.0, 264.0],
                        ["0", "264"],
                        None,
                        7,
                        [None, 1],
                        [math.nan, 1],
                        [math.inf, 1],
                        [1, 265],
                        [[0], 264],
                    ),
                }[key]
                entry[key] = random.choice(odd)
            elif isinstance(entry, dict) and entry and random.random() < 0.5:
                del entry[random.choice(list(entry))]
            else:
                header[random.choice(_NAMES)] = random.choice(
                    (*HOSTILE[:24], {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
                )
        content = safetensors({"x": x, "y": x}, header)
    elif kind == 4:
        content = safetensors(
            {"x": x, "y": x},
            random.choice(([], [1], "x", None, 5, {}, {"__metadata__": []}, {"x": {}}, {"x": "y"})),
        )
    elif kind == 5:
        length = random.choice((0, 1, 2**63, 2**64 - 1, len(content), len(content) - 8, 100_000_001))
        content = struct.pack("<Q", length) + content[8:]
    elif kind == 6:
        text = random.choice(
            (
                b"[" * 50_000,
                b"{" * 50_000,
                b"\xff\xfe",
                b'{"x":' * 20_000,
                b"nul",
                b'{"x": NaN}',
                b"9" * 10_000,
                b" " * 1000,
            )
        )
        content = struct.pack("<Q", len(text)) + text
    else:
        content = spoiled(random, content)
    path.write_bytes(content)
    return path


def _spoiled_file(random, folder):
    if random.random() < 0.25:
        name = random.choice(
            (
                "mem.npz",
                "mem.safetensors",
                "folder.npz",
                "notes.txt",
                "fifo",
                "loop",
                "good.py",
                "nosuch.npz",
                "dangling",
            )
        )
        return folder / name
    ending = random.choice((".npz", ".safetensors"))
    path = folder / f"odd{ending}"
    other = random.choice((ending, ending, ending, ".npz", ".safetensors"))
    path.write_bytes(spoiled(random, (folder / f"good{other}").read_bytes()))
    return path


# Known failures.


def known_failure_files(random, folder):
    """A list of known failures with lines that are none."""
    path = folder / "odd.txt"
    fields = ["shifted", "float32", "cpu", "inaccurate", CASE, "it fails", "|", "no link"]
    lines = []
    for _ in range(random.choice((0, 1, 1, 1, 3, 200))):
        line = list(fields)
        for _ in range(random.choice((0, 1, 1, 2))):
            place = random.randrange(len(line))
            line[place] = random.choice(
                (
                    *WORDS,
                    "*",
                    "?",
                    "[a",
                    "passed",
                    "inaccurate,nonfinite",
                    "inaccurate,",
                    ",",
                    "|",
                    "||",
                    "#",
                    "\u2028",
                )
            )
        lines.append(random.choice((" ", " ", "\t", "  ")).join(line).encode("utf-8", "surrogateescape"))
    data = random.choice((b"\n", b"\n", b"\r\n", b"\r", b"\x0c", b"\x85")).join(lines)
    path.write_bytes(spoiled(random, data) if random.random() < 0.4 else data)
    name = random.choice(
        ("odd.txt",) * 8 + ("fifo", "loop", "empty", "mem.npz", "null", "full", "nosuch.txt")
    )
    if name == "full":  # endless zeros: no list
        name = "dangling"
    words = ["check", *NARROW, "--kernel", "shifted", "--known-failures", name]
    return Try(arguments=tuple(words), shown=(name,))
