"""Supervisor and Systemd behind one small interface: what to say to them, and what they answer."""

import re
from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .env import ROOT, env, nearest
from .errors import Usage
from .shell import line

MARK = "installed by `fab setup`"

templates = Environment(
    loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined,
    keep_trailing_newline=True, trim_blocks=True,
)


@dataclass(frozen=True)
class Process:
    """One process of a unit, as its manager sees it."""

    name: str
    state: str  # the manager's own word: RUNNING, FATAL …; active, failed …
    pid: int | None = None


class Supervisor:
    """supervisorctl, as it finds its own configuration on the host."""

    comment = ";"

    def reread(self, files):
        """Takes changed unit files in: groups that did not change go on running."""
        return "{ supervisorctl reread && supervisorctl update; } >&2"

    def names(self, unit, processes):
        """The program's processes: `web:web_0 web:web_1` for two, else the program itself."""
        numbered = [f"{unit}:{unit}_{number}" for number in range(processes)]
        return numbered if processes > 1 else [unit]

    def restart(self, unit, processes=1):
        """One process after the other, so that one is always there; the log's end if it fails."""
        return " && ".join(
            line("{{ supervisorctl restart {} >&2 || {{ supervisorctl tail {} >&2; false; }}; }}",
                 name, name)
            for name in self.names(unit, processes)
        )

    def reload(self, unit):
        """HUP, or a start where it does not run."""
        return line("{{ supervisorctl signal HUP {} || supervisorctl start {}; }} >&2", unit, unit)

    def start(self, unit):
        return line("supervisorctl start {} >&2", unit)

    def stop(self, unit):
        return line("supervisorctl stop {} >&2", f"{unit}:*")

    def status(self, units):
        """Exits with 0 whatever runs; parse_status reads what it prints."""
        words = [word for unit in units for word in (unit, f"{unit}:*")]
        return line(f"supervisorctl status{' {}' * len(words)} 2>&1; :", *words)

    def parse_status(self, text):
        """unit → list of Process, from the output of status()."""
        found = {}
        for name, state, rest in re.findall(r"^([\w.:-]+) +([A-Z]+)\b *(.*)$", text, re.M):
            pid = re.match(r"pid (\d+)", rest)
            process = Process(name, state, int(pid[1]) if pid else None)
            if process not in found.setdefault(name.partition(":")[0], []):
                found[name.partition(":")[0]].append(process)
        return found


class Systemd:
    """systemctl. A unit is a service of that name, with a socket of that name or without."""

    comment = "#"

    def reread(self, files):
        """Takes changed unit files in; sockets listen from now on, services start at boot."""
        sockets = [line("systemctl start {}", name) for name in files if name.endswith(".socket")]
        enable = [line("systemctl enable --quiet {}", name) for name in files]
        return " && ".join(["systemctl daemon-reload", *enable, *sockets])

    def restart(self, unit, processes=1):
        """A whole new process; the socket, where there is one, holds new connections meanwhile."""
        return line(
            "{{ systemctl restart {} || {{ journalctl --no-pager -n 20 -u {} >&2; false; }}; }}",
            f"{unit}.service", unit,
        )

    def reload(self, unit):
        """Its own reload, or a start where it does not run."""
        return line("systemctl reload-or-restart {}", f"{unit}.service")

    def start(self, unit):
        return line("systemctl start {}", f"{unit}.service")

    def stop(self, unit):
        return line("systemctl stop {}", f"{unit}.service")

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
    names = [
        name for unit in env.units_of(host)
        for name in templates.list_templates(filter_func=lambda n, u=unit: n.startswith(
            f"{folder}/{u}.") and n.endswith(".j2"))
    ]
    facts = {"host": host, "env": env, "deploy_to": deploy_to, "home": home, "user": user}
    head = f"{manager().comment} {MARK}\n"
    return {
        name.removeprefix(f"{folder}/").removesuffix(".j2"):
            head + templates.get_template(name).render(facts)
        for name in names
    }


def install(units):
    """The command that puts unit files (name → text) where the manager reads them, takes ours away
    that the host no longer has, and tells the manager.
    """
    names = " ".join(units)
    steps = [line("home=$PWD; mkdir -p {} && cd {} || exit", *[env.services.folder] * 2)]
    steps += [put(f".{name}.new", name, text) for name, text in units.items()]
    steps += [
        line("for f in $(grep -lF {} -- *.* 2>/dev/null); do", MARK),
        line('case {} in *" $f "*) ;; *) rm -- "$f" || exit;; esac; done', f" {names} "),
        f'cd "$home" && {manager().reread(list(units))}',
    ]
    return privileged("\n".join(steps))


def put(scratch, name, text):
    """Replaces a file where its text differs."""
    return line(
        "printf %s {} > {} && {{ cmp -s {} {} && rm {} || {{ sync {} && mv {} {}; }}; }} || exit",
        text, scratch, scratch, name, scratch, scratch, scratch, name,
    )
