"""The way of odd secrets through everything that takes one, and what can be read afterwards."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx

from tests.support.canaries import canary, files_of
from tests.support.command import Done, Home
from tests.support.fake_gcs import FakeGcs
from tests.support.postgres import Postgres
from tests.support.prefect_server import PrefectServer
from tests.support.receivers import Received, Receiver, plain
from tests.support.seaweed import Seaweed
from tests.support.service_process import PATIENT_S, ServiceProcess, until
from tests.support.up_process import started_up

PATH = "/api/v1/ingestions"
# What fails is not tried again a minute later.
ONCE = {"PREFECT_MAX_TASK_RETRIES": "0"}
HOURLY = {"frequency": "hourly", "timezone": "UTC"}
# It stands where it can be read, in names and paths.
CONTROL = canary("the control", 99, "{0} \"'%41é&< {1}")

_GOOGLE = {"client_email": "me@example.com", "private_key_id": "id"}
CANARIES = {
    one.name: one
    for one in (
        canary("SECRET_KEY", 1, "{0} \"quoted\" 'twice' %41 {1}"),
        canary("SECRET_KEY_PREVIOUS", 2, "{0}\\u00e9 é %0A {1}"),
        # Prefect's server compares ASCII alone.
        canary("Prefect's password", 3, "{0}%2F+\"'&=\\{1}"),
        canary("PREFECT_API_KEY", 4, "{0}\n'%\" {1}"),
        canary("password of a Prefect that is away", 5, "{0}/@:'{1}"),
        canary("password of the database", 6, "{0}%25\"ü'@/{1}"),
        canary("wrong password of the database", 7, "{0}%25\"ü'@/{1}"),
        canary("password of no database", 8, '{0}/p@ss:"{1}'),
        # Base64 of what is no text.
        canary("account_key", 10, "{0}+/{1}/+8w=="),
        canary("aws_access_key_id", 11, "{0}+=%'{1}"),
        canary("aws_secret_access_key", 12, "{0}\"%\\u00e9\\\\'{1}"),
        canary("aws_session_token", 13, "{0}é€ {1}"),
        canary("aws_secret_access_key of a schedule", 14, "{0}%2B%22'{1}"),
        canary("aws_secret_access_key that is changed", 15, base64.b64encode(b"\xff\xfe").decode() + '{0}/+"{1}=='),
        canary("sas_token", 16, "sv=2024-01-01&se=2030-01-01&sig={0}%2B\"'{1}%3D"),
        canary(
            "service_account_key", 17, json.dumps({**_GOOGLE, "disable_oauth": True, "private_key": "{0}\n'é\"{1}"})
        ),
        canary(
            "service_account_key that is none",
            18,
            json.dumps(
                {**_GOOGLE, "private_key": "-----BEGIN PRIVATE KEY-----\n{0}\n{1}==\n-----END PRIVATE KEY-----"}
            ),
        ),
        canary("secret of a webhook", 19, "{0}\n\t\"'é{1}"),
        canary("secret of a webhook that tells it", 20, "{0}<&>'\"\\{1}"),
        canary("wrong token", 21, "{0}\"%'\\<{1}"),
        canary("AUTOLOADER_TOKEN", 22, "{0}%0A\"'{1}"),
        canary("password of a service", 23, "{0}/x@y:{1}"),
        canary("credential of a refused document", 24, "{0}\n\"%'é{1}"),
        canary("password of an endpoint", 25, "{0}%22{1}"),
        canary("credential of a catalog", 26, "who:{0}\"%'{1}"),
        canary("password of a catalog", 27, "{0}/\"@:'é{1}"),
        canary("token of a catalog in a file", 28, "{0}'\\%é {1}"),
        canary("password of a catalog in a file", 29, "{0}%2F+:{1}"),
    )
}


def secret(name: str) -> str:
    return CANARIES[name].text


# --- the walk ------------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """Who uses the service in every way, and keeps what it says."""

    service: ServiceProcess
    token: str = ""
    answers: list[bytes] = field(default_factory=list)
    output: list[bytes] = field(default_factory=list)
    places: dict[str, bytes] = field(default_factory=dict)

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **more: Any
    ) -> httpx.Response:
        """What it answers, which is kept."""
        headers = {"Authorization": f"Bearer {token or self.token}"} if token or self.token else {}
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.service.port}{path}",
            json=body,
            headers=headers | more.pop("headers", {}),
            timeout=PATIENT_S + 30,
            trust_env=False,
            **more,
        )
        self.answers += [str(answer.headers.multi_items()).encode(), answer.content]
        return answer

    def made(self, status: int, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer with that status."""
        answer = self.call(method, path, body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def command(
        self, home: Home, *arguments: str, refused: bool = False, environ: Mapping[str, str] | None = None
    ) -> Done:
        """A command, whose output is kept."""
        done = home.run(*arguments, environ=environ)
        self.output += [done.stdout.encode(), done.stderr.encode()]
        assert (done.status in {1, 2}) is refused, f"{arguments}: {done}"
        return done

    def run(self, ingestion: str) -> dict[str, Any]:
        """A direct run of the ingestion, when it is over."""
        begun = self.call("POST", f"{PATH}/{ingestion}/run").json()
        assert begun["method"] == "direct", begun
        return self.ended(ingestion, begun["run_id"])

    def ended(self, ingestion: str, run_id: str = "") -> dict[str, Any]:
        """A run of the ingestion, or the last one, when it is over."""

        def look() -> dict[str, Any] | None:
            runs = self.call("GET", f"{PATH}/{ingestion}/runs").json()["items"]
            over = (run for run in runs if run["status"] not in {"queued", "running"} and run_id in {"", run["id"]})
            return next(over, None)

        found = until(look, 300, f"a run of {ingestion} ends")
        assert found is not None
        return found


def document(name: str, path: str, credentials: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    table = "t" + "".join(c for c in name.lower() if c.isascii() and c.isalnum())
    source = {"path": path} | ({} if credentials is None else {"credentials": dict(credentials)})
    return {"name": name, "source": source, "destination": {"database": "d", "table": table}} | more


def refused_documents(bucket: str) -> list[dict[str, Any]]:
    """Ways to put a secret where it does not belong."""
    value, path = secret("credential of a refused document"), f"s3://{bucket}/data/"
    key = {"aws_access_key_id": "AKIAEXAMPLE"}
    endpoint = f"http://me:{secret('password of an endpoint')}@127.0.0.1:9"
    return [
        document("a", path, {**key, "aws_secret_access_key": value}),
        document("b", path, {**key, "aws_secret_access_key": {"value": value}}),
        document("c", path, {**key, "aws_secret_acess_key": value}),
        document("d", path, {**key, "account_key": value}),
        document("e", path, {**key, "aws_secret_access_key": "x" * 30_000 + value}),
        document("f", path, {**key, "aws_secret_access_key": "plain-enough", "endpoint_url": endpoint}),
        document("g", path) | {"source": {"path": path, "credentials": value}},
        document("h", path) | {"source": {"path": path, "aws_secret_access_key": value}},
        document("i", "gs://b/", {"service_account_key": {"private_key": {"deep": value}}}),
        document("j", path, webhooks=[{"url": endpoint}]),
        document("k", path, webhooks=[{"url": "https://example.com", "secret": [value]}]),
        document("l", path, webhooks=[{"url": "https://example.com", "secret": f"whsec_{value}"}]),
    ]


@dataclass(frozen=True)
class Servers:
    """What a service reaches."""

    seaweed: Seaweed
    fake_gcs: FakeGcs
    prefect: PrefectServer
    receiver: Receiver
    bucket: str
    # Tells what it is sent.
    teller: Receiver
    # Where nobody listens.
    away: str

    @property
    def wrong_key(self) -> dict[str, str]:
        """A key that the server does not know."""
        return {
            "aws_access_key_id": secret("aws_access_key_id"),
            "aws_secret_access_key": secret("aws_secret_access_key"),
            "endpoint_url": self.seaweed.endpoint,
        }

    def sources(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Name → path and credentials; those of the last two are good."""
        s3, wrong = f"s3://{self.bucket}/data/", self.wrong_key
        google = {"service_account_key": secret("service_account_key that is none"), "endpoint_url": self.away}
        good = {"service_account_key": secret("service_account_key"), "endpoint_url": self.fake_gcs.endpoint}
        account = {"account_name": "someone", "endpoint_url": self.teller.url("")}
        session = {"aws_session_token": secret("aws_session_token")}
        return {
            "s3 wrong": (s3, wrong),
            "s3 session": (s3, {**wrong, **session}),
            "s3 told": (s3, {**wrong, **session, "endpoint_url": self.teller.url("")}),
            "az key": ("az://box/data/", {**account, "account_key": secret("account_key")}),
            "az token": ("az://box/data/", {**account, "sas_token": secret("sas_token")}),
            "gs none": (f"gs://{self.bucket}/data/", google),
            "gs good": (f"gs://{self.bucket}/data/", good),
            "s3 good": (s3, self.seaweed.credentials),
        }


async def tells_secrets(received: Received, writer: asyncio.StreamWriter) -> None:
    """What a receiver does that tells everybody what it checks signatures by."""
    told = {"expected": secret("secret of a webhook that tells it"), "instead_of": received.message.header("x")}
    body = b"" if received.path == "/good" else f"{'.' * 470}{json.dumps(told)}".encode()
    writer.write(plain(500 if body else 200, body))
    await writer.drain()


async def tells_requests(received: Received, writer: asyncio.StreamWriter) -> None:
    """What a server does that refuses all, and tells what it was sent: as a store, a catalog and Prefect would."""
    # What is secret comes first, for what is long is cut.
    header = received.message.header
    form = received.message.body.decode("latin-1")
    sent = f"{_meant(header('authorization'))} {header('x-amz-security-token')} {received.path} {unquote(form)} {form}"
    one_line = "".join(c if c.isprintable() else " " for c in sent)
    if received.path.startswith("/v1/"):
        error = {"message": one_line, "type": "BadRequestException", "code": 400}
        body = json.dumps({"error": error, "error_description": one_line}).encode()
    elif received.path.startswith("/api/"):
        body = json.dumps({"detail": one_line, "exception_message": one_line}).encode()
    else:
        told = html.escape(one_line)
        body = f"<?xml version='1.0'?><Error><Code>{told}</Code><Message>{told}</Message></Error>".encode()
    writer.write(plain(400, body))
    await writer.drain()


def _meant(authorization: str) -> str:
    """What such a header says in base64."""
    kind, _, text = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    sent = base64.b64decode(text)
    try:
        return sent.decode()
    except UnicodeDecodeError:
        # As some libraries send it.
        return sent.decode("latin-1")


def walk_over_http(walk: Walk, servers: Servers) -> None:
    """Make, look at, run and change ingestions, with what goes well and what does not."""
    for one in refused_documents(servers.bucket):
        assert walk.call("POST", PATH, one).status_code == 422, one
        walk.call("POST", f"{PATH}/test", one)
    broken = json.dumps(refused_documents(servers.bucket)[0])[:-3]
    json_type = {"content-type": "application/json"}
    assert walk.call("POST", PATH, content=broken.encode(), headers=json_type).status_code == 422
    hooks = [
        {"url": servers.receiver.url("/good"), "name": CONTROL.text, "secret": secret("secret of a webhook")},
        {"url": servers.receiver.url("/bad"), "secret": secret("secret of a webhook that tells it")},
    ]
    direct = {}
    for name, (path, credentials) in servers.sources().items():
        one = document(name, path, credentials, webhooks=hooks)
        answer = walk.call("POST", PATH, one, headers={"idempotency-key": name.replace(" ", "-")})
        assert answer.status_code == 201, answer.text
        direct[name] = answer.json()["id"]
    into = {"catalog": "given", "database": "d", "table": "t"}
    source = f"s3://{servers.bucket}/data/"
    away = document("a catalog that refuses", source, servers.seaweed.credentials, destination=into)
    direct["away"] = walk.made(201, "POST", PATH, away)["id"]
    by_schedule = {**servers.wrong_key, "aws_secret_access_key": secret("aws_secret_access_key of a schedule")}
    scheduled: dict[str, tuple[str, Mapping[str, str] | None]] = {
        "s3 by schedule": (f"s3://{servers.bucket}/data/", by_schedule),
        "s3 good by schedule": (f"s3://{servers.bucket}/data/", servers.seaweed.credentials),
        CONTROL.text: (f"{walk.service.home}/{CONTROL.text}", None),
    }
    planned = {}
    for name, (source, keys) in scheduled.items():
        made = walk.made(201, "POST", PATH, document(name, source, keys, schedule=HOURLY, webhooks=hooks))
        planned[name] = made["id"]
        path = f"{PATH}/{made['id']}"
        until(lambda path=path: walk.call("GET", path).json()["prefect_deployment_id"], 180, name)  # type: ignore[misc]
        # By our API it would be a direct run where the machine is too slow for Prefect.
        due = {"state": {"type": "SCHEDULED"}, "work_queue_name": "autoloader-priority", "idempotency_key": made["id"]}
        deployment = walk.call("GET", path).json()["prefect_deployment_id"]
        servers.prefect.ask(f"/deployments/{deployment}/create_flow_run", due)
    with ThreadPoolExecutor(4) as pool:
        tried = [pool.submit(walk.call, "POST", f"{PATH}/{verb}", document("x", path, credentials))
                 for path, credentials in servers.sources().values() for verb in ("test", "estimate-cost")]  # fmt: skip
        runs = {name: pool.submit(walk.run, one) for name, one in direct.items()}
    found = {name: run.result() for name, run in runs.items()} | {n: walk.ended(one) for n, one in planned.items()}
    assert [run["method"] for run in found.values()] == ["direct"] * len(direct) + ["prefect"] * len(planned)
    statuses = {name: run["status"] for name, run in found.items()}
    good = {name for name, status in statuses.items() if status == "success"}
    assert good == {"gs good", "s3 good", "s3 good by schedule"}, statuses
    assert {one.result().status_code for one in tried} == {200, 422}
    changed = {"aws_secret_access_key": secret("aws_secret_access_key that is changed")}
    path = f"{PATH}/{direct['s3 wrong']}"
    walk.made(200, "PUT", path, {"source": {"credentials": changed}})
    assert walk.run(direct["s3 wrong"])["status"] == "failed"
    moved = {"source": {"credentials": {"endpoint_url": servers.away}}}
    assert walk.call("PUT", path, moved).status_code == 422
    for hook in (CONTROL.text, servers.receiver.url("/bad")):
        walk.made(200, "POST", f"{path}/webhooks/test", {"webhook": hook})
    walk.made(200, "POST", f"{path}/pause")
    walk.made(200, "POST", f"{path}/resume")
    wrong = secret("wrong token")
    assert walk.call("GET", PATH, token=wrong).status_code == 401
    assert walk.call("GET", f"{PATH}?token={quote(wrong)}", token="x").status_code == 401
    look_at_everything(walk, {**direct, **planned})
    assert walk.call("DELETE", path).status_code == 204


def look_at_everything(walk: Walk, ingestions: Mapping[str, str]) -> None:
    """Ask for all that can be read."""
    logs = []
    walk.call("GET", f"{PATH}?q={quote(CONTROL.text)}&limit=100")
    for one in ingestions.values():
        path = f"{PATH}/{one}"
        for what in ("", "/files", "/files/failed", "/webhook-deliveries"):
            walk.call("GET", f"{path}{what}")
        for run in walk.call("GET", f"{path}/runs").json()["items"]:
            walk.call("GET", f"{path}/runs/{run['id']}/prefect-details")
            logs.append(walk.call("GET", f"{path}/runs/{run['id']}/logs").content)
    walk.call("GET", "/health")
    walk.places["metrics"] = walk.call("GET", "/metrics").content
    walk.places["logs of runs"] = b"\n".join(logs)
    walk.places["event stream"] = walk.call("GET", "/api/v1/events?after=0&timeout_s=0").content


def walk_by_commands(walk: Walk, servers: Servers) -> None:
    """Commands at the service, and at one that is not there."""
    home = Home(walk.service.home)
    base = f"http://127.0.0.1:{walk.service.port}"
    file = walk.service.home.parent / "refused.json"
    file.write_text(json.dumps(refused_documents(servers.bucket)[1]))
    at_service = {"AUTOLOADER_SERVER": base, "AUTOLOADER_TOKEN": walk.token}
    walk.command(home, "ingestions", "show", CONTROL.text, environ=at_service)
    walk.command(home, "ingestions", "create", "-f", str(file), refused=True, environ=at_service)
    wrong = {"AUTOLOADER_TOKEN": secret("AUTOLOADER_TOKEN")}
    walk.command(home, "ingestions", "list", refused=True, environ={"AUTOLOADER_SERVER": base, **wrong})
    walk.command(home, "ingestions", "list", refused=True, environ={"AUTOLOADER_SERVER": servers.away, **wrong})
    address = f"http://me:{secret('password of a service')}@127.0.0.1:9"
    walk.command(home, "ingestions", "list", refused=True, environ={"AUTOLOADER_SERVER": address})


def walk_with_keys(walk: Walk) -> None:
    """Keys are rotated, once with a key that is not at hand."""
    home = Home(walk.service.home)
    walk.command(home, "keys", "rotate", refused=True, environ={"SECRET_KEY": secret("wrong token")})
    keys = {name: secret(name) for name in ("SECRET_KEY", "SECRET_KEY_PREVIOUS")}
    assert walk.command(home, "keys", "rotate", "--output", "json", environ=keys).json["rewrapped"] > 0


def catalogs(teller: Receiver) -> dict[str, str]:
    """A catalog of an environment, which refuses all."""
    password = quote(secret("password of a catalog"), safe="")
    prefix = "PYICEBERG_CATALOG__GIVEN__"
    return {
        f"{prefix}TYPE": "rest",
        f"{prefix}URI": f"http://me:{password}@127.0.0.1:{teller.port}",
        f"{prefix}CREDENTIAL": secret("credential of a catalog"),
    }


def walk_by_loads(walk: Walk, servers: Servers) -> None:
    """Loads without a service: from stores that refuse, and into catalogs that do."""
    parent = walk.service.home.parent
    home = Home(parent / "loads", catalogs(servers.teller))
    (home.folder / "landing").mkdir(parents=True)
    (home.folder / "landing" / "a.json").write_text('{"a": 1}')
    keys = parent / "keys.json"
    keys.write_text(json.dumps({**servers.wrong_key, "aws_session_token": secret("aws_session_token")}))
    written = {
        "type": "rest",
        "uri": f"http://me:{secret('password of a catalog in a file')}@127.0.0.1:{servers.teller.port}",
        "token": secret("token of a catalog in a file"),
    }
    lines = [f"    {name}: {json.dumps(value)}" for name, value in written.items()]
    (home.folder / ".pyiceberg.yaml").write_text("\n".join(["catalog:", "  written:", *lines]))
    sas = parent / "sas.json"
    account = {"account_name": "someone", "endpoint_url": servers.teller.url("")}
    sas.write_text(json.dumps({**account, "sas_token": secret("sas_token")}))
    walk.command(home, "load", "az://box/data/", "--credentials", str(sas), "--to", "d.t", refused=True)
    for verb in ("load", "plan"):
        source = f"s3://{servers.bucket}/data/"
        walk.command(home, verb, source, "--credentials", str(keys), "--to", "d.t", "--verbose", refused=True)
    for to in ("given.d.t", "written.d.t"):
        walk.command(home, "load", "landing", "--to", to, "--verbose", refused=True)
    walk.command(home, "load", CONTROL.text, "--to", "d.t", refused=True)
    (home.folder / ".pyiceberg.yaml").unlink()
    walk.places["home of loads"] = files_of(home.folder)


def walk_with_up(walk: Walk, servers: Servers, home: Path, environ: Mapping[str, str]) -> None:
    """The service of one machine, with a run that fails."""
    with started_up(home, environ=environ) as up:
        commands = Home(home.parent, {"AUTOLOADER_SERVER": str(up.ready()["api_url"])})
        file = home.parent / "up.json"
        one = document("up", f"s3://{servers.bucket}/data/", servers.wrong_key, schedule=HOURLY)
        file.write_text(json.dumps(one))
        walk.command(commands, "ingestions", "create", "-f", str(file))
        walk.command(commands, "ingestions", "run", "up", "--wait", refused=True)
    walk.places["log of up"] = up.log.encode()
    walk.places["home of up"] = files_of(home)


def walk_on_postgresql(walk: Walk, servers: Servers, postgres: Postgres, url: str, prefect_url: str) -> None:
    """A database behind a password, and passwords that it refuses."""
    password = secret("password of the database")
    spelled = password.replace("'", "''")
    postgres.execute(f"create user canary superuser password '{spelled}'")
    name = url.rpartition("/")[2]
    home = Home(walk.service.home.parent / "second", {"SECRET_KEY": secret("SECRET_KEY"), **ONCE})
    home.folder.mkdir()

    def database(text: str) -> dict[str, str]:
        return {"DATABASE_URL": f"postgresql://canary:{text}@127.0.0.1:{postgres.port}/{name}"}

    file = home.folder / "made.json"
    file.write_text(json.dumps(document(CONTROL.text, f"{home.folder}/{CONTROL.text}")))
    right = database(quote(password, safe=""))
    walk.command(home, "ingestions", "create", "-f", str(file), environ=right)
    walk.command(home, "ingestions", "run", CONTROL.text, "--wait", "--verbose", refused=True, environ=right)
    wrong = quote(secret("wrong password of the database"), safe="")
    walk.command(home, "ingestions", "list", "--verbose", refused=True, environ=database(wrong))
    walk.command(
        home, "ingestions", "list", "--verbose", refused=True, environ=database(secret("password of no database"))
    )
    keys = {"SECRET_KEY": secret("SECRET_KEY"), "AUTOLOADER_ALLOWED_HOSTS": "127.0.0.1", **ONCE}
    walk_with_up(walk, servers, home.folder.parent / "up", {**keys, **right, "PREFECT_API_URL": prefect_url})
    tables = postgres.execute("select quote_ident(tablename) from pg_tables where schemaname = 'public'", url)
    rows = [row for (table,) in tables for row in postgres.execute(f"select {table}::text from {table}", url)]
    walk.places["PostgreSQL"] = "\n".join(str(value) for row in rows for value in row).encode()
    walk.places["home of commands"] = files_of(home.folder)


def walk_without_prefect(walk: Walk, folder: Path, servers: Servers) -> None:
    """Services whose Prefect refuses all, or has no address, and whose key no header can carry."""
    password = secret("password of a Prefect that is away")
    environ = {
        "PREFECT_API_URL": f"{with_user(servers.teller.url(''), f'me:{password}')}/api",
        "PREFECT_API_KEY": secret("PREFECT_API_KEY"),
    }
    for number, url in enumerate((environ["PREFECT_API_URL"], f"http://me:{password}@127.0.0.1:9/api")):
        alone = Walk(ServiceProcess(folder / f"third-{number}", {**environ, "PREFECT_API_URL": url}))
        try:
            alone.service.start()
            alone.made(201, "POST", PATH, document(CONTROL.text, f"/{CONTROL.text}", schedule=HOURLY))
            alone.call("GET", f"{PATH}?q={quote(CONTROL.text)}")
            alone.call("GET", "/health")
        finally:
            alone.service.stop()
        walk.places[f"service without Prefect {number}"] = files_of(alone.service.home, leave_out={"secret.key"})
        walk.answers += alone.answers


def with_user(address: str, user: str) -> str:
    """The address with "user:password" in it."""
    return address.replace("://", f"://{quote(user, safe=':')}@")


def what_prefect_says(prefect: PrefectServer) -> bytes:
    """What its API tells of everything that it keeps."""
    kinds = (
        "flow_runs",
        "logs",
        "deployments",
        "block_documents",
        "variables",
        "automations",
        "work_pools",
        "artifacts",
    )
    found = [prefect.ask(f"/{kind}/filter", {}) for kind in kinds]
    found += [prefect.ask("/events/filter", {}), prefect.ask("/work_pools/autoloader-pool/workers/filter", {})]
    return json.dumps(found).encode()
