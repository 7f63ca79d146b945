"""Supervisor and Systemd behind one small interface: what to say to them, and what they answer."""

import re
from dataclasses import dataclass

from . import templates
from .env import env, nearest
from .errors import Usage
from .shell import line

MARK = "installed by `fab setup`"  # the first line of a file of ours: others are left alone


@dataclass(frozen=True)
class Process:
    """One process of a unit, as its manager sees it."""

    name: str
    state: str  # the manager's own word: RUNNING, FATAL …; active, failed …
    pid: int | None = None


class Supervisor:
    """supervisorctl, as it finds its own configuration on the host."""

    comment = ";"
    files = "*.conf"
    forget = ":"  # what was taken away, `update` ends

    def reread(self, files):
        """Takes changed unit files in: groups that did not change go on running."""
        return "{ supervisorctl reread && supervisorctl update; } >&2"

    def names(self, unit, processes):
        """(what to restart, its log) of each process: `web:web_0`, or the program as a group.

        While it waits for the stop of a process by its name, supervisord is busy; for that of a
        group it sleeps (rpcinterface.py of supervisor 4.3, `onwait.delay = 0`).
        """
        numbered = [f"{unit}:{unit}_{number}" for number in range(processes)]
        return [(name, name) for name in numbered] if processes > 1 else [(f"{unit}:*", unit)]

    def restart(self, unit, processes=1):
        """One process after the other, so that one is always there; the log's end if it fails."""
        return " && ".join(
            line("{{ supervisorctl restart {} >&2 || {{ supervisorctl tail {} >&2; false; }}; }}",
                 name, log)
            for name, log in self.names(unit, processes)
        )

    def reload(self, unit):
        """HUP, or a start where it does not run."""
        return line("{{ supervisorctl signal HUP {} || supervisorctl start {}; }} >&2", unit, unit)

    def stop(self, unit):
        return line("supervisorctl stop {} >&2", f"{unit}:*")

    def log(self, unit):
        """The end of what a unit of one process has printed."""
        return line("supervisorctl tail {} >&2", unit)

    def status(self, units):
        """Exits with 0 whatever runs; parse_status reads what it prints."""
        return line(f"supervisorctl status{' {}' * len(units)}; :", *[f"{u}:*" for u in units])

    def parse_status(self, text):
        """unit → list of Process, from the output of status()."""
        found = {}
        for name, state, pid in re.findall(r"^(\S+) +([A-Z]+)\b(?: +pid (\d+))?", text, re.M):
            process = Process(name, state, int(pid) if pid else None)
            found.setdefault(name.partition(":")[0], []).append(process)
        return found


class Systemd:
    """systemctl. A unit is a service of that name, with a socket of that name or without."""

    comment = "#"
    files = "*.service *.socket"
    forget = 'systemctl disable --quiet --now "$f"'

    def reread(self, files):
        """Takes changed unit files in; sockets listen from now on, services start at boot."""
        sockets = [line("systemctl start {}", name) for name in files if name.endswith(".socket")]
        enable = [line("systemctl enable --quiet {}", name) for name in files]
        return " && ".join(["systemctl daemon-reload", *enable, *sockets])

    def restart(self, unit, processes=1):
        """A whole new process; the socket, where there is one, holds new connections meanwhile."""
        name = f"{unit}.service"
        return line(
            "{{ systemctl restart {} || {{ journalctl --no-pager -n 20 -u {} >&2; false; }}; }}",
            name, name,
        )

    def reload(self, unit):
        """Its own reload, or a start where it does not run."""
        return line("systemctl reload-or-restart {}", f"{unit}.service")

    def stop(self, unit):
        """The socket too, where there is one, or the next visitor would start the service."""
        return line("systemctl stop {} {}", f"{unit}.socke[t]", f"{unit}.service")

    def log(self, unit):
        """The end of what a unit has printed."""
        return line("journalctl --no-pager -n 20 -u {} >&2", f"{unit}.service")

    def status(self, units):
        """Exits with 0 whatever runs; parse_status reads what it prints."""
        names = [f"{unit}.service" for unit in units]
        command = f"systemctl show --property=Id,ActiveState,MainPID{' {}' * len(names)}"
        return line(command, *names)

    def parse_status(self, text):
        """unit → list of Process, from the output of status()."""
        found = {}
        for block in text.strip().split("\n\n"):
            facts = dict(entry.partition("=")[::2] for entry in block.splitlines())
            if name := facts.get("Id"):
                pid = int(facts.get("MainPID", "0")) or None
                unit = name.removesuffix(".service")
                found[unit] = [Process(name, facts.get("ActiveState", ""), pid)]
        return found


MANAGERS = {"supervisor": Supervisor, "systemd": Systemd}


def manager():
    """The manager that fabric.yml names. Usage for one that we do not know."""
    name = env.services.manager
    if name not in MANAGERS:
        raise Usage(f"fabric.yml: services.manager: {name!r}{nearest(name, MANAGERS)}")
    return MANAGERS[name]()


def privileged(command):
    """The command as the manager needs it: through sudo where fabric.yml says so."""
    return line("sudo -n sh -c {}", command) if env.services.sudo else command


def units_for(host, deploy_to, home, user):
    """file name → text of the unit files of a host, rendered from templates/<manager>/."""
    folder = env.services.manager
    facts = {"host": host, "env": env, "deploy_to": deploy_to, "home": home, "user": user}
    return {
        name.removeprefix(f"{folder}/").removesuffix(".j2"):
            f"{first_line()}\n{templates.fill_in(name, facts)}"
        for unit in env.units_of(host) for name in templates.names(f"{folder}/{unit}.")
    }


def first_line():
    """What the unit files that we may replace and take away begin with."""
    return f"{manager().comment} {MARK}"


def install(units):
    """The command that puts unit files (name → text) where the manager reads them, takes ours away
    that the host no longer has, and tells the manager.
    """
    steps = [line("home=$PWD; umask 022; mkdir -p {} && cd {} || exit",
                  *[env.services.folder] * 2)]
    steps += [put(f".{name}.new", name, text) for name, text in units.items()]
    steps += [take_away(units), f'cd "$home" && {manager().reread(list(units))}']
    return privileged("\n".join(steps))


def put(scratch, name, text):
    """Replaces a file where its text differs."""
    return line(
        "printf %s {} > {} && {{ cmp -s {} {} && rm {} || {{ sync {} && mv {} {}; }}; }} || exit",
        text, scratch, scratch, name, scratch, scratch, scratch, name,
    )


def take_away(units):
    """Removes files of ours that are not among `units`."""
    return "\n".join([
        f"for f in {manager().files}; do",
        line('case {} in *" $f "*) continue;; esac', f" {' '.join(units)} "),
        line('[ "$(head -n 1 -- "$f" 2>/dev/null)" = {} ] || continue', first_line()),
        f'{manager().forget}; rm -- "$f" || exit',
        "done",
    ])
