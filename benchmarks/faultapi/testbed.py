"""A control plane, and lanes in it: each has a namespace, nodes, and an operator of its own behind a proxy."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faultapi.proxy import Proxy, Undisturbed
from benchmarks.faultapi.watching import Watcher
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, Object, Refused, install_crd, wait_for
from tests.support.apiserver.nodes import Nodes, rank0
from tests.support.apiserver.operatorprocess import OperatorProcess, chart_user
from tests.support.apiserver.team import Team

START_SECONDS = 120.0
"""How long an operator may take to start on a busy machine."""
AWAY_SECONDS = 120.0
"""How long the API server may be away."""
PATIENCE = 10.0
"""How much longer than the tests to wait for each step: the operator's back-off may have to pass, too."""
CHILDREN = ("Pod", "Job", "Service", "NetworkPolicy", "DistillJob")
_PASSING = (429, 500, 503, 504)
_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)
_EXCEPTION = re.compile(r"^[\w.]+(?:Error|Exception|Expired|Interrupt)\b.*", re.MULTILINE)


class PatientApi(Api):
    """Waits while the API server is away."""

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: str
    ) -> Object:
        """The answer. Raises Refused, and OSError after AWAY_SECONDS."""
        deadline, again = time.monotonic() + AWAY_SECONDS, False
        while True:
            try:
                return super().request(method, path, body, content, **query)
            except Refused as refused:
                if again and refused.code == 409 and method == "POST":  # the lost request has created it
                    return dict(body) if isinstance(body, dict) else {}
                if refused.code not in _PASSING or time.monotonic() > deadline:
                    raise
            except OSError:
                if time.monotonic() > deadline:
                    raise
            again = True
            time.sleep(0.3)


@dataclass
class Lane:
    """One job at a time, and the operator that cares for it and for no other."""

    team: Team
    proxy: Proxy
    watcher: Watcher
    claims: frozenset[str]
    kills: int = 0
    """Times that the operator was killed."""
    exits: int = 0
    """Times that it ended by itself; both since `begin`."""
    _read: int = 0

    @property
    def operator(self) -> OperatorProcess:
        """The process."""
        return self.team.operator

    def begin(self) -> None:
        """Nothing is disturbed, nothing is left of an earlier job, the operator runs, and nothing was seen yet."""
        self.proxy.fault = Undisturbed()
        self.clear()
        wait_for(lambda: self.operator.ready, START_SECONDS, self.operator.tail)
        self.team.rank0.status = None
        self.proxy.writes.clear()
        self.watcher.begin()
        self.kills = self.exits = 0
        self._read = self._log_size()

    def kill(self) -> None:
        """SIGKILL. Another operator is started at once."""
        self.kills += 1
        self.operator.kill()

    def supervise(self, stop: threading.Event) -> None:
        """Start the operator whenever it does not run, as a kubelet does."""
        while not stop.wait(0.1):
            if self.operator.running:
                continue
            if self.operator.exit_status not in (None, -9):
                self.exits += 1
            try:
                self.operator.start(START_SECONDS, WATCH_NAMESPACES=self.team.ns, RESYNC_SECONDS="5")
            except AssertionError:  # it was killed again, or could not start while it was disturbed
                self.operator.choose_ports()

    def _log_size(self) -> int:
        return self.operator.log.stat().st_size if self.operator.log.exists() else 0

    def errors(self) -> list[str]:
        """The errors with a traceback in the operator's log since `begin`."""
        with self.operator.log.open() as log:
            log.seek(self._read)
            records = _RECORD.split(log.read())
        return [(_EXCEPTION.findall(record) or ["?"])[-1] for record in records if "Traceback (" in record]

    def clear(self) -> None:
        """Remove everything of a job, by force."""
        team = self.team
        team.api.delete("DistillJob", team.ns, "tiny")
        wait_for(lambda: not self.leftovers(force=True), 60)

    def leftovers(self, *, force: bool = False) -> list[str]:
        """Objects of a job that are there: kind and name. With `force`, they are deleted as well."""
        team, found = self.team, []
        for kind in CHILDREN:
            for obj in team.api.list(kind, team.ns):
                name = obj["metadata"]["name"]
                found.append(f"{kind} {name}")
                if force:
                    grace = {"gracePeriodSeconds": 0} if kind == "Pod" else {"propagationPolicy": "Background"}
                    team.api.delete(kind, team.ns, name, **grace)
        claims = {claim["metadata"]["name"] for claim in team.api.list("PersistentVolumeClaim", team.ns)}
        return found + [f"PersistentVolumeClaim {name}" for name in claims - self.claims]


@contextmanager
def lane(api: Api, operator_api: Api, number: int, folder: Path) -> Iterator[Lane]:
    """A lane with a running operator. The nodes are the caller's: two for each lane."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(operator_api))
        rank = stack.enter_context(rank0(100 + number))
        operator = OperatorProcess(proxy.kubeconfig(folder / f"lane{number}.kubeconfig"), folder / f"lane{number}.log")
        team = Team(api, f"lane-{number}", operator, rank, PATIENCE)
        team.prepare()
        watcher = stack.enter_context(Watcher(api, team.ns))
        made = Lane(team, proxy, watcher, frozenset({"runs", "digits"}))
        stop = threading.Event()
        thread = threading.Thread(target=made.supervise, args=(stop,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            stop.set()
            operator.kill()
            thread.join(START_SECONDS)
            operator.kill()


@contextmanager
def testbed(folder: Path, lanes: int) -> Iterator[tuple[ControlPlane, list[Lane]]]:
    """A control plane with so many lanes. Call it in the main thread, with whose end the control plane ends."""
    with ControlPlane.start(folder / "plane") as plane, ExitStack() as stack:
        api = PatientApi(plane.kubeconfig)
        install_crd(api)
        operator_api = Api(chart_user(plane, api))
        names = tuple(f"node{number}" for number in range(2 * lanes))
        stack.enter_context(Nodes(api, names))
        yield plane, [stack.enter_context(lane(api, operator_api, number, folder)) for number in range(lanes)]
