"""-R/--roles, -P/--parallel, -x/--exclude … on the stock `fab`; the only file touching fabric.main.

Invoke parses core flags before it reads the fabfile, so install() changes the running program's
class, and parse_tasks() parses the command line once more with the flags added here.
"""

import contextlib
import itertools
import os
import signal
import sys
from collections import Counter

import fabric.main
from fabric import Executor
from invoke import Argument, Call, Exit
from invoke.config import AmbiguousMergeError, DataProxy
from invoke.exceptions import ParseError, UncastableEnvVar, UnknownFileType

import inventory

from .env import ROOT, defaults, env, nearest, readable
from .errors import Interrupted, Stop, Usage
from .fleet import Fleet, FleetTask, Session, batch_size
from .progress import Json, Lasting, Plain
from .ssh import Unparsable

FLAGS = (
    (("R", "roles"), str, "Comma-separated roles of servers.json whose hosts to work on."),
    (("x", "exclude"), str, "Comma-separated hosts or roles to leave out."),
    (("I", "inventory"), str, "Another servers.json."),
    (("P", "parallel"), bool, "Run per-host tasks on all chosen hosts at once."),
    (("z", "pool-size"), int, "How many hosts are worked on at once (fleet.pool_size)."),
    (("batch",), str, "Roll through the hosts, N or N% at a time."),
    (("skip-bad-hosts",), bool, "Go on without hosts that cannot be reached."),
    (("json",), bool, "One JSON object a line on standard output, nothing else."),
    (("deploy-date",), str, "The run's env.deploy_date, 14 digits of UTC."),
)


