#!/bin/sh
# What people said about answers, for retrain.sh. The server's settings say where records and images
# are. RUN is the job's name: an attempt after a failed one goes on with what that one exported.
set -eu

out=${STATE:-/state}/exports/${RUN:?RUN is not set; give every run a name of its own}
if [ -f "$out/export.json" ]; then
    echo "$out is there already"
    exit 0
fi
rm -rf "$out"
mkdir -p "$(dirname "$out")"

status=0
ibinn-serve records export --out "$out" || status=$?
# 1: a kept image was damaged; it is named above and left out.
[ "$status" -le 1 ] || exit "$status"
