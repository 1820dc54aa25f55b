"""An API server over plain HTTP in a thread: discovery, lists, watches, resourceVersions; no more of Kubernetes."""

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Object = dict[str, Any]

KINDS = {
    "distilljobs": ("distilljob.dev/v1alpha1", "DistillJob"),
    "jobs": ("batch/v1", "Job"),
    "namespaces": ("v1", "Namespace"),
    "pods": ("v1", "Pod"),
    "services": ("v1", "Service"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "events": ("v1", "Event"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "customresourcedefinitions": ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
}
VERBS = ["get", "list", "watch", "create", "update", "delete"]


class FakeApi:
    """Its clients are told apart by their bearer token, which is their name."""

    def __init__(self) -> None:
        self.port = 0
        self.objects: dict[tuple[str, str, str], Object] = {}
        """By plural, namespace and name."""
        self.writes: dict[str, list[str]] = defaultdict(list)
        """By client: method and path of its requests that write, without those about Leases."""
        self.held: set[str] = set()
        """Plurals whose requests are not answered."""
        self.spoiled: dict[str, list[bytes]] = defaultdict(list)
        """By plural: bodies that its next lists are answered with."""
        self.last_lines: dict[str, list[bytes]] = defaultdict(list)
        """By plural: lines with each of which a watch ends; with an empty one its connection breaks."""
        self.loses_events = False
        """Whether watches are not told of changes."""
        self.away = False
        """Whether connections are closed without an answer."""
        self.answer_after = 0.0
        """Seconds between a write and its answer."""
        self.written_at: dict[str, float] = {}
        """By plural: the monotonic time of the last request that wrote."""
        self._version = 0
        self._log: list[tuple[str, Object]] = []

    def put(self, plural: str, obj: Object, event: str = "MODIFIED") -> Object:
        """Store an object, and tell the watches."""
        self._version += 1
        metadata = {"namespace": "", **obj["metadata"], "resourceVersion": str(self._version)}
        metadata.setdefault("uid", f"uid-{self._version}")
        stored = {**obj, "metadata": metadata}
        key = (plural, metadata["namespace"], metadata["name"])
        if event == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = stored
        self._log.append(("" if self.loses_events else plural, {"type": event, "object": stored}))
        return stored

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """A stored object; empty if there is none."""
        return self.objects.get((plural, namespace, name), {})

    def kubeconfig(self, folder: Path, client: str) -> Path:
        """The configuration of a client with this name."""
        named = {
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": client, "user": {"token": client}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": client}}],
        }
        path = folder / f"{client}.kubeconfig"
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "fake", **named}))
        return path

    @contextmanager
    def served(self) -> Iterator["FakeApi"]:
        """Listen on loopback, in a thread."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve() -> web.AppRunner:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            return runner

        def live() -> None:
            runner = loop.run_until_complete(serve())
            ready.set()
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            for task in (left := asyncio.all_tasks(loop)):  # the watches
                task.cancel()
            loop.run_until_complete(asyncio.wait(left)) if left else None

        thread = threading.Thread(target=live)
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.away and request.transport is not None:
            request.transport.close()
        parts = request.path.strip("/").split("/")
        group, rest = ("/".join(parts[1:3]), parts[3:]) if parts[0] == "apis" else (parts[1:2] and "v1", parts[2:])
        if not rest:
            return web.json_response(self._discovered(request.path))
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        while plural in self.held:
            await asyncio.sleep(0.05)
        if request.method != "GET":
            return await self._write(request, plural, namespace, name)
        if name:
            found = self.objects.get((plural, namespace, name))
            return web.json_response(found) if found else _status(404, "NotFound")
        if request.query.get("watch") == "true":
            return await self._watch(request, plural, namespace)
        if self.spoiled[plural]:
            return web.Response(body=self.spoiled[plural].pop(0))
        items = [o for (p, ns, _), o in self.objects.items() if p == plural and namespace in ("", ns)]
        version, kind = {"resourceVersion": str(self._version)}, KINDS[plural][1]
        return web.json_response({"kind": f"{kind}List", "apiVersion": group, "metadata": version, "items": items})

    async def _write(self, request: web.Request, plural: str, namespace: str, name: str) -> web.Response:
        body = await request.json()
        answer = self._written(request, plural, namespace, name, body)
        if answer.status < 400:
            self.written_at[plural] = time.monotonic()
        await asyncio.sleep(self.answer_after)
        return answer

    def _written(self, request: web.Request, plural: str, namespace: str, name: str, body: Object) -> web.Response:
        if plural != "leases":
            client = request.headers.get("Authorization", "").removeprefix("Bearer ")
            self.writes[client].append(f"{request.method} {request.path}")
        name = name or body["metadata"].get("name") or f"generated-{self._version}"
        present = self.objects.get((plural, namespace, name))
        if request.method == "POST":
            if present is not None:
                return _status(409, "AlreadyExists")
            body["metadata"] |= {"name": name, "namespace": namespace}
            return web.json_response(self.put(plural, body, "ADDED"), status=201)
        if present is None:
            return _status(404, "NotFound")
        if request.method == "DELETE":
            return web.json_response(self.put(plural, present, "DELETED"))
        if body["metadata"].get("resourceVersion") != present["metadata"]["resourceVersion"]:
            return _status(409, "Conflict")
        return web.json_response(self.put(plural, body))

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion", 0))
        stream = web.StreamResponse()
        await stream.prepare(request)
        told = since
        while True:
            if self.last_lines[plural]:
                line = self.last_lines[plural].pop(0)
                if not line and request.transport is not None:
                    request.transport.abort()
                await stream.write(line)
                return stream
            for kind, event in self._log[told:]:
                told += 1
                if kind == plural and namespace in ("", event["object"]["metadata"]["namespace"]):
                    await stream.write(json.dumps(event).encode() + b"\n")
            await asyncio.sleep(0.02)

    def _discovered(self, path: str) -> Object:
        groups = sorted({version for version, _ in KINDS.values() if "/" in version})
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            versions = [{"groupVersion": group, "version": group.split("/")[1]} for group in groups]
            pairs = zip(groups, versions, strict=True)
            named = [{"name": g.split("/")[0], "versions": [v], "preferredVersion": v} for g, v in pairs]
            return {"groups": named}
        wanted = path.removeprefix("/apis/").removeprefix("/api/")
        of_group = [(plural, kind) for plural, (version, kind) in KINDS.items() if version == wanted]
        names = [
            {"name": p, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS} for p, kind in of_group
        ]
        return {"groupVersion": wanted, "resources": names}


def _status(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": reason}, status=code)
