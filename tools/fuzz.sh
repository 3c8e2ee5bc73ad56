#!/usr/bin/env bash
# Runs every fuzz target of the repository for an equal share of FUZZTIME
# seconds (default 60).
set -euo pipefail
cd "$(dirname "$0")/.."
total=${FUZZTIME:-60}
targets=$(grep -rhoE --include='*_test.go' --exclude-dir=node_modules '^func (Fuzz[A-Za-z0-9_]+)' -H . | sed -E 's/^(.*)\/[^\/]+:func (Fuzz.*)$/\1 \2/' | sort -u)
n=$(printf '%s\n' "$targets" | grep -c . || true)
[ "$n" -gt 0 ] || { echo "fuzz: no targets"; exit 1; }
each=$((total / n))
[ "$each" -ge 1 ] || each=1
while read -r dir name; do
  echo "fuzz $dir $name ${each}s"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "${each}s" "$dir" >/tmp/sluice-fuzz.$$ 2>&1 || { cat /tmp/sluice-fuzz.$$; rm -f /tmp/sluice-fuzz.$$; exit 1; }
done <<<"$targets"
rm -f /tmp/sluice-fuzz.$$
echo "fuzz ok: $n targets"
