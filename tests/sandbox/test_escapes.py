"""Escapes, each tried from inside a real trial: the trial must find every one of them closed."""

from __future__ import annotations

import dataclasses
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
from support import trainer_text

import core
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


def probing(*actions: str) -> str:
    """A trainer that tries each expression and fails if one of them works."""
    tries = "\n".join(f"refused({action!r}, lambda: {action})" for action in actions)
    code = f"exec({PROBE + tries!r}, {{}})"
    return trainer_text(before=code)


def assert_closed(run: Run, *actions: str) -> None:
    trial = run(probing(*actions))
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert trial.sandbox == tier.available().name != "none"


def test_the_probe_sees_an_escape(run: Run) -> None:
    trial = run(probing("open('/dev/null').name"))
    assert trial.verdict == "crash"
    assert "open('/dev/null').name worked" in trial.reason


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that no trial is given, outside the one that its trainer lies in."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_text("val text")
        yield Path(folder)


def test_no_text_can_be_read(run: Run, cache: Path, corpus_folder: Path) -> None:
    encoded = next(path for path in (cache / "corpora").rglob("*") if path.is_file())
    text = next(path for path in corpus_folder.rglob("*.txt"))
    readable = [str(path) for path in (encoded, text)]
    assert all(Path(path).read_bytes() for path in readable)
    assert_closed(
        run,
        *(f"open({path!r}, 'rb').read(9)" for path in readable),
        f"os.listdir({str(cache)!r})",
        f"os.listdir({str(corpus_folder)!r})",
        f"os.link({readable[1]!r}, 'mine')",
        f"os.rename({readable[1]!r}, 'mine')",
    )


def test_no_persons_files_can_be_read(run: Run, outside: Path) -> None:
    home = Path.home()
    assert_closed(
        run,
        f"os.listdir({str(home)!r})",
        f"os.listdir({tempfile.gettempdir()!r})",
        f"open({str(outside / 'secret')!r}).read()",
        f"open({str(Path(core.__path__[0]).parent / 'pyproject.toml')!r}).read()",
        "open('/etc/shadow').read()",
        "open('/proc/kcore', 'rb').read(1)",
        "os.listdir('/var')",
    )


def test_nothing_of_a_campaign_but_its_trainer_can_be_read(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / ".git" / "autoresearch" / "ledger.db"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("rows")
    run(trainer_text())
    earlier = tmp_path / "trial" / "1" / "weights.safetensors"
    assert earlier.exists()
    trial = run(probing(f"open({str(ledger)!r})", f"open({str(earlier)!r})", f"os.listdir({str(tmp_path)!r})"))
    assert (trial.verdict, trial.reason) == ("scored", "")
    mine = "assert 'def main' in open(__file__).read()"
    assert run(trainer_text(before=mine)).verdict == "scored"


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


def test_nothing_outside_the_scratch_can_be_written(run: Run, outside: Path, tmp_path: Path) -> None:
    trainer = tmp_path / "train.py"
    assert_closed(
        run,
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
    )
    assert (outside / "secret").read_text() == "val text"


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


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, Any]]:
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
        yield {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": abstract.getsockname(),
            "path": path.getsockname(),
            "datagrams": datagrams.getsockname(),
        }


def test_no_network_and_no_socket_of_others_can_be_reached(run: Run, listeners: dict[str, Any]) -> None:
    stream, datagram = "socket.socket(socket.AF_UNIX)", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
    name, path = listeners["abstract"].decode(), listeners["path"]
    for reached in (f"\0{name[1:]}", path):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(reached)
    assert_closed(
        run,
        f"socket.create_connection(('127.0.0.1', {listeners['tcp']}), 5)",
        f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {listeners['udp']}))",
        "socket.create_server(('127.0.0.1', 0))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(40, socket.SOCK_STREAM)",  # vsock
        f"{stream}.connect({reached_abstract(name)!r})",
        f"{stream}.connect({path!r})",
        f"{datagram}.sendto(b'x', {listeners['datagrams']!r})",
        f"socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', {listeners['datagrams']!r})",
    )


def reached_abstract(name: str) -> str:
    return f"\0{name[1:]}"


def test_processes_outside_can_be_neither_signalled_nor_seen_into(run: Run) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        me = os.getpid()
        assert_closed(
            run,
            *(f"os.kill({pid}, 0)" for pid in (me, victim.pid)),
            f"os.kill({victim.pid}, 9)",
            "os.kill(os.getppid(), 15)",
            f"os.killpg({os.getpgid(me)}, 0)",
            *(f"open('/proc/{me}/{name}', 'rb').read(1)" for name in ("environ", "maps", "cmdline", "stat")),
            f"open('/proc/{me}/mem', 'rb')",
            f"os.listdir('/proc/{me}/fd')",
            f"open('/proc/{victim.pid}/mem', 'r+b')",
            "os.listdir('/proc')",
            f"call({number('ptrace')}, 16, {victim.pid}, 0, 0)",
            f"call({number('process_vm_readv')}, {victim.pid}, 0, 0, 0, 0, 0)",
            f"__import__('resource').prlimit({victim.pid}, 1)",
            f"os.setpriority(os.PRIO_PROCESS, {victim.pid}, 19)",
        )
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.communicate()


def test_system_calls_that_no_trainer_needs_are_refused(run: Run) -> None:
    names = (
        "io_uring_setup bpf perf_event_open userfaultfd unshare setns mount keyctl add_key shmget semget msgget "
        "mq_open reboot init_module pivot_root chroot open_by_handle_at pidfd_getfd swapoff sethostname fanotify_init"
    )
    assert_closed(
        run,
        *(f"call({number(name)}, 0, 0, 0, 0, 0, 0)" for name in names.split()),
        "__import__('time').clock_settime(__import__('time').CLOCK_REALTIME, 1e9)",
        f"call({number('settimeofday')}, ctypes.byref((ctypes.c_long * 2)(10**9, 0)), 0)",
        f"call({number('clone')}, 0x10000000 | 17, 0, 0, 0, 0)",
        "os.unshare(0x10000000) if hasattr(os, 'unshare') else call(-1)",
        "os.setuid(1) or os.setuid(12345)" if os.getuid() == 0 else "os.setuid(0)",
        "os.nice(-5)",
    )


def number(name: str) -> int:
    """A system call's number on this machine, as the kernel's headers for this compiler have it."""
    source = f"#include <sys/syscall.h>\nSYS_{name}\n"
    done = subprocess.run(["cc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


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


def test_honest_work_goes_on(run: Run) -> None:
    trial = run(trainer_text(before=f"exec({HONEST!r}, {{}})"))
    assert (trial.verdict, trial.reason) == ("scored", "")


def test_without_it_the_record_says_so(run: Run, monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    monkeypatch.setattr(tier, "_off", "--no-sandbox")
    trial = run(trainer_text(before=f"assert open({str(outside / 'secret')!r}).read() == 'val text'"))
    assert (trial.verdict, trial.sandbox) == ("scored", "none")
    assert {"files", "network"} <= set(trial.unenforced)


def test_a_sandbox_that_cannot_be_applied_runs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no module")
    monkeypatch.setattr(tier, "extension", lambda: str(broken))
    with pytest.raises(UserError, match=r"the sandbox could not be applied: ImportError.*--no-sandbox"):
        run(trainer_text(before="raise AssertionError('it ran')"))
