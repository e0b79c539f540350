"""Dockerfiles carried out in a clean Debian, and containers of what they make, by root where no engine is.

A base image `python:X-slim-SUITE` is Debian SUITE with Debian's own Python X as /usr/local/bin/python. Instructions
mean what Docker's reference says, as far as our files use them; any other is an error. Nothing but the lock's wheels
can be installed: they are downloaded first, and no RUN has a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "roots"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, where a file sets none
NAMESPACES = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
NO_PRIVILEGES = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
POD_ADDRESS = "10.44.0.7"
ASK = """
import sys, urllib.error, urllib.request
url, body, *headers = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, dict(zip(headers[::2], headers[1::2])))
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(f"{answer.status}\\n{answer.read().decode()}")
"""


@dataclass
class Image:
    """A root folder and what its Dockerfile says of running it."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0"
    workdir: str = "/"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def account(self, user: str) -> tuple[str, str]:
        """The group and the home of a user id, as the image's own /etc/passwd has them."""
        for line in (self.root / "etc" / "passwd").read_text().splitlines():
            _, _, uid, group, _, home, _ = line.split(":")
            if uid == user:
                return group, home
        return "0", "/"

    def with_variables(self, variables: dict[str, str]) -> Image:
        """The image with variables that a manifest adds."""
        return replace(self, environment=self.environment | variables)


@dataclass(frozen=True)
class Limits:
    """What a manifest allows a container: mounts by path, folders in memory with their options, privileges."""

    user: str = ""  # else the image's
    groups: tuple[str, ...] = ()
    mounts: dict[str, Path] = field(default_factory=dict)  # read-only
    writable: dict[str, Path] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)
    read_only: bool = False
    no_privileges: bool = False


NO_LIMITS = Limits()


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """One process at a time makes what lies at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Skip the test where the network does not give what an image is made of."""
    try:
        yield
    except (subprocess.CalledProcessError, AssertionError) as error:
        pytest.skip(f"{what} cannot be had here: {str(getattr(error, 'stdout', None) or error)[-300:]}")


def make_base(image: str) -> Path:
    """The root of a base image, from Debian's packages; made once."""
    parts = re.fullmatch(r"python:(3\.\d+)-slim-(\w+)(@sha256:\w{64})?", image)
    assert parts, f"no Debian and Python are named by {image}"
    python, suite, _ = parts.groups()
    root = CACHE / f"{suite}-python{python}"
    with hold_lock(root):
        if not root.is_dir():
            made = root.with_name(f"{root.name}.made")
            shutil.rmtree(made, ignore_errors=True)
            packages = f"--include=ca-certificates,python{python}-venv"
            with fetching("Debian's packages"):
                command = ["debootstrap", "--variant=minbase", packages, suite, made]
                subprocess.run(command, check=True, capture_output=True, text=True)
                enter(Image(made), [f"python{python}", "-m", "venv", "/usr/local"])
            made.rename(root)
    return root


def download_wheels(base: Path, lock: Path) -> Path:
    """The wheels of a lock file for the Python of a base, over the network of this machine; downloaded once."""
    wheels = CACHE / f"wheels-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    with hold_lock(wheels):
        if not wheels.is_dir():
            made = wheels.with_name(f"{wheels.name}.made")
            made.mkdir(exist_ok=True)
            settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            image = Image(base, {"PATH": PATH} | settings)
            files = {"/etc/resolv.conf": Path("/etc/resolv.conf"), "/etc/ssl": Path("/etc/ssl"), "/opt": lock.parent}
            pip = "pip download -q --no-cache-dir --require-hashes --only-binary :all: -d /mnt"
            limits = Limits(mounts=files, writable={"/mnt": made})
            with fetching("the wheels of the lock"):
                enter(image, [*pip.split(), "-r", f"/opt/{lock.name}"], limits, network=True)
            made.rename(wheels)
    return wheels


