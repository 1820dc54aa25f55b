"""The operator's HTTP endpoints: /healthz and /readyz on one port, /metrics on another."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

STUCK_SECONDS = 180.0
"""A pass makes a few requests of at most 20 s each; one that takes longer than this is stuck."""


class HttpServer:
    """The two servers of the process."""

    def __init__(
        self, registry: CollectorRegistry, oldest_pass: Callable[[], float], ready: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._oldest_pass = oldest_pass
        self._ready = ready
        self._runners: list[web.AppRunner] = []

    async def start(self, health_port: int, metrics_port: int) -> None:
        """Listen on all addresses. Raises OSError if a port is in use."""
        await self._listen(health_port, {"/healthz": self._healthz, "/readyz": self._readyz})
        await self._listen(metrics_port, {"/metrics": self._metrics})

    async def stop(self) -> None:
        """Close both servers."""
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, port: int, routes: dict[str, Callable[[web.Request], web.Response]]) -> None:
        async def answer(request: web.Request) -> web.Response:
            return routes[request.path](request)

        app = web.Application()
        app.router.add_routes([web.get(path, answer) for path in routes])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, port=port).start()

    def _healthz(self, _: web.Request) -> web.Response:
        seconds = self._oldest_pass()
        if seconds > STUCK_SECONDS:
            return web.Response(status=503, text=f"a pass has been running for {seconds:.0f} s\n")
        return web.Response(text="ok\n")

    def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="starting\n")

    def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
