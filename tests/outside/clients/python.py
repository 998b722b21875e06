"""The scenario of tests/outside with Python's requests. Usage: python.py URL DOOR"""

import sys

import requests

URL, DOOR = sys.argv[1], sys.argv[2]
KEY = f"{URL}/kv/outside/python-{DOOR}"


def check(holds, what, answer):
    if not holds:
        sys.exit(f"{what}: {answer.status_code} {dict(answer.headers)} {answer.text[:600]}")


with requests.Session() as session:
    session.delete(KEY)
    text = b'{"a": 1}\n'
    answer = session.put(KEY, data=text, headers={"Content-Type": "application/json"})
    check(answer.status_code == 201, "a put creates", answer)
    check("Kvs-Node" in answer.headers, "the node names itself", answer)
    first = answer.json()["uuid"]

    answer = session.get(KEY)
    check(answer.content == text, "a value comes back as it was put", answer)
    tag = answer.headers["ETag"]
    check(tag.removeprefix("W/") == f'"{first}"', "the tag is the version", answer)
    envelope = session.get(KEY, params={"format": "envelope"})
    check(envelope.json().get("data") == {"a": 1}, "a JSON value is shown as JSON", envelope)

    swap = {"If-Match": tag, "Content-Type": "application/json"}
    answer = session.put(KEY, data=b'{"a": 2}', headers=swap)
    if tag.startswith("W/"):
        # a compressing proxy has made the tag weak, which If-Match never takes (RFC 9110, 13.1.1)
        check(answer.status_code == 412, "a weak tag is refused", answer)
        check("compress" in answer.text, "the refusal names the proxy that compresses", answer)
        swap["If-Match"] = f'"{first}"'
        answer = session.put(KEY, data=b'{"a": 2}', headers=swap)
    check(answer.status_code == 200, "a swap on the current version succeeds", answer)
    second = answer.json()["uuid"]
    answer = session.put(KEY, data=b'{"a": 3}', headers={**swap, "If-Match": f'"{first}"'})
    check(answer.status_code == 412, "a swap on an old version is refused", answer)
    check(answer.json()["current"]["uuid"] == second, "the refusal shows what is there", answer)

    # `data=b""` sends `Content-Length: 0` and no type
    answer = session.put(KEY, params={"ttl": "3s"}, data=b"")
    check(answer.status_code == 400, "an empty put without a type is refused", answer)
    check(session.get(KEY).json() == {"a": 2}, "and destroys nothing", answer)
    answer = session.put(KEY, data=b"", headers={"Content-Type": "text/plain"})
    check(answer.status_code == 200, "an empty value with a type is stored", answer)
    check(session.get(KEY).content == b"", "and comes back empty", answer)

    answer = session.put(KEY, params={"ttl": "soon"}, data=b"x" * 300_000)
    check(answer.status_code == 400, "a bad duration is refused after the body was sent", answer)
    answer = session.get(KEY)
    check(answer.status_code == 200, "the session goes on after an early refusal", answer)

    answer = session.post(f"{URL}/cas/outside/python-{DOOR}", json={
        "expected": {"uuid": second}, "data": 3})
    check(answer.status_code == 412, "POST /cas on an old version is refused", answer)
    answer = session.delete(KEY)
    check(answer.status_code == 200, "a delete succeeds", answer)
    answer = session.get(KEY)
    check(answer.status_code == 404, "what is deleted is absent", answer)
    check(answer.headers["Content-Type"] == "application/problem+json", "errors say so", answer)
