"""One host of the sandbox on a loopback address: its home, its sshd, its supervisord and the
real servers that its roles need, started by and on this machine."""

import contextlib
import http.client
import os
import re
import socket
import sys
import xmlrpc.client
from functools import cache, cached_property
from pathlib import Path

from . import machine, processes
from .errors import Failed, Refused
from .machine import SERVERS, SSHD
from .shell import assignments, quote

VIRTUALENV = Path(sys.executable).parent
# The operator's way to the package index and its cache, which every host's uv and pip share.
PASSED_ON = re.compile(r"(UV|PIP|SSL_CERT)_\w+|\w+_proxy", re.IGNORECASE)
DATABASE = "conference"
DOWN = ("STOPPED", "EXITED", "FATAL")
PATIENCE = 60  # seconds: several Solrs that start at once have little of the processor each
UNANSWERED = (OSError, http.client.HTTPException, xmlrpc.client.Error)


@cache
def templates():
    """Jinja's Environment for the files of sandbox/."""
    import jinja2  # when it is needed: it takes a while to load

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent.parent / "sandbox"),
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )
    made.filters["quote"] = quote
    return made


class Loopback:
    """One host in the sandbox folder `root`. `host` is what servers.json says of it: end() does
    without. `supervised`: it gets a supervisord even if no role of it needs a server."""

    def __init__(self, root, name, host=None, *, supervised=False):
        self.name = name
        self.host = host
        self.root = root
        self.home = root / "hosts" / name
        self.state = root / "state" / name
        self.run = self.home / "run"
        self.data = self.home / "data"
        self.sshd = self.state / "sshd.pid"
        self.supervisord = self.state / "supervisord.pid"
        self.roles = [role for role in SERVERS if host and role in host.roles]
        self.solr = None
        self.supervised = bool(supervised or self.roles)

    def start(self, password, solr=None):
        """Bring up what is not up. `password` is the database's, `solr` a launcher.Solr; without
        one its Solr is left out. Raises Refused when a port is taken, Failed when something does
        not come up in time."""
        self.solr = solr if "solr" in self.roles else None
        self.roles = [role for role in self.roles if role != "solr" or self.solr]
        self.end_orphans()
        self.check_ports()
        self.make_home()
        self.start_sshd()
        if self.supervised:
            self.prepare_servers(password)
            self.start_supervisord()
            self.start_servers()

    def end(self):
        """End every process that came from this host, then remove its files."""
        leaders = [p for p in map(processes.recorded, (self.sshd, self.supervisord)) if p]
        left = processes.end(leaders, self.mark)
        if left:
            numbers = ", ".join(str(process.pid) for process in left)
            raise Failed(f"could not end process {numbers} of {self.name}; end it, then run again")
        for folder in (self.run, self.data, self.home, self.state):
            machine.remove_folder(folder)

    # What is there

    def is_up(self, record):
        """Whether the process recorded there is still alive."""
        process = processes.recorded(record)
        return process is not None and process.alive()

    def programs(self):
        """Program → state, as its supervisord says it; {} if that does not answer."""
        with contextlib.suppress(*UNANSWERED):
            found = self.call("getAllProcessInfo")
            return {full_name(one): one["statename"] for one in found}
        return {}

    def call(self, method, *arguments):
        """Call its supervisord."""
        transport = SocketTransport(machine.resolved(self.run) / "supervisor.sock")
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    @property
    def mark(self):
        """What tells a process of this host from all others: it is in their environment."""
        return f"SANDBOX_HOST={self.home}"

    @property
    def address(self):
        return self.host.private_dns

    @property
    def port(self):
        return self.host.port or SSHD.port

    @cached_property
    def environment(self):
        """What its logins and its supervisord find in their environment: not the operator's own."""
        passed = {name: text for name, text in os.environ.items() if PASSED_ON.fullmatch(name)}
        shared = {  # one machine compiles for all of them: what a trial imports is enough
            "UV_CACHE_DIR": str(Path.home() / ".cache/uv"), "UV_COMPILE_BYTECODE": "0"}
        name, _, home = self.mark.partition("=")
        user = machine.login()
        return shared | passed | {
            "HOME": home,
            "USER": user,
            "LOGNAME": user,
            "PATH": f"{VIRTUALENV}:{machine.SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "TMPDIR": str(machine.resolved(self.run)),  # what a killed program leaves goes too
            name: home,
        }

    # Before a start

    def end_orphans(self):
        """The servers of a supervisord that was killed hold its ports: end them."""
        leader = processes.recorded(self.supervisord)
        if leader and not leader.alive():
            processes.end([leader])

    def check_ports(self):
        """Refused, naming the holder, if somebody else listens where this host will."""
        wanted = [] if self.is_up(self.sshd) else [self.port]
        if not self.is_up(self.supervisord):
            wanted += [SERVERS[role].port for role in self.roles]
        for port in wanted:
            if holder := processes.holder(self.address, port):
                raise Refused(
                    f"{self.address}:{port} is in use by {holder}; end it, then run "
                    "sandbox_up again"
                )

    def make_home(self):
        for folder in ("logs", "supervisor/conf.d", "supervisor/servers.d"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:  # where root's sshd parts with its privileges; gone after a reboot
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        machine.make_key(self.state / "host_key", self.name)
        machine.make_run_folder(self.run)
        if self.roles:
            machine.make_data_folder(self.data)

    def prepare_servers(self, password):
        for role in self.roles:
            self.render(f"{role}.conf", self.home / f"supervisor/servers.d/{role}.conf")
        if self.solr:
            (self.home / "solr-home").mkdir(exist_ok=True)
            self.render("solr/solr.xml", self.home / "solr-home/solr.xml")
        if "db" in self.roles:
            machine.make_database(machine.resolved(self.data) / "db", DATABASE, password)

    def render(self, template, path):
        """Write a template of sandbox/ to `path`; whether that changed it."""
        facts = {name: getattr(self, name) for name in ("host", "address", "port", "root", "home")}
        text = templates().get_template(f"{template}.j2").render(
            facts,
            state=self.state,
            run=machine.resolved(self.run),
            data=machine.resolved(self.data),
            environment=assignments(self.environment),
            mark=self.mark,
            login=machine.login(),
            solr=self.solr,
            servers_user=machine.servers_user().pw_name,
            program=machine.find_program,
            wanted=self.wanted,
        )
        return machine.write(path, text)

    def wanted(self, role):
        """Whether a server can be started: nginx has no configuration before its first deploy."""
        return role != "nginx" or (self.home / "nginx/current/nginx.conf").exists()

    # Starting

    def start_sshd(self):
        self.render("session", self.state / "session")
        config, log = self.state / "sshd_config", self.state / "sshd.log"
        changed = self.render("sshd_config", config)
        if changed and self.is_up(self.sshd):
            processes.end([processes.recorded(self.sshd)])
        command = [machine.find_program("sshd"), "-D", "-f", config, "-E", log]
        self.keep_up(command, self.sshd, log)
        self.wait("sshd", lambda: machine.answers(self.address, self.port), self.sshd, log)

    def start_supervisord(self):
        config, log = self.home / "supervisord.conf", self.home / "logs/supervisord.log"
        self.render("supervisord.conf", config)
        self.keep_up([VIRTUALENV / "supervisord", "-n", "-c", config], self.supervisord, log)
        self.wait("supervisord", self.supervisord_answers, self.supervisord, log)

    def supervisord_answers(self):
        with contextlib.suppress(*UNANSWERED):
            return self.call("getState")["statename"] == "RUNNING"

    def start_servers(self):
        """Start each server that is down, then wait for all."""
        added, _, _ = self.call("reloadConfig")[0]
        for role in set(added) & set(self.roles):  # a role it did not have when it was started
            self.call("addProcessGroup", role)
        states = self.programs()
        wanted = [role for role in self.roles if self.wanted(role)]
        for role in wanted:
            if states.get(role) in DOWN:
                self.call("startProcess", role, False)
        for role in wanted:
            log = self.home / f"logs/{role}.log"
            self.wait(role, lambda role=role: self.serves(role), self.supervisord, log, PATIENCE)

    def serves(self, role):
        state = self.programs().get(role)
        if state == "FATAL":
            raise self.not_up(role, self.home / f"logs/{role}.log")
        return state == "RUNNING" and machine.answers(self.address, SERVERS[role].port)

    def keep_up(self, argv, record, log):
        if not self.is_up(record):
            environment = self.environment
            processes.start(argv, record=record, log=log, env=environment, cwd=self.home)

    def wait(self, what, question, record, log, seconds=20):
        """Wait until `question()` is true. Failed if it does not get so in time, or if the
        process of `record` has ended."""

        def settled():
            process = processes.recorded(record)
            return question() or (process and not process.alive())

        processes.wait_for(settled, seconds)
        if not question():
            raise self.not_up(what, log)

    def not_up(self, what, log):
        return Failed(
            f"{what} on {self.address} did not come up; the end of {log}:\n"
            f"{machine.tail(log)}"
        )


def full_name(program):
    """A program as `supervisorctl status` calls it."""
    group, name = program["group"], program["name"]
    return name if name == group else f"{group}:{name}"


class SocketTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket, with a deadline."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def make_connection(self, host):
        connection = http.client.HTTPConnection(host)
        self._connection = host, connection  # closed with the proxy
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        connection.sock.connect(str(self.path))
        return connection
