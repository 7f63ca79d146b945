"""A throw-away fleet on this machine, of the shape of the user's own, with a stand-in for their
application; what is done to it, and what it has. Faults are tried on it.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from . import machine, processes, replica
from .env import env
from .errors import Failed, Refused
from .loopback import Loopback
from .visitors import Visitors

NETWORKS = [f"127.0.{number}" for number in range(111, 120)]
ESCAPED = r"\040"  # a space, in /proc/mounts
PATIENCE = 90  # seconds that any `fab` of a rehearsal may take


class Run:
    """One `fab`, at work or ended; `text` is what it has printed, `before` what the hosts had."""

    def __init__(self, process, output, before):
        self.process, self.output, self.before = process, output, before

    @property
    def text(self):
        return self.output.read_text(errors="replace")

    def send(self, number):
        """A signal."""
        self.process.send_signal(number)

    def end(self):
        """Waits for its end; itself."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"fab did not end within {PATIENCE} s\n{self.text}") from None
        return self

    @property
    def code(self):
        """Its exit code; -9 is one that was killed."""
        return self.process.poll()


class Rehearsal:
    """The copy in `folder`, its fleet on `network`: of `hosts`, those of the user's inventory that
    get a release.
    """

    def __init__(self, folder, network, hosts):
        self.folder, self.root = folder, folder / ".sandbox"
        self.network = network
        self.everyone = [
            replace(host, private_dns=f"{network}.{n}", public_dns=f"{network}.{n}", user=None,
                    port=2222, vars={"max_startups": 6})
            for n, host in enumerate([*hosts, *cache_beside(hosts)], 1)
        ]
        self.hosts = self.everyone[:len(hosts)]
        self.cache = next(filter(is_cache, self.everyone), None)
        self.ahead = timedelta()  # the operator's clock
        self.runs = []
        self.ways = {}  # of each release: how it was meant to fare
        self.small_disk = False
        self.dead = []
        self.visitors = Visitors(self.doors)

    # ---- the fleet

    def up(self):
        """Starts the fleet with a first release on it. Failed where that does not work."""
        replica.build(self.folder, self.everyone)
        (self.folder / "operator").mkdir()
        self.fab("sandbox_up", code=0)
        self.small_disk = self.mount(self.place(self.victim))
        self.fab("setup", "deploy", *["deploy_nginx"] * bool(self.balancers), code=0)

    def down(self):
        """Ends every process of the fleet."""
        self.mend()
        if self.small_disk:
            subprocess.run(["umount", "--lazy", self.place(self.victim)], check=False)
        self.fab("sandbox_down", code=0)

    def mount(self, place):
        """Gives a host a small disk for its releases, where we may. Whether it has one."""
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=4000", "rehearsal", place]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def mend(self):
        """No fault is there any more, no run of before is at work; what is dead comes back."""
        for run in self.runs:
            if run.code is None:
                run.send(signal.SIGKILL)
                run.end()
        for host in self.hosts:
            self.signal_sshd(host, signal.SIGCONT)
            self.disarm(self.state(host))
        if self.small_disk:
            self.empty(self.place(self.victim))
        if self.dead:
            self.fab("-H", ",".join(host.name for host in self.dead), "sandbox_up", code=0)
            self.dead.clear()
            self.visitors.closed.clear()

    def disarm(self, state):
        """Nothing happens on a host at any step, nothing waits, all programs are its own."""
        for path in (*state.glob("before-*"), *state.glob("after-*"), state / "held"):
            path.unlink(missing_ok=True)
        shutil.rmtree(state / "bin", ignore_errors=True)

    def empty(self, place):
        """The small disk is writable, and has room."""
        if read(Path("/proc/mounts")).count(f" {str(place).replace(' ', ESCAPED)} ") > 1:
            subprocess.run(["umount", place], check=True)  # what made it read-only
        shutil.rmtree(place / "fillers", ignore_errors=True)
        (place / "filler").unlink(missing_ok=True)

    def start(self, *words, way="well", **settings):
        """A `fab` in the background. `way`: how the release that it deploys will fare. `settings`:
        lease=3 and the like, of fabric.yml's `deploy:`; fleet_silence=3 of another section.
        """
        date, number = f"{datetime.now(UTC) + self.ahead:%Y%m%d%H%M%S}", len(self.runs)
        self.ways.setdefault(date, way)
        (self.folder / "stamp").write_text(f"{number} {way}\n")
        output, before = self.folder / f"operator/{number}.log", self.currents()
        with output.open("w") as log:
            process = self.operator(
                "--deploy-date", date, *words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(settings))
        self.runs.append(Run(process, output, before))
        return self.runs[-1]

    def operator(self, *words, **kwargs):
        """A Popen of `fab`. Ctrl-C ends it, even where a shell has us in its background."""
        batch = ["--batch", env.batch] if env.batch else []
        command = ["env", "--default-signal=INT", sys.executable, "-m", "fabric", *batch, *words]
        kwargs = {"env": self.environment({}), **kwargs}
        return subprocess.Popen(command, cwd=self.folder, start_new_session=True, **kwargs)

    def environment(self, settings):
        """The operator's, with nothing in it that would reach another fleet."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("FABRIC_", "SSH_"))}
        named = {n if "_" in n else f"deploy_{n}": str(v) for n, v in settings.items()}
        ours = {f"FABRIC_{name.upper()}": value for name, value in named.items()}
        return {**kept, **ours, "HOME": str(self.folder / "operator")}

    def fab(self, *words, code=None, **settings):
        """A `fab` from beginning to end. Failed where it does not end with `code`."""
        run = self.start(*words, **settings).end()
        if code is not None and run.code != code:
            text = f"rehearsal: fab {' '.join(words)} ended with {run.code}, not {code}"
            raise Failed(f"{text}\n{run.text[-3000:]}")
        return run

    # ---- the hosts

    @cached_property
    def workers(self):
        """The hosts that have units."""
        return [host for host in self.hosts if env.units_of(host)]

    @cached_property
    def balancers(self):
        """The hosts with nginx, where there is something behind it."""
        return [host for host in self.hosts if "nginx" in host.roles] if self.webs else []

    @cached_property
    def webs(self):
        """host → the port at which it answers visitors."""
        ports = {name: replica.port(unit) for name, unit in env.units.items()}
        return {host: ports[name] for host in self.workers for name in env.units_of(host)
                if ports[name]}

    @property
    def doors(self):
        """host → port of where visitors come in."""
        return dict.fromkeys(self.balancers, env.nginx.port) or self.webs

    @cached_property
    def victim(self):
        """The host that a fault befalls."""
        return ([host for host in self.workers if host in self.webs] or self.workers)[-1]

    def victim_at(self, step):
        """The same, at a step that only one host takes part in."""
        return self.workers[0] if step == "migrate" else self.victim

    def state(self, host):
        """The sandbox's own folder for a host, where its faults are."""
        return self.root / "state" / host.name

    def place(self, host):
        """Where a host's releases are."""
        return self.root / "hosts" / host.name / replica.DEPLOY_TO

    def loopback(self, host):
        return Loopback(self.root, host.name, host)

    def current(self, host):
        """The release that `current` names; None without one."""
        link = self.place(host) / "current"
        return link.readlink().name if link.is_symlink() else None

    def runs_from(self, host):
        """The release of each process of the application, by its pinned folder."""
        mark = self.loopback(host).mark
        found = [pid for pid in processes.pids() if processes.has(pid, mark)]
        return [release for pid in found if (release := serving(pid))]

    def runs_current(self, host):
        """Whether all its processes run what its `current` names."""
        return self.runs_from(host) == [self.current(host)] * self.wanted(host)

    def wanted(self, host):
        """How many processes a host should have."""
        return sum(env.units[name].processes for name in env.units_of(host))

    def currents(self):
        """host → the release that its `current` names."""
        return {host: self.current(host) for host in self.hosts}

    @property
    def good(self):
        """The releases that are well."""
        return {date for date, way in self.ways.items() if way == "well"}

    # ---- faults on a host

    def signal_sshd(self, host, number):
        """A signal to a host's sshd and its sessions, not to what they run."""
        leader = processes.recorded(self.loopback(host).sshd)
        for process in processes.family([leader] if leader else []):
            if processes.command_line(process.pid).startswith(("sshd", "/usr/sbin/sshd")):
                process.send(number)

    def lease_over(self):
        """Waits until no lease holds, and what was switched has gone back by itself."""
        states = [self.place(host) / "state" for host in self.hosts]
        if not processes.wait_for(lambda: all(map(is_over, states)), 30):
            raise Failed("30 s later a lease still holds, or a switch is not taken back")
        if not processes.wait_for(lambda: all(map(self.runs_current, self.hosts)), 30):
            raise Failed("30 s later a host has gone back, and its processes have not")

    def stop_sshd(self, host):
        """It listens no more, until mend()."""
        self.dead.append(host)
        processes.recorded(self.loopback(host).sshd).send(signal.SIGTERM)

    def power_off(self, host):
        """All that runs on a host is gone, until mend()."""
        self.dead.append(host)
        self.visitors.closed.add(host)
        self.signal_sshd(host, signal.SIGKILL)  # first, or it would tell how its sessions ended
        loopback = self.loopback(host)
        leaders = [processes.recorded(record) for record in (loopback.sshd, loopback.supervisord)]
        leaders = list(filter(None, leaders))
        processes.wait_for(
            lambda: not processes.kill(processes.family(leaders, loopback.mark)), 10)

    def end_cache(self):
        """The memcached that the stand-in asks is gone, until mend()."""
        self.dead.append(self.cache)
        self.loopback(self.cache).call("stopProcess", "memcached")

    def arm(self, host, moment, step, text):
        """What happens on a host `before` or `after` a step: a shell text."""
        (self.state(host) / f"{moment}-{step}").write_text(text)

    def shim(self, host, program, text):
        """A program of that name comes before the real one."""
        path = self.state(host) / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def held(self, step, *words, **settings):
        """A `fab deploy` that has come to a step, which its victim begins when it may go_on()."""
        host = self.victim_at(step)
        self.arm(host, "before", step, "hold\n")
        run = self.start(*(words or ["deploy"]), **settings)
        held = self.state(host) / "held"
        processes.wait_for(lambda: held.exists() or run.code is not None, PATIENCE)
        if not held.exists():
            raise Failed(f"the run ended before {step}, with {run.code}\n{run.text[-2000:]}")
        return run

    def go_on(self):
        """What was held goes on."""
        for host in self.hosts:
            (self.state(host) / "held").unlink(missing_ok=True)


