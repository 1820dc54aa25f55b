"""Runs etcd, the API server, the controller manager and the scheduler, without root."""

import signal
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from testcluster import settings
from testcluster.artifacts import binaries
from testcluster.controlplane.access import KubernetesAccess, write_kubeconfig
from testcluster.controlplane.pki import Authority, KeyPair
from testcluster.linux.processes import ProcessTable

ISSUER = f"https://kubernetes.default.svc.{settings.CLUSTER_DOMAIN}"
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Options:
    """Settings of a control plane."""

    directory: Path
    address: str = "127.0.0.1"
    api_port: int = settings.API_PORT
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    controller_port: int = 10257
    scheduler_port: int = 10259
    controllers: bool = True
    scheduler: bool = True
    advertise: bool = False
    """Publish the API server as the ``kubernetes`` service; not possible with a loopback address."""
    audit: bool = False
    """Log every request, without bodies, to ``audit.log``, for example to count requests by client."""
    admission: tuple[str, ...] = ()
    """Further admission plugins, such as OwnerReferencesPermissionEnforcement, which is on in OpenShift."""
    toleration_seconds: int = 60
    """How long a pod stays on a node that is not ready; 300 s in a default cluster."""
    prefix: tuple[str, ...] = field(default=())
    """A command prefix, such as nsenter, for starting each program."""

    @classmethod
    def on_free_ports(cls, directory: Path, **settings: Any) -> "Options":
        """Options with these settings, and ports that nobody else uses."""
        api, etcd, etcd_peer, controller, scheduling = _free_ports(5)
        return cls(
            directory,
            api_port=api,
            etcd_port=etcd,
            etcd_peer_port=etcd_peer,
            controller_port=controller,
            scheduler_port=scheduling,
            **settings,
        )

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api_port}"


