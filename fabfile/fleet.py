"""One connection a host for the whole run, a bounded parallel map, and host → outcome."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import fabric
from invoke.exceptions import UnexpectedExit

from .env import env
from .errors import Failed, Interrupted, Stop, Unreachable, Usage, worst
from .ssh import Addresses, Remote, end_work, open_connection, read_ssh_config


class FleetTask(fabric.tasks.Task):
    """A Fabric task that knows roles (a list, or a function that gives it when the run starts).

    once: called once a run with a Fleet, not once a host. everything: all hosts where the command
    line chooses none. any_host: hosts that servers.json does not know are accepted.
    """

    def __init__(self, *args, roles=(), once=False, everything=False, any_host=False, **kwargs):
        super().__init__(*args, auto_shortflags=False, **kwargs)
        self.roles = roles
        self.once = once
        self.everything = everything
        self.any_host = any_host


task = partial(fabric.task, klass=FleetTask)
once = partial(fabric.task, klass=FleetTask, once=True)


@dataclass
class Outcome:
    """What became of one step on one host."""

    host: object
    kind: type | None = None  # the Stop that it is; None is ok
    code: int | None = 0
    stdout: str = ""
    stderr: str = ""
    value: object = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def ok(self):
        return self.kind is None

    @property
    def state(self):
        """In one word: ok, failed, unreachable, interrupted …"""
        return self.kind.__name__.lower() if self.kind else "ok"

    def stop(self):
        """This outcome as the Stop that it is, naming the host."""
        return self.kind(f"{self.host.name}: {self.reason}")


class Outcomes(dict):
    """host → Outcome; everybody was waited for."""

    @property
    def failed(self):
        return Outcomes({host: outcome for host, outcome in self.items() if not outcome.ok})

    def check(self):
        """Itself, or the Stop that tells most, naming every host that failed and why."""
        stops = [outcome.stop() for outcome in self.failed.values()]
        if stops:
            raise type(worst(stops))("\n".join(str(stop) for stop in stops))
        return self


@dataclass(frozen=True)
class Event:
    """What a listener hears: kind is begin, host, sent, output, done, end, say or table."""

    kind: str
    step: str = ""
    host: object = None
    data: object = None
    seconds: float = 0.0


@dataclass
class Session:
    """What all fleets of a run share: connections, listeners, Ctrl-C, and what happened."""

    config: object
    listener: object = field(default=lambda event: None)
    pool_size: int = 32
    skip_bad_hosts: bool = False

    def __post_init__(self):
        folder = env.inventory.path.parent
        if not self.config.get("runtime_ssh_path"):
            self.config.base_ssh_config = read_ssh_config(env.fleet.ssh_config, folder)
        self.addresses = Addresses(self.config)
        self.connections = {}
        self.bad_hosts = {}
        self.history = []
        self.cancelled = threading.Event()
        self.lock = threading.Lock()

    def prepare(self, hosts):
        """A Connection for each host, jump hosts opened once and before all others."""
        for host in hosts:
            if host not in self.connections and host not in self.bad_hosts:
                self.connections[host] = self.addresses.connection(host)

    def connection(self, host):
        """The open Connection to `host`. Unreachable if it can't be had."""
        connection = self.connections[host]
        if not connection.is_connected:
            open_connection(connection)
        return connection

    def end_work(self):
        """Ends whatever this run has running on its hosts."""
        with ThreadPoolExecutor(self.pool_size) as pool:
            list(pool.map(end_work, filter(lambda c: c.is_connected, self.connections.values())))

    def close(self):
        """Closes every connection; the jump hosts' last."""
        for connection in [*self.connections.values(), *self.addresses.gateways.values()]:
            connection.close()


class HostStream:
    """A text stream whose lines are said by a host."""

    def __init__(self, host, listener):
        self.host = host
        self.listener = listener
        self.rest = ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for said in lines:
            self.listener(Event("say", host=self.host, data=said.rstrip("\r")))

    def flush(self):
        """Lines are said when they are whole."""


class DryConnection(fabric.Connection):
    """What `--dry` hands to per-host tasks: it says what it would do and opens nothing."""

    def __init__(self, address, out):
        super().__init__(address)
        self.out = out

    def run(self, command, **kwargs):
        self.out.write(f"{command}\n")
        return fabric.Result(connection=self, command=command, exited=0)

    def sudo(self, command, **kwargs):
        return self.run(f"sudo {command}")

    def put(self, local, remote=None, **kwargs):
        self.out.write(f"# put {local} {remote or ''}\n")

    def get(self, remote, local=None, **kwargs):
        self.out.write(f"# get {remote} {local or ''}\n")


