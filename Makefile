# Sluice. `make help` lists the targets.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
TOOL        := go tool -modfile=tools/go.mod
FUZZTIME    ?= 60
COUNT       ?= 10
SOAK        ?= 10m
export SLUICE_TEST_PG ?= required

.PHONY: help build run test unit e2e lint fmt fuzz fuzz-policy soak soak-changes bench bench-compare vendor clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n",$$1,$$2}' Makefile

build: ## build bin/sluice
	CGO_ENABLED=0 go build -trimpath -o bin/sluice ./cmd/sluice

run: ## start Sluice with the chat example; installs PostgreSQL if none is found
	@tools/setup.sh postgres
	@$(MAKE) --no-print-directory build
	bin/sluice start --workdir examples/chat --chat

test: ## everything: lint, unit tests on a real PostgreSQL, stock clients, a minute of fuzzing
	@tools/setup.sh postgres node chromium firefox
	@tools/test.sh

unit: ## Go tests with the race detector
	go test -race -timeout 20m $$(go list ./... | grep -v '/test$$')

e2e: ## the built binary with stock clients and a browser
	@tools/setup.sh postgres node chromium firefox
	SLUICE_E2E=required go test -timeout 30m -v ./test

lint: ## formatting, vet, staticcheck, unused modules
	@out=$$($(TOOL) gofumpt -l . 2>/dev/null | grep -v node_modules || true); \
	  if [ -n "$$out" ]; then echo "gofumpt: run make fmt for"; echo "$$out"; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/sluice
	GOOS=windows GOARCH=amd64 go build -o /dev/null ./cmd/sluice

fmt: ## format all Go files
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

fuzz: ## every fuzz target, FUZZTIME seconds in all
	@FUZZTIME=$(FUZZTIME) tools/fuzz.sh

fuzz-policy: ## row level security against PostgreSQL: SEED, and TRIPLES (default a million) or DURATION
	SLUICE_POLICY_SEED=$(SEED) SLUICE_POLICY_TRIPLES=$(if $(DURATION),$(or $(TRIPLES),0),$(or $(TRIPLES),1000000)) SLUICE_POLICY_DURATION=$(DURATION) \
	  go test -count 1 -run '^TestTiersAgree$$' -v -timeout 24h ./policy

soak: ## ten minutes of 2,000 busy connections; nothing may be left behind
	SLUICE_SOAK=$(SOAK) go test -run '^TestSoak$$' -v -timeout 30m ./realtime

soak-changes: ## a million rows, 200 cuts, 10 kills, 5 restarts of PostgreSQL; no row may be missing
	@tools/setup.sh postgres
	SLUICE_E2E=required SLUICE_SOAK_CHANGES=1 go test -run '^TestSoakChanges$$' -v -timeout 180m ./test

bench: ## Go benchmarks, COUNT runs each
	go test -run '^$$' -bench . -benchmem -count $(COUNT) ./...

bench-compare: ## benchmarks of BASE (default main~1) and of the work tree, interleaved, with benchstat
	@BASE=$(BASE) COUNT=$(COUNT) tools/bench-compare.sh

vendor: ## rebuild the chat page's client bundle (needs npm)
	@tools/setup.sh node
	cd examples/chat/vendor && npm ci --no-audit --no-fund && node build.mjs

clean: ## remove build results, not data
	rm -rf bin
