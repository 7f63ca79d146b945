"""One connection a host for the whole run, a bounded parallel map, and host → outcome."""

import math
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

import fabric
from invoke.exceptions import UnexpectedExit

from .env import env
from .errors import Failed, Interrupted, Stop, Unreachable, Usage, worst
from .gate import Gate
from .perhost import DryConnection, last_words, speaking
from .remote import Remote
from .ssh import SYSTEM_WIDE, Addresses, open_connection, read_ssh_config


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
        chosen = self.config._runtime_ssh_path  # fab -S FILE
        paths = [chosen] if chosen else [*env.fleet.ssh_config, SYSTEM_WIDE]
        self.config.base_ssh_config = read_ssh_config(paths, env.inventory.path.parent)
        self.addresses = Addresses(self.config)
        self.connections = {}
        self.no_way = {}
        self.bad_hosts = {}
        self.chosen = {}
        self.history = []
        self.cancelled = threading.Event()

    def prepare(self, hosts):
        """A Connection for each host, jump hosts opened once and before all others."""
        for host in hosts:
            if host not in self.connections:
                try:
                    self.connections[host] = self.addresses.connection(host)
                except Unreachable as error:
                    self.no_way[host] = error

    def connection(self, host):
        """The open Connection to `host`. Unreachable if it can't be had."""
        if host in self.no_way:
            raise self.no_way[host]
        connection = self.connections[host]
        if not connection.is_connected:
            open_connection(connection)
        return connection

    def close(self):
        """Closes every connection; the jump hosts' last."""
        for connection in self.connections.values():
            connection.close()
        self.addresses.close()


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

    def run(self, command, *, hosts=None, step="", stdin=None, deadline=None, reads=False):
        """Runs `command` (text, or host → text) on each host; `stdin` is bytes, a Path, or
        host → one of them. Outcomes with exit code, stdout and stderr; a code not 0 is a failure.
        One that only `reads` is run with --dry too.
        """
        if env.dry and not reads:
            return self._print(command, hosts, step)

        def on_host(host):
            text, source = called(command, host), called(stdin, host)
            return self._remote(host, text, stdin=source, step=step, deadline=deadline)

        return self._fan_out(on_host, [self._these(hosts)], step, reach=True)

    def run_together(self, command, *, hosts=None, step=""):
        """The same, on all hosts at once whatever their number, with commands that say READY and
        wait for WORD: they get it once all of them are ready, and none gets it if one fails.
        """
        if env.dry:
            return self._print(command, hosts, step)
        hosts = self._these(hosts)
        gate = Gate(len(hosts))

        def on_host(host):
            try:
                return self._remote(host, called(command, host), gate=gate, step=step)
            finally:
                gate.shut()

        return self._fan_out(on_host, [hosts], step, reach=True, at_once=len(hosts))

    def map(self, function, *, hosts=None, step=""):
        """`function(host)` for each host in the bounded pool; its value is in outcome.value."""
        if env.dry:
            return self._print(lambda host: f"# {step or function.__name__}", hosts, step)

        def on_host(host):
            return Outcome(host, value=function(host))

        return self._fan_out(on_host, [self._these(hosts)], step)

    def _these(self, hosts):
        """Those that are meant, without the ones that have left the run."""
        meant = self.hosts if hosts is None else hosts
        return tuple(host for host in meant if host not in self.session.bad_hosts)

    def connect(self, function, *, groups=None, step=""):
        """`function(connection)` for each host, as Fabric's tasks want it. Of `groups` of hosts,
        one begins when the one before has ended well.
        """

        def on_host(host):
            return Outcome(host, value=function(self._talking(host)))

        groups = [self._these(group) for group in groups or [self.hosts]]
        return self._fan_out(on_host, groups, step, reach=not env.dry)

    def _talking(self, host):
        """Its connection, whose c.run() speaks through the listener; with --dry it only speaks."""
        say = partial(self.say, host=host)
        if env.dry:
            return DryConnection(env.address(host), say)
        return speaking(self.session.connection(host), say, self.session.cancelled)

    def say(self, text, host=None):
        """One line for people."""
        self.listener(Event("say", host=host, data=text))

    def table(self, title, columns, rows):
        """An answer of rows of text: a table for people, an object with --json."""
        if not env.dry:
            self.listener(Event("table", step=title, data=(columns, rows)))

    def _print(self, command, hosts, step):
        hosts = self._these(hosts)
        for host in hosts:
            self.say(called(command, host), host)
        return Outcomes({host: Outcome(host) for host in hosts})

    def _remote(self, host, command, *, step, **settings):
        connection = self.session.connection(host)
        emit = self.listener
        remote = Remote(connection, command, cancelled=self.session.cancelled, **settings)
        code, stdout, stderr = remote.run(
            on_output=lambda name, data: emit(Event("output", step, host, (name, data))),
            on_sent=lambda count, total: emit(Event("sent", step, host, (count, total))),
        )
        reason = "" if code == 0 else last_words(stderr or stdout) or f"exit status {code}"
        return Outcome(host, Failed if code else None, code, stdout, stderr, None, reason)

    def _fan_out(self, function, groups, step, *, reach=False, at_once=None):
        """function(host) → Outcome, group after group until one fails."""
        started, outcomes = time.monotonic(), Outcomes()
        self.listener(Event("begin", step))
        try:
            for hosts in groups:
                if reach:
                    self.session.prepare(hosts)
                self._work(function, hosts, step, outcomes, at_once or self.session.pool_size)
                if self._without_bad_hosts(outcomes).failed:
                    break
        finally:
            self._ended(step, outcomes, time.monotonic() - started)
        return self._without_bad_hosts(outcomes)

    def _ended(self, step, outcomes, seconds):
        if self.listener is self.session.listener:
            self.session.history.append((step, outcomes))
        self.listener(Event("end", step, data=outcomes, seconds=seconds))

    def _work(self, function, hosts, step, outcomes, at_once):
        """Adds the outcomes of one group, from the pool; everybody is waited for. At Ctrl-C that
        is after what runs was told to end; then it is raised.
        """
        size = 1 if env.dry else at_once
        futures = []
        with ThreadPoolExecutor(max(1, min(size, len(hosts)))) as pool:
            work = (pool.submit(self._guarded, function, host, step) for host in hosts)
            interrupted = not self._wait(futures, work)
        outcomes |= {future.result().host: future.result() for future in futures}
        if interrupted:
            self.session.cancelled.clear()
            raise Interrupted(f"interrupted during {step or 'a command'}")

    def _wait(self, futures, work):
        """Begins all and waits for it; False if Ctrl-C came, of which all that runs was told."""
        try:
            futures += work
            wait(futures)
            return True
        except KeyboardInterrupt:
            self.session.cancelled.set()
            wait(futures)
            return False

    def _guarded(self, function, host, step):
        started = time.monotonic()
        self.listener(Event("host", step, host))
        try:
            if self.session.cancelled.is_set():
                raise Interrupted("not started")
            outcome = function(host)
        except Exception as error:
            outcome = failure(host, error)
        outcome.seconds = time.monotonic() - started
        self.listener(Event("done", step, host, outcome, outcome.seconds))
        return outcome

    def _without_bad_hosts(self, outcomes):
        """With --skip-bad-hosts, unreachable hosts leave the run, unless all are."""
        bad = {host: o for host, o in outcomes.items() if o.kind is Unreachable}
        if not self.session.skip_bad_hosts or bad.keys() >= set(self.hosts):
            return outcomes
        self.session.bad_hosts |= bad
        self.hosts = tuple(host for host in self.hosts if host not in bad)
        return Outcomes({host: o for host, o in outcomes.items() if host not in bad})


