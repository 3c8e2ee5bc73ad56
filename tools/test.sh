#!/usr/bin/env bash
# make test: lint, unit, end to end, a minute of fuzzing. Goes on after a
# failure so that one run tells all, and ends with what ran, what was skipped
# and why.
set -uo pipefail
cd "$(dirname "$0")/.."
export SLUICE_TEST_PG=${SLUICE_TEST_PG:-required}
export SLUICE_E2E=${SLUICE_E2E:-required}
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
declare -A result
started=$SECONDS
failed=0

step() { # step NAME COMMAND...
  local name=$1 t=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@" >"$log/$name" 2>&1; then
    result[$name]="ok ($((SECONDS - t)) s)"
  else
    result[$name]="FAILED ($((SECONDS - t)) s)"
    failed=1
  fi
  show "$name"
}

show() { # the lines a person needs; everything when the step failed
  if [[ ${result[$1]} == ok* ]]; then
    grep -E '^(ok|\?|FAIL|---|clients:|fuzz )' "$log/$1" | grep -vE '^(--- PASS|\?)' || true
  else
    grep -vE '^(=== |--- PASS|    --- PASS|\?)' "$log/$1" | tail -300
  fi
}

packages=$(go list ./... | grep -v '/test$')
step lint make --no-print-directory lint
# shellcheck disable=SC2086
step unit go test -race -timeout 30m -v $packages
step e2e go test -timeout 30m -v ./test
step fuzz tools/fuzz.sh

count() { cat "$log/unit" "$log/e2e" 2>/dev/null | grep -cE "^ *--- $1" || true; }
printf '\n== summary (%s s)\n' $((SECONDS - started))
for name in lint unit e2e fuzz; do printf '%-5s %s\n' "$name" "${result[$name]}"; done
printf 'failed:\n'
cat "$log/unit" "$log/e2e" | grep -E '^ *--- FAIL' || printf '  nothing\n'
printf 'skipped, with the reason:\n'
cat "$log/unit" "$log/e2e" | grep -B1 -E '^ *--- SKIP' | grep -vE '^--$' | head -60 || true
grep -h '^fuzz skipped' "$log/fuzz" || true
printf '%s passed, %s failed, %s skipped\n' "$(count PASS)" "$(count FAIL)" "$(count SKIP)"
exit $failed
