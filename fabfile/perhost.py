"""What a per-host task is given: a Fabric connection that speaks for its host."""

import codecs

import fabric
from fabric.runners import Remote

from .errors import Refused, Stop
from .remote import MARK, Patience, ending, exit_status, new_mark


class HostStream:
    """A text stream whose whole lines are given to `say`."""

    def __init__(self, say):
        self.say = say
        self.rest = []

    def write(self, text):
        whole, newline, rest = text.rpartition("\n")
        if newline:
            self.say("".join([*self.rest, whole]))
            self.rest.clear()
        if rest:
            self.rest.append(rest)

    def flush(self):
        """Lines are said when they are whole."""

    def end(self):
        """Says a last line that has no end."""
        if self.rest:
            self.write("\n")


class HostRunner(Remote):
    """Fabric's own, at a useful pace, with the deadlines and the Ctrl-C of the fleet."""

    read_chunk_size = 32768
    input_sleep = 0.02

    def run(self, command, **kwargs):
        self.mark = new_mark()
        self.spoken = []
        try:
            return super().run(command, **kwargs)
        finally:
            for stream in self.spoken:
                stream.end()

    def start(self, command, shell, env, timeout=None):
        super().start(command, shell, {**env, MARK: self.mark}, timeout)
        if not (self.streams["in"] or self.watchers or self.using_pty):
            self.close_proc_stdin()  # or a command that reads would wait for ever

    def _unify_kwargs_with_config(self, kwargs):
        """What a task does not hide, or send elsewhere, is said by the host; `timeout` counts as
        the deadline, as Invoke's own would only close the channel.
        """
        super()._unify_kwargs_with_config(kwargs)
        self.patience = Patience(self.opts["timeout"], self.context.cancelled)
        self.opts["timeout"] = None
        for name in ("out", "err"):
            if self.opts[f"{name}_stream"] is None:
                self.streams[name] = HostStream(self.context.say)
                self.spoken.append(self.streams[name])

    def read_proc_output(self, reader):
        decode = codecs.getincrementaldecoder(self.encoding)(errors="replace").decode
        while data := reader(self.read_chunk_size):
            self.patience.renew()
            yield decode(data)
        yield decode(b"", final=True)

    def respond(self, buffer_):
        if self.watchers:  # which read all that was said so far, each time
            super().respond(buffer_)

    @property
    def process_is_finished(self):
        try:
            with ending(self.context, self.mark):
                self.patience.check()
        except Stop:
            self.channel.close()
            raise
        return super().process_is_finished

    def returncode(self):
        return exit_status(self.channel)


class DryConnection(fabric.Connection):
    """What `--dry` hands out: it says what it would do, and opens and runs nothing."""

    def __init__(self, address, say):
        super().__init__(address)
        self._set(say=say)

    def run(self, command, **kwargs):
        self.say(command)
        return fabric.Result(connection=self, command=command, exited=0)

    def sudo(self, command, **kwargs):
        return self.run(f"sudo {command}")

    def local(self, command, **kwargs):
        return self.run(f"# here: {command}")

    def put(self, local, remote=None, **kwargs):
        self.say(f"# put {local} {remote or ''}")

    def get(self, remote, local=None, **kwargs):
        self.say(f"# get {remote} {local or ''}")

    def open(self):
        raise Refused("with --dry nothing is opened, so the rest of this task can't be shown")


def speaking(connection, say, cancelled):
    """The connection, its c.run() saying a host's lines and ending when `cancelled` is set."""
    connection._set(say=say, cancelled=cancelled)  # a plain assignment goes to its settings
    connection.config.runners.remote = HostRunner
    connection.config.run.in_stream = False
    return connection


def last_words(text, lines=4):
    """The last lines of what a command said, joined for one report."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
