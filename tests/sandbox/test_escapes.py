"""Escapes, tried from inside real trials, most of them from one: a trial must find every one of them closed."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forking import Starts
from support import trainer_text
from trial_runs import runner

import core
from core.data import Dataset
from core.records import UserError
from core.sandbox import limits, spawn, tier
from core.system.files import cache_root
from core.trial import environment, process

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure

pytestmark = [
    pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}"),
    pytest.mark.skipif(sys.platform != "linux", reason="the escapes are Linux's; nothing of them was tried on macOS"),
]

# What must not work. A refusal is an OSError (system calls by number set errno); anything else is an escape.
PROBE = """
import ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def refused(name, action):
    try:
        got = action()
    except OSError:
        return
    raise AssertionError(f"{name} worked: {got!r:.200}")
"""
ATTEMPT_ALL = """
import json
found = {}
for action in actions:
    try:
        refused(action, lambda: eval(action))
    except Exception as error:
        found[action] = f"{type(error).__name__}: {error}"
print("attempts:", json.dumps(found), flush=True)
"""


def probing(*actions: str) -> str:
    """A trainer that tries each expression and prints what came of those that were not refused."""
    return trainer_text(before=f"exec({PROBE + ATTEMPT_ALL!r}, {{'actions': {actions!r}}})")


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A folder that no trial is given, outside the one that its trainer lies in."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_text("val text")
        yield Path(folder)


@pytest.fixture(scope="module")
def listeners() -> Iterator[dict[str, Any]]:
    """A TCP, a UDP and three unix sockets that are there and take what comes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        tempfile.TemporaryDirectory() as folder,
    ):
        udp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0autoresearch-test-{os.getpid()}")
        path.bind(f"{folder}/s")
        datagrams.bind(f"{folder}/d")
        for one in (abstract, path):
            one.listen()
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(one.getsockname())
        udp.settimeout(0)
        yield {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": abstract.getsockname().decode(),
            "path": path.getsockname(),
            "datagrams": datagrams.getsockname(),
        }


@pytest.fixture(scope="module")
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process outside, which waits."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def escapes(
    dataset: Dataset,
    cache: Path,
    corpus_folder: Path,
    outside: Path,
    listeners: dict[str, Any],
    victim: subprocess.Popen[bytes],
    starts: Starts,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, str]]:
    """By kind, each attempt that one real trial made, and what came of it: "" where it was refused."""
    folder = tmp_path_factory.mktemp("escapes")
    kinds = {
        "texts": texts(cache, corpus_folder),
        "a person's files": persons_files(outside),
        "writes": writes(outside, folder / "train.py"),
        "network": network(listeners),
        "processes": processes(victim.pid),
        "system calls": system_calls(),
        "none": ("open('/dev/null').name",),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "fork", False)
        trial = runner(dataset, folder)(probing(*(action for actions in kinds.values() for action in actions)))
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert trial.sandbox == tier.available().name != "none"
    output = (folder / "trial" / "1" / "output.txt").read_text(encoding="utf-8")
    found = json.loads(output.partition("attempts: ")[2].splitlines()[0])
    return {kind: {action: found.get(action, "") for action in actions} for kind, actions in kinds.items()}


def texts(cache: Path, corpus_folder: Path) -> list[str]:
    """Attempts to read a corpus, as it came and as it was encoded."""
    encoded = next(path for path in (cache / "corpora").rglob("*") if path.is_file())
    text = next(path for path in corpus_folder.rglob("*.txt"))
    readable = [str(path) for path in (encoded, text)]
    assert all(Path(path).read_bytes() for path in readable)
    return [
        *(f"open({path!r}, 'rb').read(9)" for path in readable),
        f"os.listdir({str(cache)!r})",
        f"os.listdir({str(corpus_folder)!r})",
        f"os.link({readable[1]!r}, 'mine')",
        f"os.rename({readable[1]!r}, 'mine')",
    ]


