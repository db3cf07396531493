"""Ring 1: the conversation with a worker that hangs, floods, dies at any point; real processes throughout."""

import sys
from pathlib import Path

import pytest
from live_processes import is_alive
from PedBoneSegUI import paths
from PedBoneSegUI.processes import descendants
from PedBoneSegUI.workerclient import CANCEL_MILLISECONDS, WorkerClient
from PedBoneSegUI.worklog import WorkLog

from PedBoneSegLib import __version__

BAD = Path(__file__).with_name("badworker.py")


@pytest.fixture
def clientOf():
    clients = []

    def make(mode: str) -> WorkerClient:
        root = paths.findRoot()
        command = [sys.executable, str(BAD), mode]
        clients.append(WorkerClient(command, str(root), {"PYTHONPATH": str(root)}, __version__, WorkLog()))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def ask(client, spin):
    """Sends one request and waits for its end: ("done", answer) or (kind, sentence)."""
    ends = []
    client.send("detect", onDone=lambda a: ends.append(("done", a)), onError=lambda k, m, a: ends.append((k, m)))
    spin(lambda: ends)
    spin(seconds=0.05, fail=False)
    assert len(ends) == 1, "a request ends exactly once"
    return ends[0]


def test_oneWorkerServesManyRequests(clientOf, spin):
    client = clientOf("good")
    first, second = ask(client, spin), ask(client, spin)
    assert first[0] == second[0] == "done" and first[1]["pid"] == second[1]["pid"]
    assert client.hello["devices"] == ["cpu"]


def test_requestsWaitForEachOther(clientOf, spin):
    client, order = clientOf("good"), []
    for name in ("a", "b", "c"):
        client.send(name, onDone=lambda answer: order.append(answer["op"]))
    spin(lambda: len(order) == 3)
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("dies", "died", "exit code 7"), ("killed", "died", "signal 9"), ("half-a-line", "died", "exit code 0"),
        ("noise", "died", "unreadable"), ("endless-line", "died", "unreadable"), ("hello-dies", "died", "exit code 7"),
        ("hello-noise", "died", "unreadable"), ("other-version", "bug", "version 0.0.0"),
    ],
)  # fmt: skip
def test_aFaultIsOneSentenceAndTheNextClickStartsAnew(clientOf, spin, mode, kind, words):
    client = clientOf(mode)
    told, sentence = ask(client, spin)
    assert told == kind and words in sentence and "\n" not in sentence
    assert not client.running
    client._command[-1] = "good"
    assert ask(client, spin)[0] == "done"


def test_aProgramThatIsNotThere(clientOf, spin):
    client = clientOf("good")
    client._command = ["/nowhere/Python Slicer"]
    kind, sentence = ask(client, spin)
    assert kind == "died" and "could not be started" in sentence


def test_aProgramThatIsNotThereAsOnWindows(clientOf, spin, monkeypatch):
    """There, Qt tells it before `start` returns."""
    import qt

    class Process(qt.QProcess):
        def start(self, program, arguments) -> None:
            super().start(program, arguments)
            self.waitForStarted()

    monkeypatch.setattr(qt, "QProcess", Process)
    client = clientOf("good")
    client._command = ["/nowhere/Python Slicer"]
    kind, sentence = ask(client, spin)
    assert kind == "died" and "could not be started" in sentence


@pytest.mark.parametrize("mode", ["hangs", "child"])
def test_cancelEndsTheWholeTree(clientOf, spin, mode):
    client, ends, stages = clientOf(mode), [], []
    request = client.send(
        "segment", onError=lambda k, m, a: ends.append(k), onProgress=lambda answer: stages.append(answer["stage"])
    )
    spin(lambda: request.state == "sent" and (stages or mode == "hangs"))
    spin(seconds=0.1, fail=False)
    tree = [client.processId(), *descendants(client.processId())]
    assert len(tree) == (2 if mode == "child" else 1)
    client.cancel(request)
    spin(lambda: ends)
    assert ends == ["cancelled"], "the worker itself would have gone on for ten minutes"
    spin(lambda: not any(is_alive(pid) for pid in tree))
    assert CANCEL_MILLISECONDS < 1000, "how long a worker has to answer before it is killed"


def test_cancelOfAWaitingRequestLeavesTheRunningOne(clientOf, spin):
    client, ends = clientOf("hangs"), []
    running = client.send("segment")
    waiting = client.send("segment", onError=lambda k, m, a: ends.append(k))
    spin(lambda: running.state == "sent")
    client.cancel(waiting)
    spin(lambda: ends == ["cancelled"])
    assert running.state == "sent" and client.running


def test_closeLeavesNothingBehindAndCallsNobody(clientOf, spin):
    client, ends = clientOf("child"), []
    request = client.send("segment", onDone=ends.append, onError=lambda *a: ends.append(a))
    spin(lambda: request.state == "sent")
    spin(seconds=0.2, fail=False)
    tree = [client.processId(), *descendants(client.processId())]
    client.close()
    spin(lambda: not any(is_alive(pid) for pid in tree))
    assert not ends


def test_theLogNamesNobody(clientOf, spin):
    client = clientOf("chatter")
    client.log.hide("Zoë Müller")
    assert ask(client, spin) == ("bad-input", "no; yes")
    assert client.log.text.count("<hidden>") and "Zoë" not in client.log.text and "zoe" not in client.log.text


def test_remediesForATerminalAreNotToldInThePanel(clientOf, spin):
    client = clientOf("terminal")
    assert {ask(client, spin)[1] for _number in range(3)} == {"no; say which it is", "no; write elsewhere", "no"}


def test_errorsCarryWhatTheWorkerAdds(clientOf, spin):
    """A late word about an ended request is not taken for the next one's answer."""
    client = clientOf("good")
    ask(client, spin)
    client._onLine(b'{"id": 1, "event": "done"}')
    client._onLine(b'{"id": 99, "event": "error", "kind": "bug"}')
    assert ask(client, spin)[0] == "done"
