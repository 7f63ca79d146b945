"""rehearse: every fault at every step of a deploy, on a throw-away fleet of this fleet's shape."""

import tempfile
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import faults_of_crowds, faults_of_hosts, faults_of_runs  # noqa: F401 (they fill FAULTS)
from .application import on_app_hosts
from .env import env, nearest
from .errors import Failed, Usage
from .faults import COLUMNS, FAULTS, KILLED
from .rehearsal import Rehearsal, free_network

SAME = (1, 2, 3, 4, 5, 6, 7, 130)  # exit codes that say: every host has what it had
LANES = 3  # fleets that work at the same time: each waits for a third of its time
WORTH_A_LANE = 16  # faults: to start a fleet takes as long as to try one
MARKS = "<!-- written by fab rehearse: begin -->", "<!-- end -->"


@dataclass
class Cell:
    """What became of one fault at one step; `lost` says what did not hold."""

    fault: object
    step: str
    code: int | None = None
    count: int = 0  # of what `counted` says
    seconds: float = 0.0
    lost: tuple = ()

    @property
    def word(self):
        """For the table: the exit code of the deploy that was hit, or LOST."""
        return "LOST" if self.lost else "killed" if self.code == KILLED else str(self.code)

    @property
    def counted(self):
        """What `count` is the number of."""
        return self.fault.alone or "requests of visitors"


@on_app_hosts(help={
    "faults": "Only these, comma-separated (docs/faults.md has all).",
    "hosts": "At most so many hosts: of each role the first, then the others.",
    "quick": "A choice of them that takes less than four minutes.",
    "doc": "A page whose table is written anew.",
})
def rehearse(fleet, faults="", hosts=4, quick=False, doc=""):
    """Try every fault at every step of a deploy, on a throw-away fleet of this one's shape."""
    chosen = list(choose(faults, quick=quick))
    if env.dry:
        return fleet.say("\n".join(f"# {fault.name} at {step}" for fault, step in chosen))
    shape = few(fleet.hosts, hosts)
    if not any(env.units_of(host) for host in shape):
        names = " ".join(host.name for host in shape)
        raise Usage(f"rehearse: no unit of fabric.yml runs on {names or 'no host'}: add --hosts N")
    cells = on_lanes(fleet, shape, chosen)
    table(fleet, cells)
    if doc:
        write(Path(doc), cells)
    losses = [f"{cell.fault.name} at {cell.step}: {text.splitlines()[0]}"
              for cell in cells for text in cell.lost]
    if losses:
        raise Failed("\n".join(losses))


