#!/usr/bin/env bash
# Installs what the named parts need and are missing: postgres, node, chromium, firefox.
# Says what it does; where it cannot install, it says what to type and goes on:
# the tests then decide whether a missing part is a skip or a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

apt() { # apt PACKAGE...
  if ! command -v apt-get >/dev/null; then return 1; fi
  local sudo=
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=sudo; else return 1; fi
  fi
  say "installing $* with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get -qq install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
    { $sudo apt-get -qq update >/dev/null && $sudo apt-get -qq install -y --no-install-recommends "$@" >/dev/null; }
}

have_postgres() {
  [ -n "${SLUICE_PG_BIN:-}" ] && [ -x "$SLUICE_PG_BIN/initdb" ] && return 0
  command -v initdb >/dev/null && return 0
  ls /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /opt/homebrew/opt/postgresql@*/bin/initdb \
    /usr/local/opt/postgresql@*/bin/initdb /Applications/Postgres.app/Contents/Versions/*/bin/initdb >/dev/null 2>&1
}

# Debian's package starts a cluster of its own; Sluice does not want it.
quiet_debian_cluster() {
  mkdir -p /etc/postgresql-common 2>/dev/null || return 0
  [ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf 2>/dev/null || true
}

for part in "$@"; do
  case $part in
  postgres)
    have_postgres || {
      quiet_debian_cluster
      apt postgresql || say "no PostgreSQL server binaries and no way to install them here; Sluice will fetch its own, or install them: macOS: brew install postgresql@17; Fedora: dnf install postgresql-server; Alpine: apk add postgresql"
    }
    ;;
  node)
    command -v npm >/dev/null || apt nodejs npm || say "npm is missing: install Node.js 20 or newer from your system's packages"
    for dir in test examples/nextjs-chat; do
      stamp=$dir/node_modules/.stamp
      if command -v npm >/dev/null && { [ ! -e "$stamp" ] || [ $dir/package-lock.json -nt "$stamp" ]; }; then
        say "npm ci in $dir/"
        (cd $dir && npm ci --no-audit --no-fund --loglevel=error) && touch "$stamp"
      fi
    done
    ;;
  chromium)
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || [ -n "${SLUICE_CHROMIUM:-}" ] ||
      apt chromium || say "no Chromium: install one, or name it in SLUICE_CHROMIUM"
    ;;
  firefox)
    command -v firefox-esr >/dev/null || command -v firefox >/dev/null || [ -n "${SLUICE_FIREFOX:-}" ] ||
      apt firefox-esr || say "no Firefox: install one, or name it in SLUICE_FIREFOX"
    ;;
  *)
    say "unknown part $part"
    exit 2
    ;;
  esac
done
