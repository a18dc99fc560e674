#!/usr/bin/env bash
# Runs a command with a PostgreSQL and a MariaDB of its own: own data directory, free ports, ended afterwards. The programs that tests
# read PDF files with are there too.
#   tests/with-servers.sh cargo test --workspace
# Sets QUITTANCE_TEST_POSTGRES_URL (superuser, database postgres), QUITTANCE_TEST_POSTGRES_LOG (what it says), QUITTANCE_TEST_STANDBY_URL (a
# copy of it that is in recovery and takes no writes) and QUITTANCE_TEST_MARIADB_URL (root, no database), QUITTANCE_TEST_POSTGRES_BIN and
# QUITTANCE_TEST_MARIADBD (the servers' programs) and QUITTANCE_TEST_FAKETIME (a library that steps a process's clock).
# Debian has no MySQL. QUITTANCE_TEST_MYSQLD=/usr/sbin/mysqld names one (8.0 or later; libraries and messages where it looks for them, else a
# script that starts it with --basedir and the like): it stands where MariaDB stands otherwise, under the same names, for all that runs in here.
# With QUITTANCE_TEST_FSYNC=off the servers do not wait for the disk: right for tests, wrong for what is measured.
# Where no server is installed and we may, the Debian packages are.
set -euo pipefail

say() { printf 'with-servers: %s\n' "$*" >&2; }

pg_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

faketime() { ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1; }

install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "$1 is not installed: install the package $2, or run as root on Debian"; exit 1
  fi
  say "installing $2"
  [ -n "${APT_UPDATED:-}" ] || { apt-get update -qq; APT_UPDATED=1; }
  # policy-rc.d keeps the package from starting a server of its own.
  local policy=/usr/sbin/policy-rc.d made=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"; made=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
  [ -z "$made" ] || rm -f "$policy"
}

[ -n "$(pg_bin)" ] && [ -x "$(pg_bin)/initdb" ] || install PostgreSQL postgresql
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || install MariaDB mariadb-server
command -v pdftotext >/dev/null || install poppler poppler-utils
command -v qpdf >/dev/null || install qpdf qpdf
[ -n "$(faketime)" ] || install libfaketime libfaketime
PG=$(pg_bin)
MARIADBD=$(command -v mariadbd || echo /usr/sbin/mariadbd)

