"""Faults of many at once: runs that race for the lock, a hundred hosts behind one sshd."""

import json
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from .faults import agreed, fault
from .machine import login
from .replica import entry, write

# ---- races for the lock

RACES = 100  # of each kind
PATIENCE = 1  # seconds, where waiting for the other one is in vain: it has all its hosts


@fault(at={"start": 0}, alone="races for the lock")
def two_hundred_races(on, step):
    """Two runs take the lock together, a hundred times on the same hosts, a hundred times on some
    that overlap: each time one has all its hosts, and the other says who has the fleet."""
    names = [host.name for host in on.hosts[:3]]
    raced(on, [], names[:2], names[:2])
    raced(on, ["--patience", str(PATIENCE)], names[:2], names[1:] or names)
    return 2 * RACES


def raced(on, flags, *pair):
    """RACES races of two runs, each with the hosts of these names."""
    with ExitStack() as stack:
        racers = [stack.enter_context(racer(on, names, flags)) for names in pair]
        for _ in range(RACES):
            won, lost = sorted(together(racers), key=lambda answer: answer != "won")
            agreed(won == "won" and "has it since" in lost, f"one said {won}, the other {lost}")
            together(racers)


@contextmanager
def racer(on, names, flags):
    """The Popen of a run that races for hosts."""
    words = "--collection", "race", "-H", ",".join(names), "race", *flags
    process = on.operator(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    try:
        with process:
            yield process
    finally:
        process.kill()


def together(racers):
    """What each says that has been told to go on, all at once."""
    for process in racers:
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in racers]


# ---- a busy sshd

CROWD = 100
BLOCK = """Host crowd*
    HostName {address}
    Port 2222
    User {login}
    IdentityFile "{root}/key"
    IdentitiesOnly yes
    UserKnownHostsFile "{known}"
    GlobalKnownHostsFile /dev/null
"""


@fault(at={"start": 0}, alone="hosts behind one sshd")
def hundred_hosts_at_once(on, step):
    """A hundred hosts are reached at the same moment over one sshd with `MaxStartups 10:30:100`,
    which turns some away: they are tried again."""
    with gate(on) as log:
        run = on.fab("-I", "crowd.json", "-R", "crowd", "-P", "--", "echo reached",
                     code=0, fleet_pool_size=CROWD)
        agreed("MaxStartups" in log.read_text(), "that sshd has turned nobody away")
    count = run.text.count("reached")
    agreed(count == CROWD, f"{count} of {CROWD} were reached\n{run.text[-1500:]}")
    return count


@contextmanager
def gate(on):
    """The log of an sshd that all hosts of crowd.json are behind."""
    address = f"{on.network}.200"
    host = replace(on.victim, name="gate", private_dns=address, roles=(),
                   vars={"max_startups": "10:30:100"})
    loopback = on.loopback(host)
    loopback.start("")
    try:
        known = on.folder / "crowd.known_hosts"
        known.write_text(f"[{address}]:2222 {(loopback.state / 'host_key.pub').read_text()}")
        write_crowd(on, BLOCK.format(address=address, login=login(), root=on.root, known=known))
        yield loopback.state / "sshd.log"
    finally:
        loopback.end()


def write_crowd(on, block):
    """crowd.json, and how its hosts are reached."""
    hosts = [replace(on.victim, instance_id=f"i-{name}", name=name, private_dns=name,
                     public_dns=name, port=None, roles=("crowd",))
             for name in (f"crowd{number}" for number in range(CROWD))]
    write(on.folder / "crowd.json", json.dumps([entry(host) for host in hosts]))
    write(on.folder / "crowd.ssh_config", block)
