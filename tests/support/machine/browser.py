"""A real headless browser, asked through Chrome's DevTools protocol over a web socket."""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from testcluster.artifacts.debian import BROWSER, BROWSERS
from tests.support.machine.leaving_out import leave_out

_SECONDS = 60
_REMEDY = f"no headless browser on the PATH; as root: apt-get install --no-install-recommends {BROWSER}"


@dataclass
class Page:
    """One page, and everything that it asked for or complained about."""

    socket: websocket.WebSocket
    events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def ask(self, method: str, **params: Any) -> Any:
        """A command's result; events that come before it are kept."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def open(self, address: str, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Load an address in a window of that size, in light or dark, until everything is loaded."""
        self.events.clear()
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )  # fmt: skip
        self.ask("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """The addresses that the page asked for, also those that it did not get."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """What the page, or the browser about it, wrote to the console, and its errors."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [json.dumps(event) for event in self.events if event["method"] in wanted]

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])


@contextmanager
def headless() -> Iterator[Page]:
    """A page of a new browser with a profile of its own, which resolves no name of a host.

    Where no browser is installed the test is left out, with the remedy.
    """
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None) or leave_out(_REMEDY)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--hide-scrollbars", f"--user-data-dir={folder}",
        )  # fmt: skip
        command = [program, *options, "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            address = _address(process)
            socket = websocket.create_connection(address, timeout=_SECONDS, suppress_origin=True)
            try:
                yield Page(_page(socket, address))
            finally:
                socket.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it and its renderers
            process.communicate(timeout=_SECONDS)


def _address(process: subprocess.Popen[str]) -> str:
    """Where the browser listens, which it says on its standard error."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if "DevTools listening on " in line:
            return line.split("listening on ")[1].strip()
        said.append(line)
    raise RuntimeError("the browser did not start:\n" + "".join(said))


def _page(socket: websocket.WebSocket, address: str) -> websocket.WebSocket:
    targets = Page(socket).ask("Target.getTargets")["targetInfos"]
    page = next(target["targetId"] for target in targets if target["type"] == "page")
    address = address.split("/devtools/")[0] + f"/devtools/page/{page}"
    return websocket.create_connection(address, timeout=_SECONDS, suppress_origin=True)


def address_of(file: Path) -> str:
    """The address of a local file."""
    return file.resolve().as_uri()
