"""A process that opens files before this one does, and dies of those that would have killed this one."""

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from . import check

SECONDS = 30.0  # for one file


class Guard:
    """The process, started when it is first asked, and again after each file that it did not survive."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._owner = 0  # process that started it: a fork has to start its own
        self._lock = threading.Lock()

    def ask(self, path: Path) -> str | None:
        """What is wrong with a file, or None."""
        with self._lock:
            child = self._running()
            clock = threading.Timer(SECONDS, child.kill)
            clock.start()
            try:
                assert child.stdin is not None and child.stdout is not None
                child.stdin.write(json.dumps(os.path.abspath(path)) + "\n")
                child.stdin.flush()
                answer = child.stdout.readline()
            except BrokenPipeError:
                answer = ""
            except BaseException:  # interrupted: its answer would be taken for that to the next question
                self.stop()
                raise
            finally:
                clock.cancel()
            if answer:
                said: str | None = json.loads(answer)
                return said
            self.stop()
            return "HDF5 itself fails on it"

    def stop(self) -> None:
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
            self._child.communicate()
        self._child = None

    def _running(self) -> "subprocess.Popen[str]":
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self.stop()
            self._owner = os.getpid()
            self._child = subprocess.Popen(
                [sys.executable, "-P", check.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._child


GUARD = Guard()
atexit.register(GUARD.stop)
