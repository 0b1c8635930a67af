"""Certificates for test servers that speak TLS on the loopback address, from an authority that lives for a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority that clients trust, and a server's certificate chain with its key."""

    authority: Path
    chain: Path
    key: Path


def certificates(folder: Path, *names: str) -> Certificates:
    """Make an authority and a certificate for 127.0.0.1, localhost and `names` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost", *names)
    made = Certificates(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.authority))
    made.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(made.key))
    made.key.chmod(0o600)
    return made
