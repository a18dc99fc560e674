#!/usr/bin/env bash
# `make demo`: everything embedded, nothing to install but Rust. One request of each kind, a thousand erasures at once, a proof by plain SQL
# of what has become of the data, and a certificate that is verified offline. Everything is kept in target/demo until the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TARGET=${CARGO_TARGET_DIR:-target}
DEMO=$TARGET/demo
DATA=$DEMO/quittanced
LEAVERS=1000
WAIT=(--wait --timeout 180s)
STATEMENT='The customer lives in Amsterdam; parcels went astray.'

BOLD='' DIM='' PLAIN='' WIDTH=0
if [ -t 1 ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' PLAIN=$'\e[0m'
  WIDTH=$( (stty size </dev/tty | cut -d ' ' -f 2) 2>/dev/null || true)
fi
SECTION=
section() { SECTION=$1; printf '\n%s== %s%s\n' "$BOLD" "$1" "$PLAIN"; }
say() { printf '%s\n' "$*" | fold -s -w 110; }
# Shows a command, and runs it.
run() { printf '\n%s$' "$DIM"; printf ' %s' "${@@Q}" | sed -E "s/'([-A-Za-z0-9_.,:=@%+\/]+)'/\1/g"; printf '%s\n' "$PLAIN"; "$@"; }

SERVER='' WORKER=''
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
failed() {
  printf '\n%sThe demonstration failed%s in "%s".\n' "$BOLD" "$PLAIN" "$SECTION"
  if [ -n "$SERVER" ] && ! alive "$SERVER"; then say "quittanced is not running any more."; fi
  if [ -n "$WORKER" ] && ! alive "$WORKER"; then say "The print shop's worker is not running any more."; fi
  for log in "$DEMO"/*.log; do
    if [ -s "$log" ]; then printf '\nThe end of %s:\n' "$log"; tail -n 8 "$log"; fi
  done
} >&2
stop() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" != 0 ] && [ -n "$SECTION" ]; then failed; fi
  # The worker first: it gives back what it has leased, if there is somebody to give it to.
  alive "$SERVER" || kill -9 $WORKER 2>/dev/null || true
  for process in $WORKER $SERVER; do
    kill "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  exit "$status"
}
trap stop EXIT
trap 'SECTION=; exit 130' INT
trap 'SECTION=; exit 143' TERM

# Settings of the caller's own must not reach into this.
unset "${!QUITTANCE@}"
export NO_COLOR=1

section 'Build'
say 'A debug build of the whole workspace, which the tests use too. The first one takes some minutes.'
cargo build --workspace
mkdir -p "$TARGET"
PATH=$(cd "$TARGET" && pwd)/debug:$PATH
exec 9>"$TARGET/demo.lock"
if command -v flock >/dev/null && ! flock -n 9; then
  SECTION=
  say 'Another demonstration still runs here, or its parent was killed and left quittanced or its worker behind.' >&2
  exit 1
fi
SECONDS=0

section 'A processor with three systems'
say 'Atelier Noord sells engraved gifts. We are its processor: its customer administration (crm, SQLite, keyed by' \
  'e-mail address) and its web shop (shop, SQLite, keyed by user id) are ours; a print shop, our sub-processor, keeps' \
  'files. 10 000 people are made up for it. Quittance learns from a data map what of this is personal data.'
rm -rf "${DEMO:?}"
mkdir -p "$DATA/secrets"
demo-data seed "$DEMO"
for database in crm shop; do echo "sqlite:$DEMO/$database.db" > "$DATA/secrets/$database"; done

token() { (umask 077; quittanced --data-dir "$DATA" token add --name "$1" "${@:2}" > "$DEMO/$1.token"); }
token operator --role operator
token erp --role customer --customer atelier-noord
token printer --role connector --system print-shop

quittanced --data-dir "$DATA" --listen 127.0.0.1:0 2> "$DEMO/quittanced.log" &
SERVER=$!
address() { sed -n 's/.*listening address=\([0-9.:]*\).*/\1/p' "$DEMO/quittanced.log"; }
UNTIL=$((SECONDS + 30))
until [ -n "$(address)" ]; do
  if ! alive "$SERVER" || [ "$SECONDS" -gt "$UNTIL" ]; then say 'quittanced does not come up.' >&2; exit 1; fi
  sleep 0.1
done
export QUITTANCE_ENDPOINT; QUITTANCE_ENDPOINT=http://$(address)
say "quittanced serves on $QUITTANCE_ENDPOINT now, and keeps its store and its keys in $DATA."

export QUITTANCE_TOKEN_FILE=$DEMO/operator.token
run quittance customers create atelier-noord -f deploy/demo/atelier-noord.yaml
for system in crm shop print-shop; do run quittance systems register -f "deploy/demo/$system.yaml"; done
quittance-file-worker --system print-shop --root "$DEMO/print-shop" --token-file "$DEMO/printer.token" \
  2> "$DEMO/print-shop-worker.log" &
WORKER=$!
printf '\n'
say "The print shop's worker runs beside it. It asks for tasks over gRPC; nobody can call it."

# From here on, the customer itself speaks: only it instructs, and only it gets access packages.
export QUITTANCE_TOKEN_FILE=$DEMO/erp.token
REQUEST=
# As wide as the terminal is: wrapped tables cannot be read.
fit() { if [ "${WIDTH:-0}" -gt 0 ]; then cut -c "1-$WIDTH"; else cat; fi; }
# Keeps the name of the request that the command's table shows.
keep() { run "$@" | tee "$DEMO/last"; REQUEST=$(awk '$1 == "request" { print $2 }' "$DEMO/last"); }

section 'Access (Art. 15)'
say 'Everything that the three systems hold about one person. The shop knows no e-mail addresses: the crm gives away the' \
  'user id that it is asked by. Messages are two people'"'"'s, so the customer says first whether they may go out.'
keep quittance requests create --action access --email "$(demo-data email access)" --reference DSR-1 "${WAIT[@]}"
run quittance packages get "$REQUEST"
run quittance packages review "$REQUEST" --withhold-third-party
run quittance packages download "$REQUEST" --out "$DEMO/access-package.jsonl"
say 'Its first lines:'
head -n 5 "$DEMO/access-package.jsonl" | sed -E 's/^(.{200}).+/\1 …/'

section 'Rectification (Art. 16)'
say 'The city was misspelt. Only that collection and field are touched, and only where the old value stands. Files cannot be' \
  'corrected by a machine: a statement is laid beside them.'
keep quittance requests create --action rectification --email "$(demo-data email rectified)" --reference DSR-2 \
  --correct 'address.city=Amstredam=>Amsterdam' --statement "files.text=$STATEMENT" "${WAIT[@]}"

section 'Restriction (Art. 18), and its lifting'
say 'While the accuracy of the data is contested it is kept and marked, and the applications leave it alone. Lifting needs' \
  'the time when the person was told (Art. 18(3)).'
keep quittance requests create --action restriction --ground accuracy_contested \
  --email "$(demo-data email restricted)" --reference DSR-3 "${WAIT[@]}"
keep quittance requests create --action lift_restriction --subject-informed "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
  --email "$(demo-data email restricted)" --reference DSR-4 "${WAIT[@]}"

section 'Erasure (Art. 17)'
say 'First what it would touch, touching nothing. Invoices of the last seven book years are held by law. The shop is asked by the' \
  'user id that the crm gives away for the address.'
run quittance requests preview --action erasure --email "$(demo-data email erased)"
keep quittance requests create --action erasure --email "$(demo-data email erased)" --reference DSR-5 "${WAIT[@]}"

section "A bulk erasure: $LEAVERS people at once"
say 'From a CSV file. The same batch id resumes it should it be cut; nothing is taken in twice.'
run quittance requests batch --action erasure --file "$DEMO/leavers.csv" --batch-id leavers "${WAIT[@]}"

section 'What the customer has in hand: the confirmations of the single erasure'
say 'Every system says itself what it did, after it has read back in a new transaction; when its last backup with the data' \
  'expires; and until when something is held, to be erased by itself then.'
ERASED=$(quittance requests list --reference DSR-5 | awk 'NR == 2 { print $1 }')
run quittance requests get "$ERASED"
run quittance confirmations list "$ERASED" | fit

section 'Proof, asking nobody'
say 'demo-data reads both databases with plain SQL, and the folder, and compares everything with a copy from before' \
  '(tests/src/bin/demo-data/tables.rs has the statements). "theirs": rows of the '"$((LEAVERS + 1))"' people who were erased, or' \
  'that lead to them.'
run demo-data prove "$DEMO" --statement "$STATEMENT"

section 'The certificate, checked without us'
say 'Signed, with the openings of its entries in the append-only log and a proof for each. Whom it is about stands in a file of its' \
  'own; without that, nobody can find out. The check needs the file and the log'"'"'s public key, and no service.'
run quittance requests certificate "$ERASED" --out "$DEMO/certificate.json" --opening "$DEMO/subject-opening.json" \
  --document "$DEMO/certificate.pdf" --language en --wait
quittanced --data-dir "$DATA" ledger keys > "$DEMO/log-keys.txt"
run env -u QUITTANCE_ENDPOINT -u QUITTANCE_TOKEN_FILE quittance verify "$DEMO/certificate.json" --key "$DEMO/log-keys.txt" \
  --subject-opening "$DEMO/subject-opening.json"
say 'One figure altered, and it is refused:'
sed 's/"count":1/"count":2/' "$DEMO/certificate.json" > "$DEMO/altered.json"
if run quittance verify "$DEMO/altered.json" --key "$DEMO/log-keys.txt"; then say 'An altered certificate was believed.' >&2; exit 1; fi

section "Done in $SECONDS seconds after the build"
say "All of it is left in $DEMO: crm.db and shop.db (before/ has them as they were), print-shop/, access-package.jsonl," \
  'certificate.json, certificate.pdf, subject-opening.json, log-keys.txt,' \
  'leavers.csv, the logs, and the store of Quittance in quittanced/.'
