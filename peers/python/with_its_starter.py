"""Ends a server when the program that started it is gone, however that ended: its standard input is closed then."""

import os
import signal
import sys
import threading


def live() -> None:
    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