def _script(image: Image, command: list[str], limits: Limits, network: bool) -> str:
    """What the shell does in namespaces of its own: the mounts, then the command in the root, as the user."""
    root = shlex.quote(str(image.root))
    lines = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
    lines.append(f"mount -t tmpfs -o size=64m,mode=1777 tmpfs {root}/dev/shm")  # as much as an engine gives
    for target, source in (limits.mounts | limits.writable).items():
        lines.append(f"mount --bind {shlex.quote(str(source))} {root}{target}")
        if target not in limits.writable:
            lines.append(f"mount -o remount,bind,ro {root}{target}")
    lines += [f"mount -t tmpfs -o {options} tmpfs {root}{target}" for target, options in limits.memory.items()]
    if limits.read_only:
        lines.append(f"mount -o remount,bind,ro {root}")
    if not network:
        lines += ["ip link set lo up", f"ip address add {POD_ADDRESS}/32 dev lo"]
    return "\n".join([*lines, f"exec chroot {root} {shlex.join(_as_user(image, command, limits))}"])


def _as_user(image: Image, command: list[str], limits: Limits) -> list[str]:
    """The command with the user, the privileges, the folder and the environment of a container."""
    user = limits.user or image.user
    group, home = image.account(user)
    groups = [f"--groups={','.join(limits.groups)}"] if limits.groups else ["--clear-groups"]
    variables = [f"{name}={value}" for name, value in ({"HOME": home} | image.environment).items()]
    privileges = NO_PRIVILEGES if limits.no_privileges else []
    become = ["setpriv", f"--reuid={user}", f"--regid={group}", *groups, *privileges]
    return [*become, "env", "-i", "-C", image.workdir, *variables, *command]


def enter(image: Image, command: list[str], limits: Limits = NO_LIMITS, network: bool = False) -> str:
    """Run a command in an image to its end: what it printed. AssertionError with that where it fails."""
    _make_targets(image, limits)
    script = _script(image, command, limits, network)
    unshare = [*NAMESPACES, *([] if network else ["--net"]), "sh", "-c", script]
    ended = subprocess.run(unshare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, f"{shlex.join(command)}: exit code {ended.returncode}\n{ended.stdout[-4000:]}"
    return ended.stdout


def _make_targets(image: Image, limits: Limits) -> None:
    """What is mounted over, as an engine makes it where an image has it not."""
    folders = {target: None for target in limits.memory}
    for target, source in (folders | limits.mounts | limits.writable).items():
        path = image.root / target.lstrip("/")
        if source is not None and source.is_file():
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)


def read_dockerfile(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name.upper(), rest.strip()) for name, rest in (line.split(maxsplit=1) for line in joined)]


def build(dockerfile: Path, context: Path, work: Path) -> Image:
    """Carry out a Dockerfile over the folder of its context; roots are made below `work`."""
    instructions = read_dockerfile(dockerfile)
    bases = [make_base(rest.split()[0]) for name, rest in instructions if name == "FROM"]
    wheels = download_wheels(bases[0], context / "requirements-image.lock")
    stages: dict[str, Image] = {}
    image = Image(work)
    for name, rest in instructions:
        if name == "FROM":
            stage = rest.split(" AS ")[-1]
            image = stages[stage] = Image(work / f"root{len(stages)}")
            subprocess.run(["cp", "-a", bases[len(stages) - 1], image.root], check=True)
        elif name == "RUN":
            pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt"}
            enter(image.with_variables(pip), ["/bin/sh", "-c", rest], Limits(mounts={"/mnt": wheels}))
        elif name == "COPY":
            _copy(image, context, stages, shlex.split(rest))
        else:
            _set(image, name, rest)
    return image


