#!/usr/bin/env bash
# Runs all tests that are built, two of cargo's test programs at a time: most of them wait, for a server, a lease or a clock, and one after
# the other they leave half of the machine idle. What passed is told in a line each, what failed with all that it printed.
#   tests/with-servers.sh tests/all.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CARGO=${CARGO:-cargo}
AT_ONCE=2
# These take longest: the others go beside them.
LONGEST='/(conformance|forgetting|quittance_simulation|simulation|seeds|killed|sequencer|connectors|sql|ledger)-[0-9a-f]+$'

if [ "${1:-}" = --one ]; then # manifest, program
  begun=$(date +%s)
  export CARGO_MANIFEST_DIR=${2%/Cargo.toml}
  log=$(mktemp)
  status=0
  (cd "$CARGO_MANIFEST_DIR" && "$3") >"$log" 2>&1 || status=$?
  name=$(basename "$3" | sed -E 's/-[0-9a-f]+$//')
  [ "$status" = 0 ] || grep -vE '^test .* \.\.\. (ok|ignored)' "$log" | sed "s/^/$name: /"
  printf '%-28s %4s s  %s\n' "$name" $(($(date +%s) - begun)) "$(grep '^test result' "$log" || echo "ended with status $status")"
  rm -f "$log"
  exit "$status"
fi

# What tests store goes to memory, where there is room for it: no test cuts the machine's power, and a disk may take milliseconds for each of
# their many thousand fsyncs.
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1) || true
if [ "${room:-0}" -gt 4000000 ]; then
  TMPDIR=$(mktemp -d /dev/shm/quittance-tests.XXXXXX)
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
  # As the usual folder is: database servers that tests start run as other users.
  chmod 1777 "$TMPDIR"
fi

programs=$($CARGO test --workspace --no-run --quiet --message-format=json \
  | sed -n 's/.*"manifest_path":"\([^"]*\)".*"test":true},"features".*"executable":"\([^"]*\)".*/\1 \2/p')
[ -n "$programs" ] || { echo "tests/all.sh: cargo names no test programs" >&2; exit 1; }
{ grep -E "$LONGEST" <<<"$programs" || true; grep -vE "$LONGEST" <<<"$programs"; } | xargs -P "$AT_ONCE" -L 1 tests/all.sh --one
$CARGO test --workspace --doc --quiet
