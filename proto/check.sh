#!/usr/bin/env bash
# Lints the contract (buf, STANDARD), checks its format, and compares it with the released one (proto/released.binpb).
#   check.sh            lint, format, breaking
#   check.sh --write    format in place
#   check.sh --release  take today's contract as the released one
# buf is taken from PATH, or from npm into target/tools. Where neither is to be had, this says so and does nothing, unless
# QUITTANCE_REQUIRE_BUF is set (as in CI).
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=1.75.0
TOOLS=target/tools/buf
if command -v buf >/dev/null; then
  BUF=buf
else
  BUF=$TOOLS/node_modules/.bin/buf
  if [ ! -x "$BUF" ]; then
    if ! command -v npm >/dev/null; then
      echo "proto: neither buf nor npm is here: the contract is not linted" >&2
      [ -z "${QUITTANCE_REQUIRE_BUF:-}" ]; exit
    fi
    mkdir -p "$TOOLS"
    npm install --silent --no-audit --no-fund --prefix "$TOOLS" "@bufbuild/buf@$VERSION" >/dev/null
  fi
fi
case "${1:-}" in
  --write) "$BUF" format -w proto ;;
  --release) "$BUF" build proto -o proto/released.binpb ;;
  *)
    "$BUF" lint proto
    "$BUF" format -d --exit-code proto >/dev/null || { echo "proto: not formatted: run make fmt" >&2; exit 1; }
    "$BUF" breaking proto --against proto/released.binpb
    echo "proto: lint, format and compatibility are fine"
    ;;
esac
