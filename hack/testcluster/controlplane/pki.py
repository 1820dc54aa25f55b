"""The certificate authority of a cluster, created with the openssl command."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster.linux.processes import run

_DAYS = "30"
_KEY_KIND = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class KeyPair:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs all certificates of a cluster and stores them in ``directory``."""

    directory: Path

    @property
    def pair(self) -> KeyPair:
        return self._paths("ca")

    @classmethod
    def create(cls, directory: Path) -> "Authority":
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        # Debian's openssl.cnf adds extensions to every request; an empty one does not.
        (directory / "openssl.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
        authority = cls(directory)
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
        authority._request("ca", "/CN=distill-test-ca", [*extensions, "subjectKeyIdentifier=hash"], signer=[])
        return authority

    def issue(self, name: str, common_name: str, *, group: str | None = None, hosts: Sequence[str] = ()) -> KeyPair:
        """Issue a client and server certificate for ``hosts`` (names and addresses)."""
        subject = (f"/O={group}" if group else "") + f"/CN={common_name}"
        extensions = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            "authorityKeyIdentifier=keyid",
        ]
        if hosts:
            extensions.append("subjectAltName=" + ",".join(map(_alternative_name, hosts)))
        signer = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)]
        return self._request(name, subject, extensions, signer)

    def existing(self, name: str) -> KeyPair:
        """A certificate that was issued before."""
        return self._paths(name)

    def signing_key(self, name: str) -> KeyPair:
        """Create a key for service account tokens, with its public key instead of a certificate."""
        pair = self._paths(name)
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pair.key)
        run("openssl", "ec", "-in", pair.key, "-pubout", "-out", pair.certificate)
        return pair

    def _request(self, name: str, subject: str, extensions: Sequence[str], signer: Sequence[str]) -> KeyPair:
        pair = self._paths(name)
        added = [part for extension in extensions for part in ("-addext", extension)]
        command = ["openssl", "req", "-x509", "-config", str(self.directory / "openssl.cnf"), "-days", _DAYS]
        output = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
        run(*command, *_KEY_KIND, *signer, "-subj", subject, *added, *output)
        return pair

    def _paths(self, name: str) -> KeyPair:
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")


def _alternative_name(host: str) -> str:
    return ("IP:" if host.replace(".", "").isdigit() else "DNS:") + host