def is_cache(host):
    return "memcached" in host.roles


def cache_beside(hosts):
    """Of the user's inventory, the first host with a memcached, if none of `hosts` has one and
    this machine can run it. It has nothing else here.
    """
    if any(map(is_cache, hosts)) or not machine.find_program("memcached"):
        return []
    found = filter(is_cache, env.inventory.hosts)
    return [replace(host, roles=("memcached",)) for host in found][:1]


def serving(pid):
    """The release that a process of the stand-in runs; None for any other process."""
    try:
        if "serve.py" not in processes.command_line(pid).split()[1:2]:
            return None
        return Path(os.readlink(f"/proc/{pid}/cwd")).name
    except OSError:
        return None


def is_over(state):
    """Whether a host's lease has ended and no switch of it waits for its commit."""
    found = re.search(r"^until (\d+)$", read(state / "lock"), re.M)
    return (not found or int(found[1]) < time.time()) and not (state / "pending").exists()


def read(path):
    """A file's text; '' where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


@contextmanager
def free_network():
    """One of our networks that nobody uses, kept from others until the end of the block. Refused
    where there is none.
    """
    with ExitStack() as stack:
        free = next((network for network in NETWORKS if is_kept(network, stack)), None)
        if not free:
            span = f"{NETWORKS[0]} to {NETWORKS[-1]}"
            raise Refused(f"{span} are in use: let another rehearsal end first")
        yield free


def is_kept(network, stack):
    """Whether nobody had it; now its last address is bound as long as the stack lasts."""
    mark = stack.enter_context(socket.socket())
    with suppress(OSError):
        mark.bind((f"{network}.254", 2222))
        return not processes.listeners(f"{network}.1", 2222)
    return False