def persons_files(outside: Path) -> list[str]:
    home = Path.home()
    return [
        f"os.listdir({str(home)!r})",
        f"os.listdir({tempfile.gettempdir()!r})",
        f"open({str(outside / 'secret')!r}).read()",
        f"open({str(Path(core.__path__[0]).parent / 'pyproject.toml')!r}).read()",
        "open('/etc/shadow').read()",
        "open('/proc/kcore', 'rb').read(1)",
        "os.listdir('/var')",
    ]


def writes(outside: Path, trainer: Path) -> list[str]:
    return [
        f"open({str(outside / 'mine')!r}, 'w')",
        f"open({str(outside / 'secret')!r}, 'a')",
        f"os.truncate({str(outside / 'secret')!r}, 0)",
        f"os.unlink({str(outside / 'secret')!r})",
        f"os.mkdir({str(outside / 'folder')!r})",
        f"os.symlink('x', {str(outside / 'link')!r})",
        f"os.mkfifo({str(outside / 'pipe')!r})",
        f"open({str(trainer)!r}, 'a')",
        f"open({sysconfig.get_path('purelib') + '/sneaked.pth'!r}, 'w')",
        f"open({str(Path(core.__file__))!r}, 'a')",
        f"open({str(cache_root() / 'note')!r}, 'w')",
        "open('/proc/sys/kernel/hostname', 'w')",
    ]


def network(listeners: dict[str, Any]) -> list[str]:
    stream, datagram = "socket.socket(socket.AF_UNIX)", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
    internet = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    return [
        f"socket.create_connection(('127.0.0.1', {listeners['tcp']}), 5)",
        # Of the first nobody takes notice; the second is told that nobody listens there.
        f"[(end := {internet}).connect(('127.0.0.1', {listeners['udp']})), end.send(b'x'), end.send(b'x')]",
        "socket.create_connection(('192.0.2.1', 80), 5)",
        f"{internet}.sendto(b'x', ('192.0.2.1', 53))",
        f"{internet}.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')",
        f"__import__('fcntl').ioctl({internet}, 0x8914, b'lo'.ljust(40, b'\\0'))",  # take lo down
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        *(f"socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, {protocol})" for protocol in (4, 9, 12, 15, 16)),
        "socket.socket(40, socket.SOCK_STREAM)",  # vsock
        f"{stream}.connect({listeners['abstract']!r})",
        f"{stream}.connect({listeners['path']!r})",
        f"{datagram}.sendto(b'x', {listeners['datagrams']!r})",
        f"socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', {listeners['datagrams']!r})",
    ]


def processes(victim: int) -> list[str]:
    """Attempts to signal this process and another one, or to see into them."""
    me = os.getpid()
    return [
        *(f"os.kill({pid}, 0)" for pid in (me, victim)),
        f"os.kill({victim}, 9)",
        "os.kill(os.getppid(), 15)",
        f"os.killpg({os.getpgid(me)}, 0)",
        *(f"open('/proc/{me}/{name}', 'rb').read(1)" for name in ("environ", "maps", "cmdline", "stat")),
        f"open('/proc/{me}/mem', 'rb')",
        f"os.listdir('/proc/{me}/fd')",
        f"open('/proc/{victim}/mem', 'r+b')",
        "os.listdir('/proc')",
        f"call({number('ptrace')}, 16, {victim}, 0, 0)",
        f"call({number('process_vm_readv')}, {victim}, 0, 0, 0, 0, 0)",
        f"__import__('resource').prlimit({victim}, 1)",
        f"os.setpriority(os.PRIO_PROCESS, {victim}, 19)",
    ]


def system_calls() -> list[str]:
    names = (
        "io_uring_setup bpf perf_event_open userfaultfd unshare setns mount keyctl add_key shmget semget msgget "
        "mq_open reboot init_module pivot_root chroot open_by_handle_at pidfd_getfd swapoff sethostname fanotify_init"
    )
    return [
        *(f"call({number(name)}, 0, 0, 0, 0, 0, 0)" for name in names.split()),
        "__import__('time').clock_settime(__import__('time').CLOCK_REALTIME, 1e9)",
        f"call({number('settimeofday')}, ctypes.byref((ctypes.c_long * 2)(10**9, 0)), 0)",
        f"call({number('clone')}, 0x10000000 | 17, 0, 0, 0, 0)",
        "os.unshare(0x10000000) if hasattr(os, 'unshare') else call(-1)",
        "os.setuid(1) or os.setuid(12345)" if os.getuid() == 0 else "os.setuid(0)",
        "os.nice(-5)",
    ]


