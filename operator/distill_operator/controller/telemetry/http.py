"""The operator's HTTP endpoints: /healthz and /readyz on one port, /metrics on another."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Problem = Callable[[], str | None]
"""What is wrong, in a few words; None if all is well."""


class HttpServer:
    """The two servers of the process."""

    def __init__(self, registry: CollectorRegistry, unhealthy: Problem, unready: Problem) -> None:
        self._registry = registry
        self._problems = {"/healthz": unhealthy, "/readyz": unready}
        self._runners: list[web.AppRunner] = []

    async def start(self, health_port: int, metrics_port: int) -> None:
        """Listen on all addresses. Raises OSError if a port is in use."""
        await self._listen(health_port, dict.fromkeys(self._problems, self._probe))
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

    def _probe(self, request: web.Request) -> web.Response:
        problem = self._problems[request.path]()
        return web.Response(text="ok\n") if problem is None else web.Response(status=503, text=f"{problem}\n")

    def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