def _copy(image: Image, context: Path, stages: dict[str, Image], words: list[str]) -> None:
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    assert options.keys() <= {"from", "chown"}, options
    *sources, target = [word for word in words if not word.startswith("--")]
    start = stages[options["from"]].root if "from" in options else context
    into = image.root / str(Path(image.workdir, target)).lstrip("/")
    for source in sources:
        path = start / source.lstrip("/")
        assert path.exists(), f"COPY {source}: not in the context"
        to = into if path.is_dir() else into / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        links = ["-l"] if "from" in options else []  # nothing more happens in that stage
        subprocess.run(["cp", "-aT", *links, path, to], check=True)
        if not links:
            owner = options.get("chown", "0")
            subprocess.run(["chown", "-R", f"{owner}:{owner}", to], check=True)


def _set(image: Image, name: str, rest: str) -> None:
    """An instruction that runs nothing."""
    if name == "ENV":
        for word in shlex.split(rest):
            variable, value = word.split("=", 1)
            image.environment[variable] = re.sub(r"\$(\w+)", lambda match: image.environment[match[1]], value)
    elif name == "USER":
        image.user = rest
    elif name in ("WORKDIR", "VOLUME"):
        (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        image.workdir = rest if name == "WORKDIR" else image.workdir
    elif name == "CMD":
        image.command = json.loads(rest)
    elif name == "HEALTHCHECK":
        image.health = json.loads(rest[rest.index("CMD") + 3 :])
    else:
        assert (name, rest) == ("STOPSIGNAL", "SIGTERM") or name == "EXPOSE", f"{name} {rest} is not understood here"


@dataclass
class Container:
    """A process in an image, its first, in namespaces of its own."""

    image: Image
    limits: Limits
    process: subprocess.Popen
    log_file: Path

    @property
    def init(self) -> int:
        """The process id of the first process, outside."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if children := Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                return int(children[0])
            time.sleep(0.05)
        raise AssertionError(self.log())

    @property
    def network(self) -> list[str]:
        """What starts a command of this machine in the container's network."""
        return ["nsenter", f"--target={self.init}", "--net"]

    def log(self) -> str:
        """All that it printed."""
        return self.log_file.read_text()

    def run(self, command: list[str]) -> subprocess.CompletedProcess:
        """Another command in the container, as its user: a health check."""
        inside = ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--ipc", "--uts", "--root"]
        return subprocess.run([*inside, *_as_user(self.image, command, self.limits)], capture_output=True, text=True)

    def ask(self, url: str, body: str = "", **headers: str) -> tuple[int, str]:
        """Status and body of a response over the container's network."""
        names = [word for name, value in headers.items() for word in (name.replace("_", "-"), value)]
        command = [*self.network, sys.executable, "-c", ASK, url, body, *names]
        answer = subprocess.run(command, capture_output=True, text=True)
        status, _, text = answer.stdout.partition("\n")
        return int(status or 0), text

    def wait(self, url: str) -> None:
        """Until a probe is answered with 200."""
        deadline = time.monotonic() + 600
        while self.ask(url)[0] != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.5)

    def peak_bytes(self) -> int:
        """The most memory of its first process and that one's children, each at its own peak."""
        children = Path(f"/proc/{self.init}/task/{self.init}/children").read_text().split()
        peaks = [Path(f"/proc/{process}/status").read_text() for process in (self.init, *children)]
        return sum(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", peak)[1]) for peak in peaks)

    def stop(self) -> int:
        """The exit code after SIGTERM to the first process."""
        os.kill(self.init, signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def start(
    image: Image,
    log_file: Path,
    limits: Limits = NO_LIMITS,
    command: list[str] | None = None,
    beside: Container | None = None,
) -> Iterator[Container]:
    """The command of an image, or another; killed at the end. Its network is its own, or that of another container."""
    _make_targets(image, limits)
    script = _script(image, command or image.command, limits, beside is not None)
    network = ["--net"] if beside is None else []
    join = [] if beside is None else beside.network
    with log_file.open("wb") as log:
        process = subprocess.Popen([*join, *NAMESPACES, *network, "sh", "-c", script], stdout=log, stderr=log)
    try:
        yield Container(image, limits, process, log_file)
    finally:
        process.kill()
        process.wait()