@functools.cache
def numbers() -> dict[str, int]:
    """All system calls of this machine, as the kernel's headers for this compiler have them."""
    done = subprocess.run(
        ["cc", "-E", "-dM", "-"], input="#include <sys/syscall.h>\n", capture_output=True, text=True, check=True
    )
    defined = dict(line.split()[1:3] for line in done.stdout.splitlines() if len(line.split()) == 3)
    found = {}
    for name in defined:
        value = name
        while value in defined:
            value = defined[value]
        if name.startswith("__NR_") and value.isdigit():
            found[name.removeprefix("__NR_")] = int(value)
    return found


def number(name: str) -> int:
    """A system call's number on this machine."""
    return numbers()[name]


@pytest.mark.parametrize("kind", ["texts", "a person's files", "writes", "network", "processes", "system calls"])
def test_every_attempt_of_a_real_trial_is_refused(
    escapes: dict[str, dict[str, str]], kind: str, outside: Path, victim: subprocess.Popen[bytes]
) -> None:
    assert {action: found for action, found in escapes[kind].items() if found} == {}
    assert len(escapes[kind]) > 5
    assert (outside / "secret").read_text() == "val text"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert victim.poll() is None


def test_the_probe_sees_an_escape(escapes: dict[str, dict[str, str]]) -> None:
    assert escapes["none"] == {"open('/dev/null').name": "AssertionError: open('/dev/null').name worked: '/dev/null'"}


