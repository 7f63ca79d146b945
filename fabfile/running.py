"""running: what each process truly runs, and since when, against `current` and its last switch."""

from .env import env
from .errors import Failed, Usage
from .fleet import once
from .prove import PROBE, answers, nginx_on, question, unit_on
from .reply import moment
from .solr_hosts import PROBE as SOLR
from .solr_hosts import command

COLUMNS = ("host", "unit", "pid", "runs", "current", "since", "")
NOBODY = {"pid": None, "release": None, "since": None}
FILES = {"unit": "", "processes": 0}  # of a host that has the release, and no process of it


@once(roles=lambda: (*env.deploy.roles, "nginx", "solr"))
def running(fleet):
    """What each process says it runs, against `current`. Exits 1 on any difference."""
    heard = told(fleet)
    rows = [row for host, found in heard.items() for one in found for row in judged(host, one)]
    fleet.table("", COLUMNS, rows)
    wrong = [f"{host}: {unit} {pid}: {verdict}" for host, unit, pid, *_, verdict in rows
             if verdict not in ("ok", "-")]
    wrong += different(heard)
    if wrong:
        raise Failed("\n".join(wrong))


def told(fleet):
    """host → its answers. All are asked side by side; one with two programs to ask, twice."""
    programs = {host: asked(host) for host in fleet.hosts}
    nothing = [host.name for host, found in programs.items() if not found]
    if nothing:
        raise Usage(f"{', '.join(nothing)}: nothing runs there that is deployed from here")
    heard = {}
    for turn in range(max(map(len, programs.values()))):
        now = {host: found[turn] for host, found in programs.items() if len(found) > turn}
        for host, outcome in ask(fleet, now).items():
            heard[host] = heard.get(host, []) + answers(outcome.stdout)
    return heard


def ask(fleet, programs):
    """The Outcomes of (command, program) on each host."""
    return fleet.run(lambda host: programs[host][0], hosts=programs, step="ask",
                     stdin=lambda host: programs[host][1]).check()


def asked(host):
    """What a host is asked with: pairs of a command and the program that it gets."""
    found = []
    if units := units_on(host):
        found.append((question(f"{env.deploy.deploy_to}/current", units), PROBE))
    if "solr" in host.roles:
        found.append((command(host, "running"), SOLR.read_bytes()))
    return found


def units_on(host):
    """What the probe is told: the units of the application, and nginx."""
    units = [unit_on(name, host) for name in env.units_of(host)]
    if not units and set(host.roles) & set(env.deploy.roles):
        units.append(FILES)
    return units + [nginx_on(host)] * ("nginx" in host.roles)


def judged(host, answer):
    """A row for each process of a unit; one for a unit of which nobody answers."""
    if answer["unit"] == FILES["unit"]:
        return
    for process in answer["processes"] or [NOBODY]:
        cells = (process["pid"], process["release"], answer["current"])
        yield (host.name, answer["unit"], *(cell or "-" for cell in cells),
               shown(process["since"]), verdict(answer, process))


def verdict(answer, process):
    """`ok`; `-` where nothing was ever deployed; or what is wrong, in words."""
    if not (answer["deployed"] or answer["processes"]):
        return "-"
    if not answer["ok"]:
        return answer["reason"].partition("\n")[0]
    if process["release"] != answer["current"]:
        return "NOT current"
    if process["since"] and process["since"] < answer["switched"]:
        return f"older than the switch at {shown(answer['switched'])}"
    return "ok"


def shown(epoch):
    return moment(int(epoch)) if epoch else "-"


def different(heard):
    """A line for each folder of releases that hosts have different ones of."""
    current = {}
    for host, found in heard.items():
        for answer in found:
            current.setdefault(answer["folder"], {})[host.name] = answer["current"] or "-"
    for folder, dates in current.items():
        if len(set(dates.values())) > 1:
            each = ", ".join(f"{name} {date}" for name, date in dates.items())
            yield f"hosts have different releases in {folder}: {each}"
