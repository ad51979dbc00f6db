"""The bundled schemas in Schema Registry's HTTP shape."""

from __future__ import annotations

import json

import pytest

from schemas.registry import entries, latest
from tests.unit.ingress.fakes import World, problem

KIND = "application/vnd.schemaregistry.v1+json"


async def test_every_schema_is_served_under_its_subject_and_its_id() -> None:
    async with World().client() as client:
        subjects = await client.get("/registry/subjects")
        assert subjects.headers["content-type"] == KIND
        assert subjects.json() == sorted({entry.subject for entry in entries()})
        for entry in entries():
            base = f"/registry/subjects/{entry.subject}/versions"
            assert entry.version in (await client.get(base)).json()
            found = (await client.get(f"{base}/{entry.version}")).json()
            assert found == {"subject": entry.subject, "id": entry.id, "version": entry.version, "schema": entry.text}
            assert (await client.get(f"/registry/schemas/ids/{entry.id}")).json() == {"schema": entry.text}
            used = (await client.get(f"/registry/schemas/ids/{entry.id}/versions")).json()
            assert used == [{"subject": entry.subject, "version": entry.version}]
        command = latest("PaymentCommand")
        assert (await client.get(f"/registry/subjects/{command.subject}/versions/latest")).json()["id"] == command.id
        assert (await client.get("/registry/schemas/types")).json() == ["AVRO"]
        assert (await client.get("/registry/config")).json() == {"compatibilityLevel": "BACKWARD"}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/registry/subjects/nosuch/versions", 40401),
        ("/registry/subjects/nosuch/versions/1", 40401),
        (f"/registry/subjects/{latest('PaymentCommand').subject}/versions/99", 40402),
        (f"/registry/subjects/{latest('PaymentCommand').subject}/versions/x", 40402),
        ("/registry/schemas/ids/99999", 40403),
        ("/registry/schemas/ids/x", 40403),
        ("/registry/schemas/ids/99999/versions", 40403),
    ],
)
async def test_what_is_not_registered_is_not_found(path: str, code: int) -> None:
    async with World().client() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["error_code"]) == (404, code)


async def test_a_known_schema_is_looked_up_by_its_meaning() -> None:
    command = latest("PaymentCommand")
    reworded = json.dumps(json.loads(command.text), indent=7)
    async with World().client() as client:
        address = f"/registry/subjects/{command.subject}"
        assert (await client.post(address, json={"schema": reworded})).json()["id"] == command.id
        other = await client.post(address, json={"schema": '"string"'})
        assert (other.status_code, other.json()["error_code"]) == (404, 40403)
        nowhere = await client.post("/registry/subjects/nosuch", json={"schema": reworded})
        assert (nowhere.status_code, nowhere.json()["error_code"]) == (404, 40401)


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"{}", b"\xff", b'{"schema":1}', b'{"schema":"{"}', b"[" * 16_000, b'{"schema":"nosuch"}',
     b'{"schema":"' + b"[" * 15_000 + b'"}'],
)  # fmt: skip
async def test_hostile_schemas_are_invalid(raw: bytes) -> None:
    async with World().client() as client:
        answer = await client.post(f"/registry/subjects/{latest('PaymentCommand').subject}", content=raw)
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)


async def test_a_schema_may_have_16_kib() -> None:
    async with World().client() as client:
        answer = await client.post("/registry/subjects/x", content=b" " * 16_385)
    problem(answer, 413, "too-large")
