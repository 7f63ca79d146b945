"""-R/--roles, -P/--parallel, -x/--exclude … on the stock `fab`; the only file touching fabric.main.

Invoke parses core flags before it reads the fabfile, so install() changes the running program's
class, and parse_tasks() parses the command line once more with the flags added here.
"""

import contextlib
import signal
import sys
from collections import Counter

import fabric.main
from fabric import Executor
from invoke import Argument, Call, Exit
from invoke.config import DataProxy
from invoke.exceptions import ParseError

import inventory

from .env import ROOT, env, nearest
from .errors import Interrupted, Stop, Usage
from .fleet import Fleet, FleetTask, Session
from .progress import listener

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
        self.parse_core_args()
        try:
            super().parse_tasks()
        except ParseError as error:
            raise Exit(self._explained(str(error)), 2) from error

    def _explained(self, text):
        """The parser's error, with the nearest task's name where it met an unknown one."""
        if text.startswith("No idea what"):
            word = text.split("'")[1]
            return f"fab: no task or flag {word}{nearest(word, self.collection.task_names)}"
        return f"fab: {text}"

    def execute(self):
        self.executor_class = FleetExecutor
        signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        try:
            with contextlib.redirect_stdout(sys.stderr if self._flag("json") else sys.stdout):
                return {call.task: self._perform(call) for call in calls}
        except (Stop, KeyboardInterrupt):
            self.session.listener.close()
            summary(self.session)
            raise
        finally:
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
        self.config.load_shell_env()
        path = self._flag("inventory")
        defaults = fabric.Config.global_defaults()
        settings = {k: plain(v) for k, v in self.config.items() if k not in defaults}
        env.load(
            settings,
            inventory=inventory.load(path or ROOT / "servers.json"),
            deploy_date=self._flag("deploy-date"),
            dry=self._flag("dry"),
            batch=self._flag("batch"),
        )

    def _session(self):
        return Session(
            self.config,
            listener=listener(as_json=self._flag("json")),
            pool_size=self._flag("pool-size") or env.fleet.pool_size,
            skip_bad_hosts=self._flag("skip-bad-hosts"),
        )

    def _hosts(self, task):
        """The hosts for a task: the command line's, else the task's own. Usage if none."""
        named, roles, exclude = (split(self._flag(name)) for name in ("hosts", "roles", "exclude"))
        if getattr(task, "any_host", False):
            known, strangers = self._strangers(named)
        else:
            known, strangers = named, ()
        if not named and not roles:
            roles, known = self._defaults(task)
        chosen = env.inventory.select(roles=roles, hosts=known, exclude=exclude)
        hosts = (*chosen, *strangers) if known or roles else strangers
        if not hosts:
            raise Usage(f"{task.name}: no hosts to run on; add -R ROLE or -H HOST")
        return hosts

    def _defaults(self, task):
        if getattr(task, "everything", False):
            return (), [host.name for host in env.inventory.hosts]
        present = set(env.inventory.roles)
        roles = getattr(task, "roles", ())
        wanted = [role for role in (roles() if callable(roles) else roles) if role in present]
        if not wanted:
            raise Usage(f"{task.name}: no hosts to run on; add -R ROLE or -H HOST")
        return wanted, ()

    def _strangers(self, names):
        """`names` parted into those that servers.json knows and Hosts made of the others."""
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
        if getattr(task, "once", False):
            return task.body(fleet, *call.args, **call.kwargs)
        for hosts in self._groups(fleet):
            outcomes = fleet.only(hosts).connect(lambda c: task.body(c, *call.args, **call.kwargs))
            outcomes.check()

    def _groups(self, fleet):
        """All hosts at once with -P or --batch; else one by one, ending at the first failure."""
        if self._flag("parallel") or env.batch:
            return fleet.batches()
        return [(host,) for host in fleet.hosts]


def split(text):
    """The words of a comma-separated flag."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


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
            last[host] = (step, outcome)
            count[host] += outcome.ok
    rows = [
        (host.name, count[host], step or "command", outcome.state)
        for host, (step, outcome) in last.items()
    ]
    if rows:
        Fleet((), session).table("", ("host", "steps done", "last step", "state"), rows)


def install():
    """Makes the running `fab` a FleetFab."""
    fabric.main.program.__class__ = FleetFab