def test_nothing_of_a_campaign_but_its_trainer_can_be_read(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / ".git" / "autoresearch" / "ledger.db"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("rows")
    run(trainer_text())
    earlier = tmp_path / "trial" / "1" / "weights.safetensors"
    assert earlier.exists()
    hidden = (f"open({str(ledger)!r})", f"open({str(earlier)!r})", f"os.listdir({str(tmp_path)!r})")
    tries = "\n".join(f"refused({action!r}, lambda: {action})" for action in hidden)
    mine = "assert 'def main' in open(__file__).read()"
    trial = run(trainer_text(before=f"exec({PROBE + tries!r}, {{}}); {mine}"))
    assert (trial.verdict, trial.reason) == ("scored", "")


def test_another_trials_scratch_can_be_neither_read_nor_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []
    start = process.Process.__init__

    def watched(self: process.Process, *arguments: Any) -> None:
        start(self, *arguments)
        begun.append(self.scratch)
        (self.scratch.parent / "inbox" / "given").write_text("given")
        if len(begun) == 1:
            (tempdir / "first").write_text(str(self.scratch))

    monkeypatch.setattr(process.Process, "__init__", watched)
    with tempfile.TemporaryDirectory() as folder:
        tempdir = Path(folder)
        monkeypatch.setattr(environment.TrialEnvironment, "policy", also_readable(tempdir))
        trial = run(
            trainer_text(
                before=f"exec({SIBLINGS!r}, {{'told': {str(tempdir)!r}}})",
            )
        )
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert len(begun) >= 2


SIBLINGS = (
    PROBE
    + """
import pathlib
mine = pathlib.Path.cwd()
assert (mine.parent / "inbox" / "given").read_text() == "given"
refused("write to the inbox", lambda: (mine.parent / "inbox" / "x").write_text("x"))
refused("list the temporary folder", lambda: os.listdir(mine.parent.parent))
refused("list beside the scratch", lambda: os.listdir(mine.parent))
other = (pathlib.Path(told) / "first").read_text()
if other != str(mine):
    refused("list the other scratch", lambda: os.listdir(other))
    refused("write to the other scratch", lambda: open(other + "/x", "w"))
"""
)


def also_readable(folder: Path) -> Callable[..., Any]:
    usual = environment.TrialEnvironment.policy

    def policy(self: environment.TrialEnvironment, *arguments: Any, **options: Any) -> Any:
        given = usual(self, *arguments, **options)
        return dataclasses.replace(given, read=(*given.read, folder))

    return policy


def test_a_corpus_package_beside_the_others_cannot_be_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    for name in ("botocore", "harmless"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text("text = 'of the corpus'\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    code = f"""
sys.path.append({str(packages)!r})
import harmless
assert harmless.text
assert "botocore" in os.listdir({str(packages)!r})
refused("the text", lambda: open({str(packages / "botocore" / "__init__.py")!r}))
try:
    import botocore
except (ImportError, OSError):
    pass
else:
    raise AssertionError("botocore was imported")
"""
    trial = run(trainer_text(before=f"exec({PROBE + code!r}, {{}})"))
    assert (trial.verdict, trial.reason) == ("scored", "")


def test_modes_times_and_attributes_of_others_files_stay(run: Run, outside: Path) -> None:
    secret = outside / "secret"
    before = secret.stat()
    own = "open('own', 'w').close(); os.chmod('own', 0o700); os.utime('own', (1, 1))"
    # Refused where the file system is read-only to a trial, and without effect elsewhere.
    others = f"[suppressed(os.chmod, {str(secret)!r}, 0o777), suppressed(os.utime, {str(secret)!r}, (1, 1))]"
    define = """
    def suppressed(call, *arguments):
        try:
            call(*arguments)
        except OSError:
            pass
    """
    text = trainer_text(before=f"import os; {own}; {others}") + textwrap.dedent(define)
    assert run(text).verdict == "scored"
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)


def test_shared_memory_is_the_trials_own(run: Run) -> None:
    name = f"autoresearch-test-{os.getpid()}"
    left = Path("/dev/shm") / name
    path = str(left)
    note = f"try: open({path!r}, 'x').write('for the next trial')\n    except PermissionError: pass"
    assert run(trainer_text(before=note)).verdict == "scored"
    assert not left.exists()
    assert run(trainer_text(before=note)).verdict == "scored"


@pytest.mark.real_start
def test_root_is_an_ordinary_user_inside(run: Run) -> None:
    read = "[int(line.split()[1], 16) for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapBnd'))]"
    check = f"assert all(one & ~6 == 0 for one in {read}), {read}"
    if os.getuid() != 0:
        pytest.skip("only root has what this is about")
    assert run(trainer_text(before=check)).reason == ""


def test_a_child_is_as_confined(run: Run, outside: Path) -> None:
    inner = f"open({str(outside / 'secret')!r})"
    code = f"import subprocess, sys; done = subprocess.run([sys.executable, '-c', {inner!r}], capture_output=True)"
    trial = run(trainer_text(before=f"{code}; assert b'PermissionError' in done.stderr, done.stderr"))
    assert trial.reason == ""


def test_what_left_the_group_is_ended(run: Run, outside: Path) -> None:
    inner = "import time; time.sleep(600)"
    command = f"[sys.executable, '-c', {inner!r}, {str(outside)!r}]"
    code = f"import subprocess, sys; subprocess.Popen({command}, start_new_session=True)"
    assert run(trainer_text(before=code)).verdict == "scored"
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(outside) not in told


@pytest.mark.real_start
def test_what_is_scored_is_as_confined(run: Run, cache: Path) -> None:
    encoded = next(path for path in (cache / "corpora").rglob("*") if path.is_file())
    text = trainer_text().replace(
        "    table =", f"    exec({PROBE + f'refused(0, lambda: open({str(encoded)!r}))'!r}, {{}})\n    table ="
    )
    assert run(text).reason == ""


HOG = "import time; kept = [bytearray(b'x' * 2**20) for _ in range({mb})]; time.sleep(30)"


@pytest.mark.parametrize("where", ["itself", "children"])
def test_a_memory_hog_is_ended_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    small = limits.ProcessLimits(memory_mb=400)
    monkeypatch.setattr(spawn, "machine_limits", lambda: small)
    hog = HOG.format(mb=500)
    if where == "children":
        each = HOG.format(mb=250)
        started = f"[subprocess.Popen([sys.executable, '-c', {each!r}]) for _ in 'ab']"
        hog = f"import subprocess, sys, time; {started}; time.sleep(30)"
    trial = run(trainer_text(before=hog))
    assert trial.verdict == "crash"
    assert "MB of memory, over the limit of 400 MB" in trial.reason


def test_a_fork_bomb_is_ended_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "machine_limits", lambda: limits.ProcessLimits(memory_mb=10_000, processes=40))
    bomb = "import os, time; [os.fork() or time.sleep(30) for _ in range(60)]; time.sleep(30)"
    trial = run(trainer_text(before=bomb))
    assert trial.verdict == "crash"
    assert "processes at once, over the limit of 40" in trial.reason


def test_pages_that_processes_share_count_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "machine_limits", lambda: limits.ProcessLimits(memory_mb=400))
    forks = "[os.fork() or (time.sleep(3), os._exit(0)) for _ in 'abc']"
    code = f"import os, time; kept = bytearray(b'x' * 2**20) * 200; {forks}; time.sleep(3)"
    assert run(trainer_text(before=code)).reason == ""


def test_there_are_no_core_dumps_and_no_endless_files(run: Run) -> None:
    check = "import resource as r; limits = [r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_FSIZE)[1]]"
    check += "; assert limits == [(0, 0), 64 * 2**30], limits"
    assert run(trainer_text(before=check)).reason == ""


HONEST = """
import ctypes, multiprocessing, os, socket, subprocess, sys, tempfile, threading, time
with tempfile.NamedTemporaryFile("w", suffix=".c", dir=tempfile.mkdtemp()) as source:
    source.write("int twice(int x) { return 2 * x; }")
    source.flush()
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "twice.so", source.name], check=True)
assert ctypes.CDLL(os.path.abspath("twice.so")).twice(21) == 42
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, 2]) == [1, 2]
a, b = socket.socketpair()
a.sendall(b"x")
assert b.recv(1) == b"x"
thread = threading.Thread(target=time.sleep, args=(0.01,))
thread.start()
thread.join()
assert subprocess.run(["uname"], capture_output=True, check=True).stdout
child = subprocess.Popen(["sleep", "60"])
child.kill()
assert child.wait() == -9
assert len(os.urandom(8)) == 8 and os.cpu_count() and open("/proc/meminfo").read() and os.listdir("/proc/self/fd")
assert time.localtime().tm_year > 2000 and os.path.expanduser("~") == os.getcwd()
from pathlib import Path
Path("touched").touch()
Path("touched").chmod(0o600)
os.utime("touched", (5, 5))
assert Path("touched").stat().st_mtime == 5 and Path("touched").stat().st_mode & 0o777 == 0o600
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.real_start
def test_honest_work_goes_on(run: Run) -> None:
    trial = run(trainer_text(before=f"exec({HONEST!r}, {{}})"))
    assert (trial.verdict, trial.reason) == ("scored", "")


@pytest.mark.real_start
def test_without_it_the_record_says_so(run: Run, monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    monkeypatch.setattr(tier, "_off", "--no-sandbox")
    trial = run(trainer_text(before=f"assert open({str(outside / 'secret')!r}).read() == 'val text'"))
    assert (trial.verdict, trial.sandbox) == ("scored", "none")
    assert {"files", "network"} <= set(trial.unenforced)


@pytest.mark.real_start
def test_a_sandbox_that_cannot_be_applied_runs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no module")
    monkeypatch.setattr(tier, "extension", lambda: str(broken))
    with pytest.raises(UserError, match=r"the sandbox could not be applied: ImportError.*--no-sandbox"):
        run(trainer_text(before="raise AssertionError('it ran')"))