def failure(host, error):
    """The Outcome for an exception: a Stop stays what it is; one that nobody expected has its
    place in the code, as the other hosts go on.
    """
    if isinstance(error, Stop):
        return Outcome(host, type(error), None, reason=str(error))
    if isinstance(error, UnexpectedExit):
        result = error.result
        reason = last_words(result.stderr or result.stdout) or f"exit status {result.exited}"
        return Outcome(host, Failed, result.exited, result.stdout, result.stderr, None, reason)
    if isinstance(error, OSError):
        return Outcome(host, Failed, None, reason=str(error))
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = last_words(str(error), 1)
    reason = f"{type(error).__name__}: {text} ({place.filename}:{place.lineno})"
    return Outcome(host, Failed, None, reason=reason)


def called(value, host):
    """`value(host)` if it can be called, else `value`."""
    return value(host) if callable(value) else value


def batch_size(spec, count):
    """How many hosts a batch has: `None` is all, "3" three, "25%" a quarter rounded up."""
    if spec is None:
        return max(1, count)
    number, percent = spec.removesuffix("%"), spec.endswith("%")
    if not number.isdigit() or int(number) < 1 or (percent and int(number) > 100):
        raise Usage(f"--batch takes a number of hosts or 1% to 100%, not {spec!r}")
    return math.ceil(count * int(number) / 100) if percent else int(number)