# Below the ports that the tests look in, and those that the kernel gives to connections.
free_port() {
  local port
  while port=$((10000 + RANDOM % 6000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# Servers refuse to run as root: the package's own user runs them then.
as() { if [ "$(id -u)" = 0 ]; then local user=$1; shift; setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"; else shift; "$@"; fi; }

DIR=$(mktemp -d "${TMPDIR:-/tmp}/quittance-servers.XXXXXX")
chmod 755 "$DIR"
mkdir "$DIR/pg" "$DIR/maria"
if [ "$(id -u)" = 0 ]; then chown postgres "$DIR/pg"; chown mysql "$DIR/maria"; fi

MARIA_PID=
stop() {
  status=$?
  trap - EXIT INT TERM
  as postgres "$PG/pg_ctl" -D "$DIR/pg/data" -m immediate -s stop >/dev/null 2>&1 || true
  as postgres "$PG/pg_ctl" -D "$DIR/pg/standby" -m immediate -s stop >/dev/null 2>&1 || true
  # What runs in the background is a subshell around the server: the server's own pid is in its file.
  if [ -s "$DIR/maria/pid" ]; then kill "$(cat "$DIR/maria/pid")" 2>/dev/null || true; fi
  if [ -n "$MARIA_PID" ]; then
    [ -s "$DIR/maria/pid" ] || pkill -P "$MARIA_PID" 2>/dev/null || true
    wait "$MARIA_PID" 2>/dev/null || true
  fi
  rm -rf "$DIR"
  exit $status
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

PG_PORT=$(free_port)
as postgres "$PG/initdb" --no-sync -D "$DIR/pg/data" -U quittance_test -A trust --locale=C.UTF-8 -E UTF8 >"$DIR/pg-init.log" 2>&1 \
  || { cat "$DIR/pg-init.log" >&2; exit 1; }
as postgres cp -a "$DIR/pg/data" "$DIR/pg/standby"
as postgres touch "$DIR/pg/standby/standby.signal"
POSTGRES_FSYNC= MARIA_FSYNC=
if [ "${QUITTANCE_TEST_FSYNC:-on}" = off ]; then
  POSTGRES_FSYNC="-c fsync=off -c full_page_writes=off"
  MARIA_FSYNC="--innodb-flush-log-at-trx-commit=2 --innodb-doublewrite=0"
fi
start_postgres() { # data directory, port
  as postgres "$PG/pg_ctl" -D "$DIR/pg/$1" -l "$DIR/pg/$1.log" -w -s \
    -o "-p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories=$DIR/pg -c max_connections=400 -c log_line_prefix='%m [%p] %d ' \
      $POSTGRES_FSYNC ${QUITTANCE_TEST_POSTGRES_OPTIONS:-}" start \
    || { cat "$DIR/pg/$1.log" >&2; exit 1; }
}
start_postgres data "$PG_PORT"
STANDBY_PORT=$(free_port)
start_postgres standby "$STANDBY_PORT"
export QUITTANCE_TEST_STANDBY_URL="postgres://quittance_test@127.0.0.1:$STANDBY_PORT/postgres"
export QUITTANCE_TEST_POSTGRES_URL="postgres://quittance_test@127.0.0.1:$PG_PORT/postgres"
export QUITTANCE_TEST_POSTGRES_LOG="$DIR/pg/data.log"
export QUITTANCE_TEST_POSTGRES_BIN="$PG" QUITTANCE_TEST_MARIADBD="$MARIADBD"
QUITTANCE_TEST_FAKETIME=$(faketime)
export QUITTANCE_TEST_FAKETIME

MARIA_PORT=$(free_port)
if [ -n "${QUITTANCE_TEST_MYSQLD:-}" ]; then
  MARIA=MySQL
  SERVER=$QUITTANCE_TEST_MYSQLD
  as mysql "$SERVER" --no-defaults --datadir="$DIR/maria/data" --secure-file-priv=NULL --initialize-insecure >"$DIR/maria-init.log" 2>&1 \
    || { cat "$DIR/maria-init.log" >&2; exit 1; }
  OPTIONS="--secure-file-priv=NULL --mysqlx=OFF --skip-log-bin"
else
  MARIA=MariaDB
  SERVER=$MARIADBD
  as mysql mariadb-install-db --no-defaults --datadir="$DIR/maria/data" --auth-root-authentication-method=normal --skip-test-db \
    >"$DIR/maria-init.log" 2>&1 || { cat "$DIR/maria-init.log" >&2; exit 1; }
  OPTIONS=
fi
as mysql "$SERVER" --no-defaults --datadir="$DIR/maria/data" --socket="$DIR/maria/sock" --port="$MARIA_PORT" --bind-address=127.0.0.1 \
  --pid-file="$DIR/maria/pid" --log-error="$DIR/maria/log" --skip-name-resolve $OPTIONS $MARIA_FSYNC &
MARIA_PID=$!
export QUITTANCE_TEST_MARIADB_URL="mysql://root@127.0.0.1:$MARIA_PORT"
for _ in $(seq 100); do
  if mariadb-admin --no-defaults --protocol=tcp -h 127.0.0.1 -P "$MARIA_PORT" -u root ping >/dev/null 2>&1; then break; fi
  if ! kill -0 "$MARIA_PID" 2>/dev/null; then cat "$DIR/maria/log" >&2; exit 1; fi
  sleep 0.2
done
# Over TCP the client's address is 127.0.0.1, and root is only root@localhost.
mariadb --no-defaults --socket="$DIR/maria/sock" -u root \
  -e "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY ''; GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION" 2>/dev/null || true

say "PostgreSQL on port $PG_PORT, $MARIA on port $MARIA_PORT"
"$@"
