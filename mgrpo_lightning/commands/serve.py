"""``mgrpo serve RUN``: an OpenAI-compatible endpoint behind which a trained team answers."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from typing_extensions import override

from mgrpo_lightning.commands.ask import load_team
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.process.stopping import Stopping
from mgrpo_lightning.services.settings import api_key
from mgrpo_lightning.serving.app import ChatServer, Limits

GOODBYE = 1
"""Seconds that open replies get when the server is stopped."""


class _Server(uvicorn.Server):
    """uvicorn's server with the signal handling of this package's commands."""

    @contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        stopping = Stopping.current
        if stopping is not None:
            stopping.patient, stopping.forward = True, self._stop
        yield

    def _stop(self, signal: object) -> None:
        self.should_exit = True


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo serve``.

    Args:
        args: Command line after ``mgrpo serve``.

    Raises:
        MgrpoError: The run, the key or the address cannot be used.
    """
    parser = argparse.ArgumentParser("mgrpo serve", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, or a team file")
    parser.add_argument("--ckpt_path", default="last", help="checkpoint of the adapters; default: last")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: this machine only")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one; default: 8000")
    parser.add_argument(
        "--api_key_env", metavar="NAME", help="environment variable with the key that clients must send"
    )
    parser.add_argument("--name", help="name of the model in replies; default: the run's name")
    parser.add_argument("--max_requests", type=int, default=64, help="questions in play at a time; default: 64")
    parser.add_argument("--max_body_kib", type=int, default=1024, help="largest request in KiB; default: 1024")
    arguments = parser.parse_args(args)
    key = None
    if arguments.api_key_env:
        key = api_key(arguments.api_key_env, "the server", "set it before the command.")
    elif not _loopback(arguments.host):
        raise ConfigurationError(
            f"--host {arguments.host} is reachable from other machines, and no key is asked for.",
            hint="give --api_key_env NAME, the environment variable with a key.",
        )
    listening = _listen(arguments.host, arguments.port)
    with load_team(arguments.run, arguments.ckpt_path) as team:
        team.load()
        limits = Limits(arguments.max_requests, arguments.max_body_kib * 1024)
        server = ChatServer(team, arguments.name or team.folder.name, key=key, limits=limits)
        config = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GOODBYE,
        )
        host, port = listening.getsockname()[:2]
        print(f"serving {arguments.run} on http://{_shown(host)}:{port}/v1 (Ctrl-C stops it)", flush=True)
        asyncio.run(_Server(config).serve(sockets=[listening]))
    print("stopped")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Bind before the weights are loaded, so that a port that is taken is known at once."""
    if not 0 <= port <= 65535:  # getaddrinfo would take another one
        raise ConfigurationError(f"--port is {port}.", hint="give a number up to 65535, 0 for a free one.")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be used: {error}.", hint="give another --host or --port, or --port 0 for a free one."
        ) from error
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
