#!/bin/sh
# Makes capture/ and k6.json.gz anew. Needs root, and nginx, k6, lab, probe and analyzer on PATH.
set -eu
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
cd "$work"

lab serve --listen 127.0.0.1:18631 --fault shed-load:20% &
servers=$!
nginx -p "$work" -c "$here/nginx.conf" &
servers="$servers $!"
# One word is one process.
# shellcheck disable=SC2086
trap 'kill $servers; rm -r "$work"' EXIT
probe record -o capture --port 18080,18631 --interval 500ms \
    --health http://127.0.0.1:18080/health --reported .connections.active \
    --metrics http://127.0.0.1:18080/stub_status 2>probe.log &
probe=$!
until grep -q recording probe.log; do sleep 0.1; done
sleep 2
k6 run --quiet --out json=k6.json "$here/k6.js"
sleep 2
kill -INT "$probe"
wait "$probe" || [ $? -eq 130 ]
rm -rf "$here/capture" "$here/k6.json.gz"
analyzer export --parquet "$here/capture" capture
gzip -9n <k6.json >"$here/k6.json.gz"