class FleetFab(fabric.main.Fab):
    """Stock `fab` with this toolkit's flags and exit codes."""

    def core_args(self):
        args = [arg for arg in super().core_args() if arg.name not in ("R", "dry")]
        dry = Argument(names=("dry",), kind=bool, help="Print each host's commands; run nothing.")
        ours = [Argument(names=names, kind=kind, help=text) for names, kind, text in FLAGS]
        return [*args, dry, *ours]

    def parse_tasks(self):
        sys.stdout = Lasting(sys.stdout)
        with self._explained():
            self.parse_core_args()
            super().parse_tasks()

    def parse_cleanup(self):
        with self._explained():
            super().parse_cleanup()

    def no_tasks_given(self):
        """Fabric's help, unless there is a command, or hosts were chosen for nothing."""
        if self.core.remainder:
            return
        if any(self.args[name].value for name in ("hosts", "roles")):
            raise Exit("fab: nothing to do: name a task (fab --list) or a command (-- uptime)", 2)
        super().no_tasks_given()

    @contextlib.contextmanager
    def _explained(self):
        """The parser's errors as one line, with what is nearest to an unknown word."""
        try:
            yield
        except ParseError as error:
            text = self._nearest(error) if str(error).startswith("No idea what") else str(error)
            raise Exit(f"fab: {text}", 2) from error
        except ValueError as error:  # a flag that takes a number
            raise Exit(f"fab: {str(error).rpartition(': ')[2]} is not a whole number", 2) from error

    def _nearest(self, error):
        word = str(error).split("'")[1]
        if not word.startswith("-"):
            return f"no task {word}{nearest(word, self.collection.task_names)}"
        flags = [*self.initial_context.flags, *getattr(error.context, "flags", ())]
        return f"no flag {word}{nearest(word, flags)}"

    def update_config(self):
        """Reads the file of -f too."""
        path = self.args.config.value
        try:
            readable(path)
            super().update_config()
        except (Usage, UnknownFileType) as error:
            raise Exit(f"fab: {error}", 2) from error
        except AmbiguousMergeError as error:
            raise Exit(f"fab: {path}: a value where others have a mapping of values", 2) from error
        except Unparsable as error:
            raise Exit(f"fab: ssh_config: {error}", 2) from error
        except FileNotFoundError as error:  # of -S
            raise Exit(f"fab: {error.filename}: {error.strerror}", 2) from error

    def execute(self):
        self.executor_class = FleetExecutor
        try:
            super().execute()
        except (Stop, inventory.InventoryError) as error:
            raise Exit(f"fab: {error}", error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Exit("fab: interrupted", Interrupted.exit_code) from error


class FleetExecutor(Executor):
    """Runs each call on the hosts that -H, -R and -x choose, over one connection a host."""

    def execute(self, *tasks):
        calls = self._expanded(self.normalize(tasks))
        if self.core.remainder:
            calls.append(Call(FleetTask(lambda c: c.run(self.core.remainder), name="command")))
        self._load_env()
        self.session = self._session()
        end_on_signals(self.session.listener)
        try:
            with contextlib.redirect_stdout(sys.stderr if self._flag("json") else sys.stdout):
                results = {call.task: self._perform(call) for call in calls}
            left_out(self.session)
            return results
        except (Stop, KeyboardInterrupt):
            summary(self.session)
            raise
        finally:
            self.session.listener.close()
            self.session.close()

    def _flag(self, name):
        return self.core[0].args[name].value

    def _expanded(self, calls):
        """The calls, each between its pre- and post-tasks."""
        expanded = []
        for call in calls:
            call = call if isinstance(call, Call) else Call(call)
            expanded += [*self._expanded(call.pre), call, *self._expanded(call.post)]
        return expanded

    def _load_env(self):
        self.config.load_collection(defaults())
        self._load_environment()
        path = self._flag("inventory")
        fabrics = fabric.Config.global_defaults()
        settings = {k: plain(v) for k, v in self.config.items() if k not in fabrics}
        env.load(
            settings,
            inventory=inventory.load(path or ROOT / "servers.json"),
            deploy_date=self._flag("deploy-date"),
            dry=self._flag("dry"),
            batch=self._flag("batch"),
        )
        batch_size(env.batch, 1)

    def _load_environment(self):
        try:
            self.config.load_shell_env()
        except (ValueError, UncastableEnvVar) as error:
            names = ", ".join(name for name in os.environ if name.startswith("FABRIC_"))
            raise Usage(f"{names}: a value does not fit its setting: {error}") from error

    def _session(self):
        size = self._flag("pool-size")
        if size is not None and size < 1:
            raise Usage(f"-z takes a number of hosts, not {size}")
        return Session(
            self.config,
            listener=listener(sys.stdout, as_json=self._flag("json")),
            pool_size=size or env.fleet.pool_size,
            skip_bad_hosts=self._flag("skip-bad-hosts"),
        )

    def _hosts(self, task):
        """The hosts for a task: the command line's, else the task's own. Usage if none."""
        named, roles, exclude = (self._names(flag) for flag in ("hosts", "roles", "exclude"))
        known, strangers = self._parted(task, named)
        if not named and not roles:
            roles, known = self._defaults(task)
        chosen = env.inventory.select(roles=roles, hosts=known, exclude=exclude)
        hosts = (*chosen, *strangers) if known or roles else strangers
        if not hosts:
            raise Usage(f"{task.name}: -x leaves no host to run on")
        return hosts

    def _names(self, flag):
        """The words of a comma-separated flag; one that is given has to name something."""
        text = self._flag(flag)
        words = [word.strip() for word in (text or "").split(",") if word.strip()]
        if text is not None and not words:
            raise Usage(f"--{flag} is given, but empty")
        return words

    def _defaults(self, task):
        """The roles, or the names, of the hosts that a task has where none are chosen."""
        if getattr(task, "everything", False):
            return (), [host.name for host in env.inventory.hosts]
        roles = getattr(task, "roles", ())
        wanted = list(roles() if callable(roles) else roles)
        present = [role for role in wanted if role in env.inventory.roles]
        if not present:
            lack = f"no host of {env.inventory.path} has its role {' or '.join(wanted)}; "
            raise Usage(f"{task.name}: no hosts to run on: {lack if wanted else ''}"
                        "add -R ROLE or -H HOST")
        return present, ()

    def _parted(self, task, names):
        """`names` parted into those that servers.json knows, and Hosts made of the others where
        the task takes them.
        """
        if not getattr(task, "any_host", False):
            return names, ()
        known = [name for name in names if env.inventory.find(name)]
        made = [
            inventory.Host(instance_id="", public_dns=name, private_dns=name, name=name, roles=())
            for name in names
            if name not in known
        ]
        return known, made

    def _perform(self, call):
        task = call.task
        fleet = Fleet(self._hosts(task), self.session)
        self.session.chosen |= dict.fromkeys(fleet.hosts)
        if getattr(task, "once", False):
            return task.body(fleet, *call.args, **call.kwargs)

        def body(c):
            return task.body(c, *call.args, **call.kwargs)

        step = "" if self.core.remainder and task.name == "command" else task.name
        return fleet.connect(body, groups=self._groups(fleet), step=step).check()

    def _groups(self, fleet):
        """All hosts at once with -P or --batch; else one by one, ending at the first failure."""
        if self._flag("parallel") or env.batch:
            return fleet.batches()
        return [(host,) for host in fleet.hosts]


def plain(value):
    """Fabric's settings without its proxies: dicts, lists and scalars."""
    if isinstance(value, DataProxy | dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value


def summary(session):
    """A table at the end of a run that failed: how far each host got."""
    last, count = {}, Counter()
    for step, outcomes in session.history:
        for host, outcome in outcomes.items():
            last[host] = (step or "command", outcome.state)
            count[host] += outcome.ok
    rows = [
        (host.name, count[host], *last.get(host, ("-", "not started")))
        for host in {**session.chosen, **last}
    ]
    if last:
        Fleet((), session).table("", ("host", "steps done", "last step", "state"), rows)


def left_out(session):
    """Says which hosts --skip-bad-hosts went on without."""
    for host, outcome in session.bad_hosts.items():
        Fleet((), session).say(f"left out: {outcome.reason}", host)


def listener(stream, *, as_json):
    """The listener that suits where output goes."""
    if as_json:
        return Json(stream)
    if not stream.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return Plain(stream)
    from .live import Live  # where there is a terminal: Rich takes a while to load

    return Live(stream)


def end_on_signals(listener):
    """Ctrl-C, SIGTERM and a closed terminal end the run: the first as KeyboardInterrupt, which
    ends what runs on the hosts and puts back what was switched. The third leaves at once.
    """
    count = itertools.count(1)

    def interrupt(number, frame):
        turn = next(count)
        if turn == 1:
            raise KeyboardInterrupt
        if turn == 2:
            return os.write(2, b"fab: already ending, please wait; once more leaves it as it is\n")
        listener.close()
        os._exit(Interrupted.exit_code)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def install():
    """Makes the running `fab` a FleetFab; before Invoke reads fabric.yml, it has to be one."""
    fabric.main.program.__class__ = FleetFab
    try:
        readable(ROOT / "fabric.yml")
    except Usage as error:
        raise Exit(f"fab: {error}", 2) from error
