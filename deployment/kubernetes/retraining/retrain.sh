#!/bin/sh
# Retrain on the exported feedback, and hold the candidate against the current and the first model.
# Nothing is deployed here, unless PROMOTE_OPTIONS names a signed plan and --deploy.
set -eu

state=${STATE:-/state}
models=${MODELS:-/models}
for needed in CURRENT FIRST DATA ACCEPTANCE OOD; do
    eval "value=\${$needed:-}"
    [ -n "$value" ] || { echo "$needed is not set; set it in retraining/settings.env" >&2; exit 2; }
done

# An attempt after a failed one goes on with its run: RUN is the job's name.
name=${RUN:?RUN is not set; give every run a name of its own}
run=$state/runs/$name
mkdir -p "$state/runs" "$state/decisions"

# The options are lists of words.
# shellcheck disable=SC2086
ibinn-train retrain --feedback "$state/exports/$name" --base "$models/$CURRENT" --data "$DATA" \
    --out "$run" --exclude "$ACCEPTANCE" ${RETRAIN_OPTIONS:-}

# Every comparison has a folder of its own.
decision=$state/decisions/$name-$(date -u +%Y%m%dT%H%M%S)
status=0
# shellcheck disable=SC2086
ibinn-train promote "$run/bundle" --current "$models/$CURRENT" --first "$models/$FIRST" \
    --acceptance "$ACCEPTANCE" --ood "$OOD" --out "$decision" --uses "$state/uses.jsonl" \
    ${PROMOTE_OPTIONS:-} || status=$?

# 0 promoted, 1 refused, 3 waits for a person: the job did its work in each.
case $status in
    0) echo "promoted; see $decision/decision.html" ;;
    1) echo "refused, with reasons in $decision/decision.html" ;;
    3) echo "waits for approval: ibinn-train approve $decision --by NAME --key KEY" ;;
    *) exit "$status" ;;
esac
