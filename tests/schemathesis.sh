#!/usr/bin/env bash
# Asks everything that the OpenAPI document allows, and much that it does not, of a platform of its own: no answer may be
# a 5xx, none may have a status, a media type or a form that the document does not know.
#
#   tests/schemathesis.sh [SECONDS] [ARGUMENTS OF SCHEMATHESIS...]
#
# Needs a built `entropy` (`./dev chaos schema` builds it), and python3 unless `st` is installed: schemathesis is then
# installed into .entropy/, nowhere else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/entropy")

tester=$(command -v st || true)
if [ -z "$tester" ]; then
    tools=$PWD/.entropy/schemathesis
    if [ ! -x "$tools/bin/st" ]; then
        python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet 'schemathesis>=4.32,<5'
    fi
    tester=$tools/bin/st
fi

folder=$(mktemp -d)
platform=
finish() {
    if [ -n "$platform" ]; then
        kill "$platform" 2>/dev/null || true
        wait "$platform" 2>/dev/null || true
    fi
    if [ "$1" -eq 0 ]; then rm -rf "$folder"; else echo "logs: $folder/log" >&2; fi
}
trap 'finish $?' EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd "$folder" && BIND=127.0.0.1:$port exec "$program" dev) >"$folder/log" 2>&1 &
platform=$!
base=http://127.0.0.1:$port

# Somebody to ask as, with an account: an organisation of its own, since the demo's password is known to everybody.
token=$(python3 - "$base" "$platform" <<'PYTHON'
import json, os, secrets, sys, time, urllib.request

base, platform = sys.argv[1], int(sys.argv[2])

def post(path, body, token=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{base}/api/v1{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)

for _ in range(600):
    os.kill(platform, 0)
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=5):
            break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("the platform does not get ready")
name = secrets.token_hex(6)
person = {"organization": name, "username": f"admin-{name}", "password": secrets.token_hex(16)}
token = post("/auth/register", person)["access_token"]
post("/wechat-accounts", {"wxid": f"wxid_{name}", "gewe_app_id": f"wx_{name}"}, token)
print(token)
PYTHON
)

# What answers wrongly to a right request, and what takes a wrong one, is for the tests in tests/it/api: the document does
# not say everything that a value must be.
"$tester" run "$base/api/v1/openapi.json" \
    --header "Authorization: Bearer $token" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing \
    --max-time "$seconds" --continue-on-failure --workers 2 --suppress-health-check all \
    --generation-database none --request-timeout 30 "$@"