class Fleet:
    """The chosen hosts of a run. Every method that reaches them waits for all of them."""

    def __init__(self, hosts, session, listener=None):
        self.hosts = tuple(hosts)
        self.session = session
        self.listener = listener or session.listener
        self.inventory = env.inventory

    def only(self, hosts):
        """The same run with fewer hosts."""
        return Fleet(hosts, self.session, self.listener)

    def quiet(self):
        """The same hosts and connections, with nobody listening."""
        return self if env.dry else Fleet(self.hosts, self.session, listener=lambda event: None)

    def having(self, *roles):
        """The same run with the hosts that have one of `roles`."""
        return self.only(host for host in self.hosts if set(roles) & set(host.roles))

    def batches(self):
        """The hosts as the tuples that `--batch N|N%` asks for; one tuple without it."""
        size = batch_size(env.batch, len(self.hosts))
        return [self.hosts[i : i + size] for i in range(0, len(self.hosts), size)]

    def run(self, command, *, hosts=None, step="", stdin=None, deadline=None):
        """Runs `command` (text, or host → text) on each host; `stdin` is bytes, a Path, or
        host → one of them. Outcomes with exit code, stdout and stderr; a code not 0 is a failure.
        """
        if env.dry:
            return self._print(command, hosts, step)

        def on_host(host):
            text, source = called(command, host), called(stdin, host)
            return self._remote(host, text, stdin=source, step=step, deadline=deadline)

        return self._fan_out(on_host, hosts, step, reach=True)

    def map(self, function, *, hosts=None, step=""):
        """`function(host)` for each host in the bounded pool; its value is in outcome.value."""
        if env.dry:
            return self._print(lambda host: f"# {step or function.__name__}", hosts, step)
        return self._fan_out(lambda host: Outcome(host, value=function(host)), hosts, step)

    def connect(self, function, *, hosts=None, step=""):
        """`function(connection)` for each host, as Fabric's tasks want it."""

        def on_host(host):
            return Outcome(host, value=function(self._talking(host)))

        return self._fan_out(on_host, hosts, step, reach=True)

    def _talking(self, host):
        """Its connection, whose c.run() speaks through the listener; with --dry it only speaks."""
        out = HostStream(host, self.listener)
        if env.dry:
            return DryConnection(env.address(host), out)
        connection = self.session.connection(host)
        connection.config.run.update(out_stream=out, err_stream=out, in_stream=False)
        return connection

    def say(self, text, host=None):
        """One line for people."""
        self.listener(Event("say", host=host, data=text))

    def table(self, title, columns, rows):
        """An answer of rows of text: a table for people, an object with --json."""
        if not env.dry:
            self.listener(Event("table", step=title, data=(columns, rows)))

    def _print(self, command, hosts, step):
        hosts = self.hosts if hosts is None else tuple(hosts)
        for host in hosts:
            self.say(called(command, host), host)
        return Outcomes({host: Outcome(host) for host in hosts})

    def _remote(self, host, command, *, stdin, step, deadline):
        connection = self.session.connection(host)
        emit = self.listener
        remote = Remote(
            connection, command, stdin=stdin, deadline=deadline, cancelled=self.session.cancelled
        )
        code, stdout, stderr = remote.run(
            on_output=lambda name, data: emit(Event("output", step, host, (name, data))),
            on_sent=lambda count: emit(Event("sent", step, host, count)),
        )
        reason = "" if code == 0 else last_words(stderr or stdout) or f"exit status {code}"
        return Outcome(host, Failed if code else None, code, stdout, stderr, None, reason)

    def _fan_out(self, function, hosts, step, *, reach=False):
        """function(host) → Outcome in the pool; Ctrl-C ends remote work, then is raised."""
        hosts = self.hosts if hosts is None else tuple(hosts)
        hosts = [host for host in hosts if host not in self.session.bad_hosts]
        if reach and not env.dry:
            self.session.prepare(hosts)
        started = time.monotonic()
        self.listener(Event("begin", step, data=hosts))
        size = 1 if env.dry else self.session.pool_size
        with ThreadPoolExecutor(max(1, min(size, len(hosts)))) as pool:
            futures = [pool.submit(self._guarded, function, host, step) for host in hosts]
            interrupted = not self._wait(futures)
        outcomes = Outcomes({future.result().host: future.result() for future in futures})
        if self.listener is self.session.listener:
            self.session.history.append((step, outcomes))
        seconds = time.monotonic() - started
        self.listener(Event("end", step, data=outcomes, seconds=seconds))
        if interrupted:
            self.session.cancelled.clear()
            raise Interrupted(f"interrupted during {step or 'a command'}")
        return self._without_bad_hosts(outcomes)

    def _wait(self, futures):
        """Waits for all; False if Ctrl-C came: then remote work was told to end, and waited for."""
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            self.session.cancelled.set()
            self.session.end_work()
            return False
        return True

    def _guarded(self, function, host, step):
        started = time.monotonic()
        self.listener(Event("host", step, host))
        try:
            if self.session.cancelled.is_set():
                raise Interrupted("not started")
            outcome = function(host)
        except (Stop, OSError, UnexpectedExit) as error:
            outcome = failure(host, error)
        outcome.seconds = time.monotonic() - started
        self.listener(Event("done", step, host, outcome, outcome.seconds))
        return outcome

    def _without_bad_hosts(self, outcomes):
        """With --skip-bad-hosts, unreachable hosts leave the run and are only reported."""
        if not self.session.skip_bad_hosts:
            return outcomes
        bad = {host: o for host, o in outcomes.items() if o.kind is Unreachable}
        self.session.bad_hosts |= bad
        self.hosts = tuple(host for host in self.hosts if host not in bad)
        return Outcomes({host: o for host, o in outcomes.items() if host not in bad})


def failure(host, error):
    """The Outcome for an exception: a Stop stays what it is; a failed c.run has its last words."""
    if isinstance(error, UnexpectedExit):
        result = error.result
        reason = last_words(result.stderr or result.stdout) or f"exit status {result.exited}"
        return Outcome(host, Failed, result.exited, result.stdout, result.stderr, None, reason)
    kind = type(error) if isinstance(error, Stop) else Failed
    return Outcome(host, kind, None, reason=str(error))


def called(value, host):
    """`value(host)` if it can be called, else `value`."""
    return value(host) if callable(value) else value


def last_words(text, lines=4):
    """The last lines of what a command said, joined for one report."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def batch_size(spec, count):
    """How many hosts a batch has: `None` is all, "3" three, "25%" a quarter rounded up."""
    if spec is None:
        return max(1, count)
    number, percent = spec.removesuffix("%"), spec.endswith("%")
    if not number.isdigit() or int(number) < 1 or (percent and int(number) > 100):
        raise Usage(f"--batch takes a number of hosts or 1% to 100%, not {spec!r}")
    return math.ceil(count * int(number) / 100) if percent else int(number)