class ControlPlane(KubernetesAccess):
    """A running control plane. As a context manager, it stops at the end of the block.

    With ``start`` it runs without root on free loopback ports, and the kernel kills its programs when the thread that
    started it ends. So start it from the main thread.
    """

    def __init__(self, options: Options, processes: ProcessTable) -> None:
        super().__init__(options.directory / "admin.kubeconfig")
        self.options = options
        self.processes = processes
        self.authority = Authority(options.directory / "pki")
        self.server = options.server

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        controllers: bool = True,
        scheduler: bool = True,
        audit: bool = False,
        admission: tuple[str, ...] = (),
    ) -> "ControlPlane":
        """Start a control plane in ``directory``, which must be missing or empty, and wait until it is ready."""
        binaries.ensure(binaries.CONTROL_PLANE)
        settings = {"controllers": controllers, "scheduler": scheduler, "audit": audit, "admission": admission}
        options = Options.on_free_ports(directory.resolve(), **settings)
        plane = cls(options, ProcessTable(options.directory / "processes", die_with_parent=True))
        try:
            plane.launch(options.server)
        except BaseException:
            plane.stop()
            raise
        return plane

    def launch(self, reachable_server: str) -> None:
        """Create certificates, start the programs and wait until they are ready.

        ``reachable_server`` is the API server's URL for this process, if it differs from the bound address: on
        ``localhost`` or 127.0.0.1.
        """
        self.server = reachable_server
        options = self.options
        options.directory.mkdir(parents=True, exist_ok=True)
        authority = Authority.create(options.directory / "pki")
        authority.signing_key("service-accounts")
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", group="system:masters")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", ISSUER.removeprefix("https://")]
        hosts = {*names, "localhost", "127.0.0.1", options.address, str(settings.API_SERVICE_ADDRESS)}
        serving = authority.issue("apiserver", "kube-apiserver", hosts=sorted(hosts))
        self.user_kubeconfig("admin", "distill-admin", group="system:masters", server=reachable_server)

        self._spawn("etcd", etcd_arguments(options))
        self._spawn("kube-apiserver", apiserver_arguments(options, authority, serving))
        self._wait(lambda: self._answers("/readyz"), "etcd", "kube-apiserver")
        # These two exit if the API server has not created their roles yet, so they start after it.
        if options.controllers:
            # As an administrator, because a token for each of its ~30 controllers would take seconds.
            kubeconfig = self.user_kubeconfig("controller-manager", "controllers", group="system:masters")
            self._spawn("kube-controller-manager", controller_arguments(options, authority, kubeconfig))
        if options.scheduler:
            kubeconfig = self.user_kubeconfig("scheduler", "system:kube-scheduler")
            self._spawn("kube-scheduler", scheduler_arguments(options, kubeconfig))
        if options.controllers:  # no pod can be created before the controllers have created its service account
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait(lambda: self._answers(account), "kube-apiserver", "kube-controller-manager")

    def user_kubeconfig(self, name: str, user: str, *, group: str | None = None, server: str = "") -> Path:
        """A kubeconfig for ``user`` of ``group`` with a new client certificate."""
        pair = self.authority.issue(name, user, group=group)
        path = self.options.directory / f"{name}.kubeconfig"
        return write_kubeconfig(path, server or self.options.server, self.authority.pair.certificate, pair)

    def restart_api_server(self) -> None:
        """Stop the API server as an upgrade does, start it again, and wait until it is ready.

        Call it from the thread that started the control plane.
        """
        self.processes.stop("kube-apiserver", grace_seconds=10)
        serving = self.authority.existing("apiserver")
        self._spawn("kube-apiserver", apiserver_arguments(self.options, self.authority, serving))
        self._wait(lambda: self._answers("/readyz"), "etcd", "kube-apiserver")

    @contextmanager
    def paused(self, program: str) -> Iterator[None]:
        """Inside, the program is stopped (SIGSTOP), as on a disk that does not answer; afterwards it goes on."""
        process = self.processes.get(program)
        if process is None:
            raise RuntimeError(f"{program} does not run")
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    @property
    def audit_log(self) -> Path:
        """Where the API server logs requests, with the option ``audit``. Full files are renamed and stay beside it."""
        return self.options.directory / "audit.log"

    @property
    def ready(self) -> bool:
        """Whether the API server is ready."""
        return self._answers("/readyz")

    def stop(self) -> None:
        """Stop the programs; their files stay in the directory."""
        self.processes.stop(*_CONTROLLERS, "kube-apiserver", "etcd", grace_seconds=0)

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self, path: str) -> bool:
        """Whether an administrator's GET of ``path`` succeeds."""
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        admin = self.authority.directory / "admin.crt"
        context.load_cert_chain(admin, admin.with_suffix(".key"))
        # The host's proxy settings must not apply to its own address.
        no_proxy, https = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        try:
            with urllib.request.build_opener(no_proxy, https).open(f"{self.server}{path}", timeout=3):
                return True
        except OSError:  # refused, timed out, or an HTTP error such as 404
            return False

    def _wait(self, condition: Callable[[], bool], *programs: str, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.processes.require_alive(*programs)
            if time.monotonic() > deadline:
                logs = "\n".join(self.processes.log_tail(program) for program in programs)
                raise TimeoutError(f"{', '.join(programs)} not ready after {seconds:.0f} s:\n{logs}")
            time.sleep(0.1)

    def _spawn(self, program: str, arguments: list[str]) -> None:
        path = str(binaries.path(program))
        self.processes.start(program, [path, *arguments], prefix=self.options.prefix)


def etcd_arguments(options: Options) -> list[str]:
    client, peer = f"http://127.0.0.1:{options.etcd_port}", f"http://127.0.0.1:{options.etcd_peer_port}"
    return [
        f"--data-dir={options.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data is deleted with the cluster, so it need not survive a power loss
        "--log-level=warn",
    ]


def apiserver_arguments(options: Options, authority: Authority, serving: KeyPair) -> list[str]:
    pki = authority.directory
    arguments = [
        f"--etcd-servers=http://127.0.0.1:{options.etcd_port}",
        f"--bind-address={options.address}",
        f"--advertise-address={options.address}",
        f"--endpoint-reconciler-type={'lease' if options.advertise else 'none'}",
        f"--secure-port={options.api_port}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={authority.pair.certificate}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki / 'service-accounts.crt'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--service-cluster-ip-range={settings.SERVICE_NETWORK}",
        f"--kubelet-certificate-authority={authority.pair.certificate}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        # PodSecurity and Priority are on by default.
        f"--enable-admission-plugins={','.join(('NodeRestriction', *options.admission))}",
        f"--default-not-ready-toleration-seconds={options.toleration_seconds}",
        f"--default-unreachable-toleration-seconds={options.toleration_seconds}",
        "--allow-privileged=true",
        "--profiling=false",
    ]
    if not options.controllers:
        # Without controllers there are no service accounts, so pods must be accepted without one.
        arguments.append("--disable-admission-plugins=ServiceAccount")
    if options.audit:
        policy = options.directory / "audit-policy.yaml"
        policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
        arguments += [f"--audit-policy-file={policy}", f"--audit-log-path={options.directory / 'audit.log'}"]
    return arguments


def controller_arguments(options: Options, authority: Authority, kubeconfig: Path) -> list[str]:
    return [
        *_component_arguments(kubeconfig, options.controller_port),
        f"--service-account-private-key-file={authority.directory / 'service-accounts.key'}",
        f"--root-ca-file={authority.pair.certificate}",
        f"--flex-volume-plugin-dir={options.directory / 'volume-plugins'}",  # by default in /usr
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=16s",
    ]


def scheduler_arguments(options: Options, kubeconfig: Path) -> list[str]:
    return _component_arguments(kubeconfig, options.scheduler_port)


def _component_arguments(kubeconfig: Path, port: int) -> list[str]:
    flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [
        *(f"--{flag}={kubeconfig}" for flag in flags),
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
