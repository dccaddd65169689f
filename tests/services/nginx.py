"""nginx on ``deploy/nginx.conf``: nothing of that file is another but where things are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services.certificates import Authority, Certificate
from services.daemon import Daemon, accepts, free_ports

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
PROGRAM = "/usr/sbin/nginx"
NAME = "localhost"

MAIN = """\
daemon off;
master_process on;
pid nginx.pid;
error_log errors.log info;
user root;
worker_processes 2;
events {{}}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {shipped};
}}
"""
"""What a distribution's own nginx.conf is for."""


class Nginx:
    """Serves https://localhost with a certificate of the tests' own authority; ``front_ends`` are as ``127.0.0.1:8420``."""

    def __init__(self, folder: Path, front_ends: Sequence[str]) -> None:
        folder.mkdir()
        authority = Authority(folder / "tls")
        self.folder = folder
        self.authority = authority.certificate
        """The file that clients must trust."""
        self.port, self.plain_port = free_ports(2)
        self.url = f"https://{NAME}:{self.port}"
        shipped = folder / "distci.conf"
        shipped.write_text(self._settings(authority.sign("tls", f"DNS:{NAME}"), front_ends))
        (folder / "nginx.conf").write_text(MAIN.format(shipped=shipped))
        self._daemon = Daemon("nginx", [PROGRAM, "-p", str(folder), "-c", str(folder / "nginx.conf")], folder)
        self._daemon.wait_until_ready(lambda: accepts(self.port))

    @property
    def requests(self) -> str:
        """The log of requests."""
        return (self.folder / "access.log").read_text()

    def stop(self) -> None:
        self._daemon.stop()

    def _settings(self, certificate: Certificate, front_ends: Sequence[str]) -> str:
        """The shipped file, with what is marked there as the reader's own changed to what the tests have, and on free ports."""
        text = SHIPPED.read_text()
        [server] = re.findall(r"server front-end:8420 (.*);", text)
        for ours, count, theirs in (
            (r"server front-end:8420 .*;", 1, "".join(f"server {address} {server};" for address in front_ends)),
            (r"server_name ci\.example\.org;", 2, f"server_name {NAME};"),
            (r"listen 443 ", 2, f"listen 127.0.0.1:{self.port} "),
            (r"listen 80;", 1, f"listen 127.0.0.1:{self.plain_port};"),
            (r"/etc/nginx/distci/tls\.crt", 1, str(certificate.certificate)),
            (r"/etc/nginx/distci/tls\.key", 1, str(certificate.key)),
            (r"/var/log/nginx", 1, str(self.folder)),
        ):
            text, changed = re.subn(ours, theirs.replace("\\", r"\\"), text)
            assert changed == count, f"{SHIPPED} has {changed} times {ours}, not {count} times"
        return text
