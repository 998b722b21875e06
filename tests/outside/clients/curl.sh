#!/usr/bin/env bash
# The scenario of tests/outside with curl. Usage: curl.sh URL DOOR
set -euo pipefail
url=$1 key=$1/kv/outside/curl-$2

# send EXPECTED ARGUMENT...: one request; prints the body, fails on another status
send() {
    local expected=$1 status body
    shift
    body=$(curl -sS -w '\n%{http_code}' "$@")
    status=${body##*$'\n'} body=${body%$'\n'*}
    if [[ $status != "$expected" ]]; then
        printf 'curl %s: %s, expected %s: %s\n' "$*" "$status" "$expected" "$body" >&2
        exit 1
    fi
    printf '%s' "$body"
}

curl -sS -o /dev/null -X DELETE "$key"
send 201 -X PUT -H 'Content-Type: application/json' -d '{"a":1}' "$key" >/dev/null
[[ $(send 200 "$key") == '{"a":1}' ]]
# curl sends neither a length nor a type here
send 400 -X PUT "$key?ttl=3s" >/dev/null
# and here a length of 0
send 400 -X PUT -H 'Content-Length: 0' "$key?ttl=3s" >/dev/null
[[ $(send 200 "$key") == '{"a":1}' ]]
send 200 -X PUT -H 'Content-Type: text/plain' -H 'Content-Length: 0' "$key" >/dev/null
send 400 "$url/kv/outside?nonsense=1" >/dev/null
send 200 -X DELETE "$key" >/dev/null
send 404 "$key" >/dev/null
