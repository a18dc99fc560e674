#!/usr/bin/env bash
# Builds an earlier commit's server beside this one's, and has both work on one store.
#   FROM=… bash tests/upgrade.sh      a commit; without it, the one on this branch before the newest migration
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${FROM:-}" ]; then
  newest=$(git log -1 --first-parent --format=%H -- 'services/store/src/migrations/0*.sql')
  FROM=$(git rev-parse "$newest^")
fi
FROM=$(git rev-parse --short "$FROM^{commit}")
tree=target/earlier/tree
git worktree remove --force "$tree" 2>/dev/null || true
git worktree prune
git worktree add --quiet --force --detach "$tree" "$FROM"
trap 'git worktree remove --force "$tree"' EXIT
printf 'upgrade: building %s\n' "$FROM" >&2
CARGO_TARGET_DIR=$PWD/target/earlier/target cargo build --manifest-path "$tree/Cargo.toml" -p quittance-server --bin quittanced
cargo build --workspace --all-targets
QUITTANCE_TEST_EARLIER=$PWD/target/earlier/target/debug/quittanced \
  tests/with-servers.sh cargo test --workspace --test upgrade -- --ignored
