#!/usr/bin/env bash
# Benchmarks of BASE and of the work tree, taking turns so that a noisy machine
# meets both, compared by benchstat.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE:-HEAD~1} count=${COUNT:-10} pattern=${BENCH:-.}
dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/base" >/dev/null 2>&1; rm -rf "$dir"' EXIT
git worktree add --quiet --detach "$dir/base" "$base"
for i in $(seq "$count"); do
  echo "round $i of $count" >&2
  (cd "$dir/base" && go test -run '^$' -bench "$pattern" -benchmem ./... >>"$dir/old.txt") || true
  go test -run '^$' -bench "$pattern" -benchmem ./... >>"$dir/new.txt"
done
go tool -modfile=tools/go.mod benchstat "$dir/old.txt" "$dir/new.txt"
