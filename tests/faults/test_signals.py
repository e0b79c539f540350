"""Ctrl-C, SIGTERM and SIGHUP: every command ends in a sentence, with the exit code that shells know."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medclip.cli.info import Info
from medclip.data.parallel import map_shards
from medclip.stop_signals import STOP_SIGNALS

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
TWICE = """
import os, signal, sys, threading, time
from medclip.cli.info import Info
from medclip.cli.main import main
def run(self):
    threading.Thread(target=time.sleep, args=(60,)).start()  # which holds up the end of the process
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
Info.run = run
sys.argv = ["medclip", "info", "x"]
main()
"""


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("kind", STOP_SIGNALS)
def test_a_signal_ends_a_command_in_a_sentence(kind, medclip, monkeypatch):
    monkeypatch.setattr(Info, "run", lambda self: os.kill(os.getpid(), kind) or time.sleep(60))
    code, out, err = medclip("info", "x")
    assert (code, out) == (CODES[kind], "")
    assert err.startswith("medclip: stopped by ") and kind.name in err
    assert "; a training run goes on with --resume, " in err


@pytest.mark.usefixtures("ordinary_signals")
def test_a_signal_that_is_ignored_stays_so(medclip, monkeypatch):
    """SIGHUP under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(Info, "run", lambda self: os.kill(os.getpid(), signal.SIGHUP))
    assert medclip("info", "x") == (0, "", "")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.slow
def test_a_second_signal_waits_for_nothing():
    process = subprocess.Popen([sys.executable, "-c", TWICE], stderr=subprocess.PIPE, text=True)
    assert process.stderr and "stopped by SIGTERM" in process.stderr.readline()  # Python waits for the thread
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == (None, "")
    assert process.returncode in (143, -signal.SIGTERM)


def test_nobody_waits_for_workers_after_a_signal():
    shards = map_shards(time.sleep, ((0 if n == 0 else 600,) for n in range(6)), 2)
    next(shards)
    with pytest.raises(KeyboardInterrupt):
        shards.throw(KeyboardInterrupt)


def test_nobody_waits_for_workers_whose_results_are_not_wanted():
    shards = map_shards(time.sleep, ((0 if n == 0 else 600,) for n in range(6)), 2)
    next(shards)
    shards.close()