def choose(names, *, quick):
    """(fault, step) of those that are asked for. Usage for a name that there is not."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in FAULTS:
            raise Usage(f"rehearse: no fault {name}{nearest(name, FAULTS)}")
    for fault in FAULTS.values():
        if fault.name in wanted or not (wanted or fault.rare):
            for step in fault.quick if quick and not wanted else fault.codes:
                yield fault, step


def few(hosts, count):
    """At most `count` hosts: those that are the first of a role, then the others, in order."""
    seen, first, rest = set(), [], []
    for host in hosts:
        (rest if set(host.roles) <= seen else first).append(host)
        seen |= set(host.roles)
    kept = [*first, *rest][:count]
    return [host for host in hosts if host in kept]


def on_lanes(fleet, shape, chosen):
    """The Cells of all (fault, step), in their order: tried on some fleets at the same time."""
    waiting, count = deque(chosen), min(LANES, 1 + len(chosen) // WORTH_A_LANE)
    with ThreadPoolExecutor(count) as pool:
        lanes = [pool.submit(lane, fleet, shape, waiting) for _ in range(count)]
        try:
            cells = [cell for done in as_completed(lanes) for cell in done.result()]
        finally:
            waiting.clear()  # whatever went wrong: no lane takes another one
    return sorted(cells, key=lambda cell: chosen.index((cell.fault, cell.step)))


def lane(fleet, shape, waiting):
    """The Cells of what waits, one after the other on a fleet of its own."""
    with free_network() as network, tempfile.TemporaryDirectory(prefix="a rehearsal ") as folder:
        rehearsal = Rehearsal(Path(folder), network, shape)
        try:
            rehearsal.up()
            with rehearsal.visitors.at_work():
                return list(attempts(fleet, rehearsal, waiting))
        finally:
            rehearsal.down()


def attempts(fleet, rehearsal, waiting):
    """Each that can be tried here, until nothing waits."""
    for fault, step in taken(waiting):
        if fault.needs and not getattr(rehearsal, fault.needs):
            fleet.say(f"{fault.name} at {step}: left out, as there is no {fault.needs} here")
            continue
        cell = attempt(rehearsal, Cell(fault, step))
        fleet.say(line(cell))
        yield cell


def taken(waiting):
    """The first that waits, and so on; another lane takes others."""
    while waiting:
        with suppress(IndexError):
            yield waiting.popleft()


def line(cell):
    """A cell, for somebody who waits."""
    what = f"{cell.fault.name} at {cell.step}"
    found = "; ".join(cell.lost) or f"{cell.count} {cell.counted}"
    return f"{what:<36} {cell.word:<7} {cell.seconds:5.1f} s  {found}"


def attempt(rehearsal, cell):
    """Injects a fault, and looks whether all holds that must."""
    started, found = time.monotonic(), []
    try:
        if cell.fault.alone:
            cell.code, *_ = cell.fault.codes[cell.step]
            cell.count = cell.fault.inject(rehearsal, cell.step)
        else:
            found = on_fleet(rehearsal, cell)
    except Exception as error:  # the others are tried all the same
        found = [str(error) or type(error).__name__]
    cell.seconds, cell.lost = time.monotonic() - started, tuple(found)
    return cell


def on_fleet(rehearsal, cell):
    """The same with a fleet: all that is wrong after the fault, and after the next deploy."""
    visitors = rehearsal.visitors
    visitors.take()
    lost = []
    for part in (hit, recovered):
        try:
            lost += part(rehearsal, cell)
        except Exception as error:  # the fleet is mended all the same
            lost.append(str(error) or type(error).__name__)
    cell.count, failures, served = visitors.take()
    if not cell.fault.seen:
        lost += [*failures[:3], *(f"visitors saw {name}" for name in served - rehearsal.good)]
    return lost


def hit(rehearsal, cell):
    """What is wrong with how the run ended that the fault befell."""
    run = cell.fault.inject(rehearsal, cell.step)
    cell.code = run.code
    return list(judged(cell, run, rehearsal.currents(), rehearsal.good))


def judged(cell, run, has, good):
    """What is not as it should be: its exit code, its words, and what the hosts have now."""
    fault, same = cell.fault, has == run.before
    too_late = run.code == 130 and cell.step == "commit"  # some hosts keep it already: so all do
    if run.code not in fault.codes[cell.step]:
        yield f"exit code {run.code}: {run.text[-1500:]}"
    if fault.says not in run.text or (run.code > 0 and "\nfab: " not in run.text):
        yield f"it does not say {fault.says or 'why'}: {run.text[-1500:]}"
    if run.code in SAME and not same and not too_late:
        yield f"exit code {run.code}, but not all is as before: {shown(run.before)} → {shown(has)}"
    if (run.code == 0 or too_late) and fault.whole and (same or len(set(has.values())) > 1):
        yield f"exit code {run.code}, but the hosts have {shown(has)}"
    if bad := set(has.values()) - good:
        yield f"a host has {', '.join(map(str, bad))}, which is not a good release"


def recovered(rehearsal, cell):
    """What is wrong after the next deploy: the fault is over, and nothing was cleaned."""
    rehearsal.mend()
    run = rehearsal.fab("deploy")
    has = rehearsal.currents()
    if run.code:
        yield f"the next deploy ended with {run.code}: {run.text[-1500:]}"
        return
    if len(set(has.values())) > 1 or has == run.before:
        yield f"after the next deploy the hosts have {shown(has)}"
    for host in rehearsal.hosts:
        if not rehearsal.runs_current(host):
            runs = rehearsal.runs_from(host)
            yield f"{host.name} has {has[host]}, its processes run {runs}"
        yield from (f"{host.name}: {path} is left" for path in leftovers(rehearsal.place(host)))


def leftovers(place):
    """What no host should have once all is well."""
    found = [path for name in ("lock", "pending") if (path := place / "state" / name).exists()]
    return [str(path.relative_to(place)) for path in
            (*found, *place.glob("releases/*.part"), *place.glob("releases/.trash*"),
             *place.glob(".current.*"))]


def shown(currents):
    return ", ".join(f"{host.name} {date}" for host, date in currents.items())


def table(fleet, cells):
    """Fault and step: the exit code of the deploy that was hit, where all was well after it."""
    fleet.table("", *grid({(cell.fault.name, cell.step): cell.word for cell in cells}))
    total, lost = len(cells), sum(bool(cell.lost) for cell in cells)
    counts = Counter()
    for cell in cells:
        counts[cell.counted] += cell.count
    found = ", ".join(f"{count} {counted}" for counted, count in counts.items())
    fleet.say(f"{total - lost} of {total} survived; {found}")


def grid(words):
    """(columns, rows) of (fault, step) → word; the steps that are there, the faults in order."""
    steps = [step for step in COLUMNS if any(step == other for _, other in words)]
    names = [name for name in FAULTS if any(name == other for other, _ in words)]
    rows = [(name, *(words.get((name, step), "") for step in steps)) for name in names]
    return ("fault", *steps), rows


def write(page, cells):
    """Puts the table and what each fault is between the marks of a page; what was not tried this
    time stays as it is there.
    """
    begin, end = MARKS
    before, _, rest = page.read_text().partition(begin)
    old, _, after = rest.partition(end)
    words = read(old) | {(cell.fault.name, cell.step): cell.word for cell in cells}
    columns, rows = grid(words)
    lines = [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    lines += ["", *(f"- `{fault.name}`: {fault.what}" for fault in FAULTS.values())]
    page.write_text(before + "\n".join([begin, *lines, end]) + after)


def read(text):
    """(fault, step) → word of a table that write() has written."""
    rows = [[cell.strip() for cell in row[2:-2].split(" | ")]
            for row in text.splitlines() if row.startswith("| ")]
    return {(name, step): word for name, *words in rows[2:]
            for step, word in zip(rows[0][1:], words, strict=True)
            if word and step in getattr(FAULTS.get(name), "codes", ())}
