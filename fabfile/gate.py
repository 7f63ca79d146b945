"""Where commands on many hosts wait for each other, so that all take their next step at once."""

import threading

READY, WORD = b"ready\n", b"go\n"  # what a command says and waits for


class Gate:
    """Opens once `count` commands are ready. Where one ends before that, it stays shut for all."""

    def __init__(self, count):
        self.count = count
        self.ready = set()
        self.lock = threading.Lock()
        self.decided = threading.Event()
        self.open = False

    def hear(self, who, said):
        """What a command has said so far, as bytes: READY comes first."""
        if not said.startswith(READY):
            return
        with self.lock:
            self.ready.add(who)
            if len(self.ready) == self.count and not self.decided.is_set():
                self.open = True
                self.decided.set()

    def shut(self):
        """A command has ended. An open gate stays open."""
        with self.lock:
            self.decided.set()

    def word(self):
        """What the ready ones are told: WORD, or nothing. Waits until that is known."""
        self.decided.wait()
        return WORD if self.open else b""
