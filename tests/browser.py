"""A Chromium that is offline, driven over its DevTools protocol: scripts, pens, pictures."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --no-proxy-server --disable-sync "
OPTIONS += "--disable-background-networking --disable-component-update --remote-debugging-port=0"


class Tab:
    """One page, and what happened in it: requests, errors, lines in the console."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=600)
        self.numbers = itertools.count(1)
        self.events = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **options) -> dict:
        """Call a method of the protocol and wait for its result."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": options}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(message)
        if "error" in message:
            raise AssertionError(f"{method}: {message['error']}")
        return message["result"]

    def run(self, script: str) -> object:
        """The value of a script, or of the promise that it gives."""
        result = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"])
        return result["result"].get("value")

    def open(self, path: Path, width: int = 1000, height: int = 800, touch: bool = False) -> None:
        """Open a file, in a window of that size or on a phone's screen."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch},
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=5)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while self.run("document.readyState") != "complete":
            time.sleep(0.02)

    def frame(self) -> None:
        """Wait until what changed has been drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def happened(self, method: str) -> list[dict]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def faults(self) -> list[dict]:
        """Exceptions, and what stands in the console."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [fault for kind in kinds for fault in self.happened(kind)]


@contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """Start Chromium with a new profile; no name of a host leads anywhere."""
    command = [CHROMIUM, *OPTIONS.split(), f"--user-data-dir={profile}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = profile / "DevToolsActivePort"
            until = time.monotonic() + 60
            while not (port.is_file() and port.read_text().count("\n")):
                assert time.monotonic() < until, "Chromium did not start"
                time.sleep(0.05)
            number = port.read_text().splitlines()[0]
            with urlopen(f"http://127.0.0.1:{number}/json/list") as answer:
                pages = [tab for tab in json.load(answer) if tab["type"] == "page"]
            tab = Tab(pages[0]["webSocketDebuggerUrl"])
            yield tab
            tab.socket.close()
        finally:
            process.terminate()
